// Products of a weight, as a file has it, with many rows.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/product.hpp"

namespace sakuin::ggml {

// Memory that grows, on cache lines' bounds, of numbers that are written before they are read.
class Packed {
public:
    uint16_t* get(int64_t n);

private:
    struct Free {
        void operator()(uint16_t* p) const;
    };
    std::unique_ptr<uint16_t, Free> data_;
    int64_t size_ = 0;
};

struct Weight {
    const char* data;
    int64_t row_bytes, width, depth;
    WeightFormat format;
};

// fp32 rows, the numbers of each side by side.
struct Inputs {
    const float* data;
    int64_t stride, n;
    const float* const* rows = nullptr;  // where each lies instead; null: as `data` and `stride` say
};

// out[i, j] = x[i] . w[j]: row i at data + i * stride, or where rows[i] says.
struct Outputs {
    float* data;
    int64_t stride;
    float* const* rows = nullptr;
};

// Keeps the memory of one product for the next. For one thread at a time.
class Products {
public:
    explicit Products(const ProductKernels& kernels) : kernels_(kernels) {}

    // Computes in bf16 with sums in fp32, on n_threads threads. The rows' numbers are kept packed: with `same` they are
    // taken to be those of the call before.
    void multiply(const Inputs& x, const Weight& w, const Outputs& out, bool same, int n_threads);

    const ProductKernels& kernels() const { return kernels_; }

private:
    void pack(const Inputs& x, const Weight& w, bool same, int n_threads);
    // What is packed; the result's first column is `column` of `out`.
    void multiply_packed(int64_t n_rows, const Weight& w, const Outputs& out, int64_t column, int n_threads);

    const ProductKernels& kernels_;
    Packed x_, weight_;
};

}  // namespace sakuin::ggml
