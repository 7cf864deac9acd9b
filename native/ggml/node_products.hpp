// The products of a graph that are computed natively: of a weight with many rows, and of experts with the rows that
// chose them.
#pragma once

#include <memory>
#include <vector>

#include "ggml/abi.hpp"
#include "ggml/node.hpp"
#include "ggml/product.hpp"
#include "kernels/kernels.hpp"

namespace sakuin::ggml {

class NodeProducts {
public:
    // Null where this machine has no kernels for products in this dtype.
    static std::unique_ptr<NodeProducts> make(const Library& library, DType dtype);

    NodeProducts(const Library& library, const ProductKernels& kernels) : library_(library), products_(kernels) {}

    // Before each pass: what earlier nodes held is gone.
    void begin() { same_.forget(); }
    // MUL_MAT: src[0] (depth, width), src[1] (depth, rows) fp32, the node (width, rows) fp32.
    void multiply(const Tensor* node, int n_threads);
    // MUL_MAT_ID: src[0] (depth, width, experts), src[1] (depth, chosen or 1, tokens) fp32, src[2] (chosen, tokens)
    // int32, the node (width, chosen, tokens) fp32.
    void multiply_experts(const Tensor* node, int n_threads);

private:
    const Library& library_;
    Products products_;
    SameInputs same_;
    std::vector<ExpertRows> rows_;
};

}  // namespace sakuin::ggml
