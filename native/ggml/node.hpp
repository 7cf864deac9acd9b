// What the nodes of products have in common, however they are computed.
#pragma once

#include <vector>

#include "ggml/abi.hpp"
#include "ggml/product.hpp"

namespace sakuin::ggml {

// Row (i, j) of a tensor of which the first dimension is contiguous.
template <class T>
T* row_at(const Tensor* t, int64_t i, int64_t j) {
    return reinterpret_cast<T*>(static_cast<char*>(t->data) + static_cast<size_t>(i) * t->nb[1] +
                                static_cast<size_t>(j) * t->nb[2]);
}

Weight weight_of(const Library& library, const Tensor* w, const char* data);

// Several weights meet the same rows, one node after the other.
class SameInputs {
public:
    // What earlier nodes held is gone.
    void forget() { inputs_ = nullptr; }
    // Whether a node MUL_MAT has the inputs of the one before. A node that comes again belongs to another run of its
    // graph, in which the rows are others.
    bool operator()(const Tensor* node);

private:
    const Tensor* inputs_ = nullptr;
    std::vector<const Tensor*> multiplied_;  // the nodes that had them
};

// The rows that chose one expert, and where its products with them belong.
struct ExpertRows {
    std::vector<const float*> from;
    std::vector<float*> to;
};

// Of a node MUL_MAT_ID, by expert. Throws where a token chose one that is not there.
void rows_of_experts(const Tensor* node, std::vector<ExpertRows>& rows);

}  // namespace sakuin::ggml
