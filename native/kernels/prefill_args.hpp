// Arguments of the kernels for the attention of prefill (many queries over many keys): see attention/prefill.cpp, which
// cuts the work into these pieces.
//
// What they work on is packed in bf16, in pieces of 32 keys ("columns") and 32 query rows ("tiles"), head_dim padded
// with zeros to `dim`, a multiple of 32, that of values to `value_dim`. A unit is 16 rows of 16 pairs of numbers, 1 KB:
//   queries  of a tile:   [dim / 32][2 halves of 16 rows] units; row r of a unit holds 32 numbers of one query
//   keys     of a column: [dim / 32][2] units; row r of a unit holds numbers 2r and 2r + 1 of 16 keys, which are keys
//            0-3, 8-11, 16-19, 24-27 in the first unit and 4-7, 12-15, 20-23, 28-31 in the second
//   values   of a block of `prefill_block` keys: [value_dim / 32][columns][2] units; row r holds 16 dimensions of
//            keys 2r and 2r + 1
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/flat_args.hpp"
#include "kernels/limits.hpp"

namespace sakuin {

constexpr int prefill_tile = 32, prefill_column = 32, prefill_block = 256, prefill_most_tiles = 8,
              prefill_most_dim = static_cast<int>(most_head_dim);
static_assert(prefill_most_dim % 32 == 0);
constexpr int64_t prefill_unit = 512;  // numbers in 1 KB

// Up to 32 keys (or values, or queries) that are packed; `rows[i]` is where row i lies, null: zeros.
struct PrefillPack {
    const void* rows[32];
    DType dtypes[32];
    int head_dim, dim;
    uint16_t* to;
};

// Attention of `tiles` tiles of queries over `columns` columns of keys, added to `out` (32 * tiles, value_dim), `sum`
// and `shift` (32 * tiles,): out = sum of 2^(z - shift) * value, sum = sum of 2^(z - shift), z a score in units of
// log2.
struct PrefillStep {
    const uint16_t *q, *keys, *values;  // behind the keys another KB must be readable
    int dim, value_dim, tiles, columns;
    const int32_t* seen;       // (32 * tiles,): how many of the keys row r sees, the first ones
    bool first;                // nothing has been added yet: `shift` is not set, out and sum are zeros
    float scaling, softcap;    // softcap 0: none
    float *out, *sum, *shift;  // sum (32 * tiles, 16): parts of it
};

struct PrefillKernels {
    const char* name;
    void (*pack_queries)(const PrefillPack&);  // to: a tile
    void (*pack_keys)(const PrefillPack&);     // to: a column
    void (*pack_values)(const PrefillPack&);   // to: unit [0][column][0] of a block
    void (*attend)(const PrefillStep&);
};

}  // namespace sakuin
