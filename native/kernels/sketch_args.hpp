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

// Numbers of single keys stand side by side for all query heads of the group, filled up to 4, 8 or 16: so a key is one vector.
// Arrays per query head have this length too; what fills them up has scale 0, share 0 and an lse of +inf, and weighs nothing.
constexpr int padded(int group) { return group <= 4 ? 4 : group <= 8 ? 8 : 16; }

// The 16-bit scores of a segment's keys: for each block of 32 keys, for each query head, 32 numbers.
// score = z * scale + bias, per query head; a softcap, if any, comes after that.
struct ScoreMap {
    const uint16_t* z;
    const float *scale, *bias;  // (padded,)
    int group;
    float softcap;  // in base 2 (cap * log2(e)); 0: none
    // For sums over lists, where single weights may be off by 3 %: the upper half of the float 2^(score - top) is about
    // z * rate / 2^16 + offset, clamped at 0. Null where that does not reach: with a softcap, or scores too far apart.
    const uint16_t* rate;   // (padded,)
    const int32_t* offset;  // (padded,)
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
    const float* sigma;       // (padded,) reach * the score's standard deviation for a residue length of 1
    const float* lse;         // (padded,) of the whole softmax, static part included
    float least;              // a key is found if it may have a larger share than this for one of the query heads
    int64_t n;                // keys
    uint32_t* index;          // out: which keys, in order; room for n
    uint16_t* rows;           // out: (found, padded) their 16-bit scores
    uint8_t* length;          // out: their residue lengths in quarters
    const uint8_t* codes;     // rows of `code_bytes` that the found keys will be scored from: fetched ahead
    int64_t code_bytes;
};

// Rows of codes: `chunks` chunks of 16 coordinates, the first `eights` of them in 8 bits, then `fours`, then `twos`, the rest none.
struct CodeRows {
    const uint8_t* codes;
    int64_t row_bytes;
    int eights, fours, twos;
    const float* p;             // (group, head_dim) projected queries
    int head_dim;
    const int16_t* coordinate;  // (16 * chunks): which coordinate each number of a row is; -1 for padding
    const float* step;          // (16 * chunks): the quantizer's
};

// Keys that were found: scored again from codes, and sorted by what that says. All arrays per query head are (padded,).
struct Rescore {
    ScoreMap map;
    const float* top;      // the segment's largest score, to which its list sums are relative
    const uint32_t* index;
    const uint16_t* rows;  // (m, padded), readable to the end of a vector
    int64_t m;
    CodeRows codes;
    const float* lse;      // weights are relative to this
    const float* fold;     // 2^(top - lse): brings list sums to it
    const float* share;    // times a weight: the share of the whole softmax
    float coded_above, exact_above;  // of the share, for any query head
    const uint8_t* value_codes;      // rows of `value_bytes` that will be added for keys above `coded_above`: fetched ahead
    int64_t value_bytes;
    float *fresh, *old;    // scratch (m, padded) each, with room for a vector more; fresh: out, the new weights
    float* in_list;        // (lists, padded): found keys are taken out, those that stay are put back by their new weight
    uint32_t *exact, *coded;   // out: keys, room for m each
    float* coded_weights;      // out: (coded, padded)
    int64_t n_exact, n_coded;  // out
    float *taken, *put;        // out (padded): the sums of the squares of the weights that leave lists / that come back
};

struct SketchKernels {
    size_t table_bytes;

    // p (group, head_dim) = q (group, head_dim) x basis (head_dim, head_dim) in fp16
    void (*project)(const float* q, const uint16_t* basis, int group, int head_dim, float* p);
    // dot[g] = the sum of q[g] * mean, variance[g] = the sum of p[g] * p[g] * residue; mean and residue (head_dim,)
    void (*moments)(const float* q, const float* p, const float* mean, const float* residue, int group, int head_dim, float* dot,
                    float* variance);
    void (*make_tables)(const SketchTables&);
    // Scores of all keys of `lists` lists; z has room for 64 * lists * group; largest (group,) over all of them
    void (*scan)(const uint8_t* sketch, int64_t lists, int64_t list_bytes, int subs, const void* tables, int group, uint16_t* z,
                 uint16_t* largest);
    // sums (lists, padded): per list the sum of 2^(score - top[head]) over the first n keys; squares (padded): that of its square, over all
    void (*list_sums)(const ScoreMap&, const float* top, int64_t n, float* sums, float* squares);
    // Keys whose reach is above `least`; returns how many
    int64_t (*find_reach)(const Reach&);
    void (*rescore)(Rescore&);
    // fresh (m, padded) = the scores of the found keys by their codes, without the softcap; of `Rescore` it uses map, index, rows, m, codes
    void (*score_codes)(const Rescore&);
    // scores (m, padded) = q (group, head_dim) . keys[index], what fills up set to 0
    void (*score_rows)(const float* q, const void* keys, DType dtype, int head_dim, const uint32_t* index, int64_t m, int group,
                       float* scores);
    // x (m, padded) = 2^(cap(x) - minus[head]); with softcap 0 no cap; room for a vector more
    void (*weights)(float* x, int64_t m, int group, float softcap, const float* minus);
    // out (group, head_dim) += sum over i of weights[i][head] * rows[index[i]]; weights (m, padded); index null: rows 0 .. m - 1
    void (*add_rows)(const void* rows, DType dtype, int head_dim, const uint32_t* index, int64_t m, const float* weights, int group,
                     float* out);
    // The same for value codes: 4 bits, `params` (n, 2) in bf16: lowest number and step of each row; index null as there
    void (*add_value_codes)(const uint8_t* codes, int64_t row_bytes, const uint16_t* params, int head_dim, const uint32_t* index,
                            int64_t m, const float* weights, int group, float* out);
};

}  // namespace sakuin
