// The kernels of the `sketch` index as plain function pointers and plain argument structs (see docs/method.md for the method).
//
// All scores are in base 2: a query is scaled by `scaling * log2(e)` before it comes here, so that a token's weight is 2^score.
// A *list* is 64 keys that lie close together, two blocks of 32; a group is the query heads that share a KV head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/flat_args.hpp"

namespace sakuin {

constexpr int list_size = 64;
constexpr int max_group = 16;

// The 16-bit scores of a segment's keys: for each block of 32 keys, for each query head, 32 numbers.
// score = z * scale + bias, per query head; a softcap, if any, comes after that.
struct ScoreMap {
    const uint16_t* z;
    const float *scale, *bias;  // (group,)
    int group;
    float softcap;  // in base 2 (cap * log2(e)); 0: none
};

// Look-up tables of a group's projected queries over the sub-quantizers of a segment.
struct SketchTables {
    const float* p;              // (group, head_dim) projected queries
    const int16_t* coordinate;   // (subs, 2); the second is -1 where the sub-quantizer holds one coordinate in four bits
    const float* step;           // (subs, 2)
    int group, head_dim, subs;
    void* tables;                // out: table_bytes() each, (subs, group)
    float *scale, *bias;         // (group,) out: scale; bias is lowered by what the tables were raised
};

struct Reach {
    ScoreMap map;
    const uint8_t* sketch;    // the segment's lists, for the residue lengths
    int64_t list_bytes;
    const float* sigma;       // (group,) reach * the score's standard deviation for a residue length of 1
    const float* lse;         // (group,) of the whole softmax, static part included
    float least;              // share above which a key is scored again
    int64_t n;                // keys
    uint32_t* index;          // out: which keys, in order; room for n
    float* reach;             // out: their reach; infinite for a residue length past the scale
};

// Rows of codes: `chunks` chunks of 16 coordinates, the first `eights` of them in 8 bits, then `fours`, then `twos`, the rest none.
struct CodeRows {
    const uint8_t* codes;
    int64_t row_bytes;
    int eights, fours, twos;
    const float* p;      // (group, 16 * coded chunks): projected queries in the row's order, times the quantizer's step
    const float* start;  // (group,) the score of a row whose numbers are all 0, without the sketch
};

struct SketchKernels {
    size_t table_bytes;

    // p (group, head_dim) = q (group, head_dim) x basis (head_dim, head_dim) in fp16
    void (*project)(const float* q, const uint16_t* basis, int group, int head_dim, float* p);
    void (*make_tables)(const SketchTables&);
    // Scores of all keys of `lists` lists; z has room for 64 * lists * group; largest (group,) over all of them
    void (*scan)(const uint8_t* sketch, int64_t lists, int64_t list_bytes, int subs, const void* tables, int group, uint16_t* z,
                 uint16_t* largest);
    // sums (group, lists): per list the sum of 2^(score - top[head]) over the first n keys
    void (*list_sums)(const ScoreMap&, const float* top, int64_t n, float* sums);
    // Keys whose reach is above `least`; returns how many
    int64_t (*find_reach)(const Reach&);
    // scores (group, capacity): by the sketch, of the m keys in `index`, before the softcap
    void (*gather_scores)(const ScoreMap&, const uint32_t* index, int64_t m, int64_t capacity, float* scores);
    // adds what the codes refine to scores (group, capacity)
    void (*add_codes)(const CodeRows&, const uint32_t* index, int64_t m, int64_t capacity, int group, float* scores);
    // scores (group, capacity) = q . keys[index]
    void (*score_rows)(const float* q, const void* keys, DType dtype, int head_dim, const uint32_t* index, int64_t m,
                       int64_t capacity, int group, float* scores);
    // out (group, head_dim) += sum over i of weights[head][i] * rows[index[i]]; index null: rows 0 .. m - 1
    void (*add_rows)(const void* rows, DType dtype, int head_dim, const uint32_t* index, int64_t m, const float* weights,
                     int64_t capacity, int group, float* out);
    // The same for value codes: 4 bits, `params` (n, 2) in bf16: lowest number and step of each row
    void (*add_value_codes)(const uint8_t* codes, int64_t row_bytes, const uint16_t* params, int head_dim, const uint32_t* index,
                            int64_t m, const float* weights, int64_t capacity, int group, float* out);
    // x (n) = 2^(cap(x) - minus); with softcap 0 no cap
    void (*weights)(float* x, int64_t n, float softcap, float minus);
};

}  // namespace sakuin
