// Arguments of the kernels that multiply a weight, as a file has it, with a few rows of x: see ggml/gemv.cpp, which
// cuts the work into these pieces. Weights are read once for all rows and are multiplied as they lie, in whole numbers;
// for that each row of x is rounded to 8 bits, 32 numbers with a scale of their own.
#pragma once

#include <cstdint>

#include "kernels/product_args.hpp"

namespace sakuin {

constexpr int gemv_most_rows = 8;       // of x, at a time
constexpr int gemv_most_arranged = 32;  // where they are arranged, at most

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

// 32 numbers of a row of x for panels, of which a lane is a row of the weight.
struct alignas(16) GemvBlock {
    int32_t codes[8];  // four of 8 bits in each
    int32_t bias[2];   // of all numbers in the first; for types with scales of 16 numbers, of each half
    float scale, sum;
};

// 64 numbers of up to eight rows of x for tiles, of which the CPU multiplies 16 rows of the weight with 16 columns at a
// time. A column is a row of x and half of the numbers, else zeros, since each half has a scale of its own; for types
// with scales of 16 numbers, half of one half, in two tiles.
struct alignas(64) GemvTile {
    int8_t codes[16][64];  // line k: numbers 4k to 4k + 3 of the columns
    int32_t bias[16];      // of columns
    float scales[16], sums[16];
};

struct GemvKernels {
    const char* name;
    // Codes of a type are stored as `code + offset`; -1: the type has no kernel.
    int (*offset)(int type);
    void (*round)(const GemvInput&);
    void (*multiply)(const GemvRange&);
    // Rows of x from which on they are arranged before they are multiplied, by type; and how many at a time, at most.
    int (*arranged_from)(int type);
    int most_arranged;
    // Bytes of so many rows, arranged.
    int64_t (*arranged_bytes)(int type, int64_t depth, int n_rows);
    // One of a range's rows, to where all of them lie.
    void (*arrange)(const GemvRange&, int row, void* to);
    // As `multiply`, of a range's rows that are arranged, at 64 bytes.
    void (*multiply_arranged)(const GemvRange&, const void*);
};

}  // namespace sakuin
