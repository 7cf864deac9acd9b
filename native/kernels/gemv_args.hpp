// Arguments of the kernels that multiply a weight, as a file has it, with a few rows of x: see ggml/gemv.cpp, which
// cuts the work into these pieces. Weights are read once for all rows and are multiplied as they lie, in whole numbers;
// for that each row of x is rounded to 8 bits, 32 numbers with a scale of their own.
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
    // Rows of x from which on they are multiplied as tiles, by type; null: never.
    int (*tiles_from)(int type);
    // Tiles of a chunk, by type.
    int (*tiles)(int type);
    // The tiles of all chunks of a range's rows, one after the other.
    void (*arrange)(const GemvRange&, GemvTile*);
    // As `multiply`, of a range's rows that are arranged.
    void (*multiply_tiles)(const GemvRange&, const GemvTile*);
};

}  // namespace sakuin
