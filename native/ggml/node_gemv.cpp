#include "ggml/node_gemv.hpp"

namespace sakuin::ggml {

std::unique_ptr<NodeGemv> NodeGemv::make(const Library& library) {
    const GemvKernels* const kernels = gemv_kernels("");
    return kernels == nullptr ? nullptr : std::make_unique<NodeGemv>(library, *kernels);
}

void NodeGemv::multiply(const Tensor* node, int n_threads) {
    const Tensor *const w = node->src[0], *const x = node->src[1];
    one_.resize(1);
    GemvJob& job = one_.front();
    job.weight = weight_of(library_, w, static_cast<const char*>(w->data));
    job.x.clear(), job.out.clear();
    for (int64_t i = 0; i < x->ne[1]; ++i) {
        job.x.push_back(row_at<const float>(x, i, 0));
        job.out.push_back(row_at<float>(node, i, 0));
    }
    gemv_.multiply(one_, same_(node), n_threads);
}

void NodeGemv::multiply_experts(const Tensor* node, int n_threads) {
    const Tensor* const w = node->src[0];
    same_.forget();
    rows_of_experts(node, rows_);
    jobs_.clear();
    for (size_t expert = 0; expert < rows_.size(); ++expert)
        if (!rows_[expert].from.empty())
            jobs_.push_back({rows_[expert].from, rows_[expert].to,
                             weight_of(library_, w, static_cast<const char*>(w->data) + expert * w->nb[2])});
    gemv_.multiply(jobs_, false, n_threads);
}

}  // namespace sakuin::ggml
