// The products of a graph with a few rows that are computed natively.
#pragma once

#include <memory>
#include <vector>

#include "ggml/abi.hpp"
#include "ggml/gemv.hpp"
#include "ggml/node.hpp"

namespace sakuin::ggml {

class NodeGemv {
public:
    // Null where this machine has no kernels for them.
    static std::unique_ptr<NodeGemv> make(const Library& library);

    NodeGemv(const Library& library, const GemvKernels& kernels) : library_(library), gemv_(kernels) {}

    // Before each pass: what earlier nodes held is gone.
    void begin() { same_.forget(); }
    bool has(const Tensor* weight) const { return gemv_.has(weight->type, weight->ne[0]); }
    // As NodeProducts.
    void multiply(const Tensor* node, int n_threads);
    void multiply_experts(const Tensor* node, int n_threads);

private:
    const Library& library_;
    Gemv gemv_;
    SameInputs same_;
    std::vector<GemvJob> one_, jobs_;
    std::vector<ExpertRows> rows_;
};

}  // namespace sakuin::ggml
