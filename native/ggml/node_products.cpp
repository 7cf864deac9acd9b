#include "ggml/node_products.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sakuin::ggml {
namespace {

int64_t floats(size_t bytes) { return static_cast<int64_t>(bytes / sizeof(float)); }

template <class T>
T* at(const Tensor* t, int64_t i, int64_t j) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i) * t->nb[1] +
                                static_cast<size_t>(j) * t->nb[2]);
}

}  // namespace

std::unique_ptr<NodeProducts> NodeProducts::make(const Library& library, DType dtype) {
    const ProductKernels* const kernels = dtype == DType::bf16 ? product_kernels("") : nullptr;
    return kernels == nullptr ? nullptr : std::make_unique<NodeProducts>(library, *kernels);
}

// Several weights meet the same rows, one node after the other. A node that comes again belongs to another run of its
// graph, in which the rows are others.
bool NodeProducts::same_inputs(const Tensor* node) {
    const Tensor* const x = node->src[1];
    const bool again = std::find(multiplied_.begin(), multiplied_.end(), node) != multiplied_.end();
    const bool same = x == inputs_ && !again;
    if (!same) multiplied_.clear();
    multiplied_.push_back(node);
    inputs_ = x;
    return same;
}

Weight NodeProducts::weight_of(const Tensor* w, const char* data) const {
    const Traits* const traits = library_.get_type_traits(w->type);
    return {data,
            static_cast<int64_t>(w->nb[1]),
            w->ne[1],
            w->ne[0],
            {w->type, traits->block_size, static_cast<int64_t>(traits->type_size), traits->to_float}};
}

void NodeProducts::multiply(const Tensor* node, int n_threads) {
    const Tensor *const w = node->src[0], *const x = node->src[1];
    const bool same = same_inputs(node);
    products_.multiply({static_cast<const float*>(x->data), floats(x->nb[1]), x->ne[1]},
                       weight_of(w, static_cast<const char*>(w->data)),
                       {static_cast<float*>(node->data), floats(node->nb[1])}, same, n_threads);
}

void NodeProducts::multiply_experts(const Tensor* node, int n_threads) {
    const Tensor *const w = node->src[0], *const x = node->src[1], *const ids = node->src[2];
    inputs_ = nullptr;
    rows_.resize(static_cast<size_t>(w->ne[2]));
    for (Rows& rows : rows_) rows.from.clear(), rows.to.clear();
    for (int64_t token = 0; token < ids->ne[1]; ++token)
        for (int64_t i = 0; i < ids->ne[0]; ++i) {
            const char* const id = static_cast<const char*>(ids->data) + static_cast<size_t>(token) * ids->nb[1] +
                                   static_cast<size_t>(i) * ids->nb[0];
            const int32_t expert = *reinterpret_cast<const int32_t*>(id);
            if (expert < 0 || expert >= w->ne[2])
                throw std::runtime_error("llama.cpp chose expert " + std::to_string(expert) + " of " +
                                         std::to_string(w->ne[2]));
            Rows& rows = rows_[static_cast<size_t>(expert)];
            rows.from.push_back(at<const float>(x, i % x->ne[1], token));
            rows.to.push_back(at<float>(node, i, token));
        }
    for (size_t expert = 0; expert < rows_.size(); ++expert) {
        const Rows& rows = rows_[expert];
        if (rows.from.empty()) continue;
        products_.multiply({nullptr, 0, static_cast<int64_t>(rows.from.size()), rows.from.data()},
                           weight_of(w, static_cast<const char*>(w->data) + expert * w->nb[2]),
                           {nullptr, 0, rows.to.data()}, false, n_threads);
    }
}

}  // namespace sakuin::ggml
