// Arguments of the kernels for products of packed weights with many rows: see ggml/product.cpp, which cuts the work
// into these pieces.
//
// Both factors are packed in bf16, in blocks of 32 rows (of x, or of the weight: columns of the result). The depth is
// cut into steps of 32 numbers, the last filled with zeros. A unit is 16 rows of 16 pairs of numbers, 1 KB:
//   x       of a block: [steps][2 halves of 16 rows] units; row r of a unit holds 32 numbers of one row
//   weight  of a block: [steps][2 halves of 16 columns] units; row r holds numbers 2r and 2r + 1 of 16 columns
#pragma once

#include <cstdint>

namespace sakuin {

constexpr int product_block = 32, product_most_blocks = 8, product_sums = 1024;
constexpr int64_t product_unit = 512;  // numbers in 1 KB

constexpr int64_t product_steps(int64_t depth) { return (depth + 31) / 32; }
// Numbers of a packed block.
constexpr int64_t product_block_size(int64_t depth) { return product_steps(depth) * 2 * product_unit; }

// How the rows of a weight lie in a file: ggml's number of the type, and blocks of `block` numbers in `block_bytes`.
struct WeightFormat {
    int type;
    int64_t block, block_bytes;
    void (*to_float)(const void*, float*, int64_t);  // for the types that have no kernel
};

// Up to 32 rows of x (depth,); null: zeros.
struct ProductInputs {
    const float* rows[product_block];
    int64_t depth;
    uint16_t* to;
};

// Up to 32 rows of a weight, the first at `data`.
struct ProductWeights {
    const WeightFormat* format;
    const char* data;
    int64_t row_bytes, n, depth;
    uint16_t* to;
};

// out[i, j] = x[i] . weight[j] for a range of rows and columns, whole blocks of both, at most `product_most_blocks`
// each way. Rows and columns beyond `n_rows` and `n_columns` are not written.
struct ProductRange {
    const uint16_t *x, *weight;
    int64_t steps, n_rows, n_columns;
    float* out;              // of the first row and column
    int64_t stride;          // numbers from one row to the next
    float* const* out_rows;  // where the rows' first columns lie instead; null: as `out` and `stride` say
    float* sums;             // memory for the blocks' sums, `product_sums` numbers each, on a cache line's bound
};

struct ProductKernels {
    const char* name;
    void (*pack_inputs)(const ProductInputs&);
    void (*pack_weights)(const ProductWeights&);
    void (*multiply)(const ProductRange&);
    // to[n], rounded to nearest, ties to even; numbers too small for bf16's normal ones become 0.
    void (*to_bf16)(const float* from, int64_t n, uint16_t* to);
    // The first n numbers of a row, whole blocks, in bf16.
    void (*unpack)(const WeightFormat&, const char* from, int64_t n, uint16_t* to);
};

}  // namespace sakuin
