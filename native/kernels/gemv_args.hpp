// Arguments of the kernels that multiply a weight, as a file has it, with a few rows of x: see ggml/gemv.cpp, which cuts
// the work into these pieces. Weights are read once for all rows and are multiplied as they lie, in whole numbers; for
// that each row of x is rounded to 8 bits, 32 numbers with a scale of their own.
#pragma once

#include <cstdint>

#include "kernels/product_args.hpp"

namespace sakuin {

constexpr int gemv_most_rows = 8;  // of x, at a time

// 64 numbers of a row of x.
struct alignas(64) GemvChunk {
    int8_t codes[64];
    int32_t bias[16];  // of each four codes the sum, times what the type of the weight lays on its codes, negated
    float scales[16];  // for each four codes
};

constexpr int64_t gemv_chunks(int64_t depth) { return (depth + 63) / 64; }

// A row of x (depth,), a multiple of 32. Chunk c is written to to[c * stride], the sums of 32 numbers each, as rounded,
// to sums[gemv_chunks * 2].
struct GemvInput {
    const float* x;
    int64_t depth, stride;
    int offset;  // gemv_offset of the weight's type
    GemvChunk* to;
    float* sums;
};

// out[i][j] = x[i] . weight[j] for n_rows of x and n rows of the weight.
struct GemvRange {
    int type;  // ggml's number
    const char* weight;
    int64_t row_bytes, n, depth;
    const GemvChunk* x;  // chunk c of row i: x[c * n_rows + i]
    const float* sums;   // of row i: sums + i * 2 * gemv_chunks(depth)
    int n_rows;
    float* const* out;
};

struct GemvKernels {
    const char* name;
    // Codes of a type are stored as `code + offset`; -1: the type has no kernel.
    int (*offset)(int type);
    void (*round)(const GemvInput&);
    void (*multiply)(const GemvRange&);
};

}  // namespace sakuin
