#include "ggml/node_products.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sakuin::ggml {
namespace {

int64_t floats(size_t bytes) { return static_cast<int64_t>(bytes / sizeof(float)); }

}  // namespace

std::unique_ptr<NodeProducts> NodeProducts::make(const Library& library, DType dtype) {
    const ProductKernels* const kernels = dtype == DType::bf16 ? product_kernels("") : nullptr;
    return kernels == nullptr ? nullptr : std::make_unique<NodeProducts>(library, *kernels);
}

void NodeProducts::multiply(const Tensor* node, int n_threads) {
    const Tensor *const w = node->src[0], *const x = node->src[1];
    const bool same = same_(node);
    products_.multiply({static_cast<const float*>(x->data), floats(x->nb[1]), x->ne[1]},
                       weight_of(library_, w, static_cast<const char*>(w->data)),
                       {static_cast<float*>(node->data), floats(node->nb[1])}, same, n_threads);
}

void NodeProducts::multiply_experts(const Tensor* node, int n_threads) {
    const Tensor* const w = node->src[0];
    same_.forget();
    rows_of_experts(node, rows_);
    for (size_t expert = 0; expert < rows_.size(); ++expert) {
        const ExpertRows& rows = rows_[expert];
        if (rows.from.empty()) continue;
        products_.multiply({nullptr, 0, static_cast<int64_t>(rows.from.size()), rows.from.data()},
                           weight_of(library_, w, static_cast<const char*>(w->data) + expert * w->nb[2]),
                           {nullptr, 0, rows.to.data()}, false, n_threads);
    }
}

}  // namespace sakuin::ggml
