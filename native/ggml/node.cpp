#include "ggml/node.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sakuin::ggml {

Weight weight_of(const Library& library, const Tensor* w, const char* data) {
    const Traits* const traits = library.get_type_traits(w->type);
    return {data,
            static_cast<int64_t>(w->nb[1]),
            w->ne[1],
            w->ne[0],
            {w->type, traits->block_size, static_cast<int64_t>(traits->type_size), traits->to_float}};
}

bool SameInputs::operator()(const Tensor* node) {
    const Tensor* const x = node->src[1];
    const bool again = std::find(multiplied_.begin(), multiplied_.end(), node) != multiplied_.end();
    const bool same = x == inputs_ && !again;
    if (!same) multiplied_.clear();
    multiplied_.push_back(node);
    inputs_ = x;
    return same;
}

void rows_of_experts(const Tensor* node, std::vector<ExpertRows>& rows) {
    const Tensor *const w = node->src[0], *const x = node->src[1], *const ids = node->src[2];
    rows.resize(static_cast<size_t>(w->ne[2]));
    for (ExpertRows& each : rows) each.from.clear(), each.to.clear();
    for (int64_t token = 0; token < ids->ne[1]; ++token)
        for (int64_t i = 0; i < ids->ne[0]; ++i) {
            const char* const id = static_cast<const char*>(ids->data) + static_cast<size_t>(token) * ids->nb[1] +
                                   static_cast<size_t>(i) * ids->nb[0];
            const int32_t expert = *reinterpret_cast<const int32_t*>(id);
            if (expert < 0 || expert >= w->ne[2])
                throw std::runtime_error("llama.cpp chose expert " + std::to_string(expert) + " of " +
                                         std::to_string(w->ne[2]));
            ExpertRows& each = rows[static_cast<size_t>(expert)];
            each.from.push_back(row_at<const float>(x, i % x->ne[1], token));
            each.to.push_back(row_at<float>(node, i, token));
        }
}

}  // namespace sakuin::ggml
