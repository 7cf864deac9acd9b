// The kernels of the `sketch` index as plain function pointers and plain argument structs (see docs/method.md for the
// method).
//
// All scores are in base 2: a query is scaled by `scaling * log2(e)` before it comes here, so that a token's weight is
// 2^score. A *list* is 64 keys that lie close together, two blocks of 32;
// a group is the query heads that share a KV head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/flat_args.hpp"

namespace sakuin {

constexpr int list_size = 64;
constexpr int most_subs = 1024;  // sub-quantizers of a sketch
constexpr int max_group = 16;    // query heads that kernels take at a time; larger groups go in parts (index/parts.hpp)

// 127 * 256: the largest whole number whose upper byte, rounded, fits into 8 bits. What is multiplied in two bytes, an
// upper and a lower one with a sign each, is rounded to whole multiples of a unit up to this.
constexpr float most_of_two_bytes = 32512.0f;

// Numbers of single keys stand side by side for all query heads of the group, filled up to 4, 8 or 16: so a key is one
// vector. Arrays per query head have this length too;
// what fills them up has scale 0, share 0 and an lse of +inf, and weighs nothing.
constexpr int padded(int group) { return group <= 4 ? 4 : group <= 8 ? 8 : 16; }

// The 16-bit scores of a segment's keys: for each block of 32 keys, for each query head, 32 numbers.
// score = z * scale + bias, per query head; a softcap, if any, comes after that.
struct ScoreMap {
    const uint16_t* z;
    const float *scale, *bias;  // (padded,)
    int group;
    float softcap;  // in base 2 (cap * log2(e)); 0: none
    // For sums over lists, where single weights may be off by 3 %: the upper half of the float 2^(score - top) is about
    // max(z - floor, 0) * rate + plus. `rate` is null where that does not reach:
    // with a softcap, or scores too far apart.
    const uint16_t *floor, *rate, *plus;  // (padded,)
};

// A group's projected queries as the scan multiplies them with a segment's codes: factors of 8 bits, four in a word.
struct ScanQuery {
    const float* p;             // (group, head_dim) projected queries
    const int16_t* coordinate;  // (subs, 2); the second is -1 where the sub-quantizer holds one coordinate in four bits
    const float* step;          // (subs, 2)
    int group, head_dim, subs;  // subs: a multiple of 4
    // out (subs / 4, 2): which bits of four nibbles are first coordinates, and of what is above them second ones.
    uint32_t* masks;
    uint32_t* words;  // out (subs / 4, 2, group): the factors of these
    int32_t* start;   // out (group,): so that the least sum is 0
    // out (group,): scale, a whole number of 128ths where it is below 128; bias is lowered by the start; variance is
    // raised by what rounding adds.
    float *scale, *bias, *variance;
};

// Scores of all keys of `lists` lists.
struct Scan {
    const uint8_t* sketch;
    int64_t lists, list_bytes;
    int subs, group;
    const uint32_t *masks, *words;
    const int32_t* start;
    uint16_t* z;        // out, as in ScoreMap: room for 64 * lists * group
    uint16_t* largest;  // out (group,), over all of them
};

struct Reach {
    ScoreMap map;
    const uint8_t* sketch;  // the segment's lists, for the residue lengths
    int64_t list_bytes;
    const float* sigma;    // (padded,) reach * the score's standard deviation for a residue length of 1
    const float* lse;      // (padded,) of the whole softmax, static part included
    float least;           // a key is found if it may have a larger share than this for one of the query heads
    int64_t n;             // keys
    uint32_t* index;       // out: which keys, in order; room for n and 32 more
    uint32_t* begin;       // out (lists + 1,): where each list's keys begin in `index`
    uint16_t* rows;        // out (group + 1, row_stride): their 16-bit scores, and their residue lengths in quarters
    int64_t row_stride;    // at least n + 32
    const uint8_t* codes;  // rows of `code_bytes` that the found keys will be scored from: fetched ahead
    int64_t code_bytes;
};

// Rows of codes: `chunks` chunks of 16 coordinates, the first `eights` of them in 8 bits, then `fours`, then `twos`,
// the rest none.
struct CodeRows {
    const uint8_t* codes;
    int64_t row_bytes;
    int eights, fours, twos;
    const float* p;  // (group, head_dim) projected queries
    int head_dim;
    const int16_t* coordinate;  // (16 * chunks): which coordinate each number of a row is; -1 for padding
    const float* step;          // (16 * chunks): the quantizer's
};

// All keys of a segment, scored again from their codes in order: where many would be found, picking rows costs more
// than reading them all.
struct RescoreAll {
    uint16_t* z;         // in: scores by sketch as in ScoreMap; out: those by the codes too, in the same unit
    const float* scale;  // (padded,)
    int group;
    int64_t n;  // keys; what fills up the last list stays as it is
    CodeRows codes;
};

// All keys of a segment, attended by their scores and by value codes.
struct AttendAll {
    const RescoreAll* codes;  // what makes the scores of `map` those by codes; null where they are
    ScoreMap map;             // its quick form is not used
    int64_t n;
    const uint8_t* sketch;  // for the residue lengths: keys past their scale are attended exactly
    int64_t list_bytes;
    const float* lse;              // (padded,): weights are relative to this
    const float* share;            // (padded,): times a weight: the share of the whole softmax
    float exact_above;             // of the share, for any query head: such keys are left out
    const uint8_t* value_codes;    // (n, value_bytes)
    const uint16_t* value_params;  // (n, 2)
    int64_t value_bytes;
    int value_dim;
    uint32_t* exact;         // out: the keys that were left out, room for n and 16 more
    int64_t n_exact;         // out
    float *total, *squares;  // out (padded,): sums of the weights and of their squares
    float* out;              // (group, value_dim): what the values add up to is added
};

// Keys that were found: scored again from codes, and sorted by what that says. Constants per query head are (padded,);
// arrays over the found keys are read and written as far as a vector of 16 numbers reaches from the last.
struct Rescore {
    ScoreMap map;
    const float* top;               // the score to which list sums are relative, about the segment's largest
    const uint32_t *index, *begin;  // as `Reach` leaves them
    const uint16_t* rows;  // (group + 1, row_stride), with the lengths: past their scale a key is attended exactly
    int64_t row_stride;
    int64_t m, lists;
    CodeRows codes;
    const float* lse;                // weights are relative to this
    const float* fold;               // 2^(top - lse): brings list sums to it
    const float* share;              // times a weight: the share of the whole softmax
    float coded_above, exact_above;  // of the share, for any query head
    const uint8_t* value_codes;  // rows of `value_bytes` that will be added for keys above `coded_above`: fetched ahead
    int64_t value_bytes;
    float *fresh, *old;  // (group, stride): out, the new weights, and those in the lists
    float* best;         // (stride,): out, the largest share; infinity for keys past the scale
    int64_t stride;      // at least m + 16
    float* in_list;      // (lists, padded): found keys are taken out, those that stay are put back by their new weight
    uint32_t *exact, *coded;   // out: keys, room for m and 16 more
    float* coded_weights;      // out: (coded, padded)
    int64_t n_exact, n_coded;  // out
    float *taken, *put;        // out (padded): the sums of the squares of the weights that leave lists / that come back
};

struct SketchKernels {
    // p (group, head_dim) = q (group, head_dim) x basis (head_dim, head_dim) in fp16
    void (*project)(const float* q, const uint16_t* basis, int group, int head_dim, float* p);
    // dot[g] = the sum of q[g] * mean, variance[g] = the sum of p[g] * p[g] * residue; mean and residue (head_dim,)
    void (*moments)(const float* q, const float* p, const float* mean, const float* residue, int group, int head_dim,
                    float* dot, float* variance);
    void (*prepare_scan)(const ScanQuery&);
    void (*scan)(const Scan&);
    // sums (lists, padded): per list the sum of 2^(score - top[head]) over the first n keys; squares (padded): that of
    // its square, over all
    void (*list_sums)(const ScoreMap&, const float* top, int64_t n, float* sums, float* squares);
    // Keys whose reach is above `least`; returns how many
    int64_t (*find_reach)(const Reach&);
    void (*rescore)(Rescore&);
    // fresh (group, stride) = the scores of the found keys by their codes, without the softcap; of `Rescore` it uses
    // map, index, rows, row_stride, m, codes, fresh, stride
    void (*score_codes)(const Rescore&);
    void (*attend_all)(AttendAll&);
    // scores (m, padded) = q (group, head_dim) . keys[index], what fills up set to 0
    void (*score_rows)(const float* q, const void* keys, DType dtype, int head_dim, const uint32_t* index, int64_t m,
                       int group, float* scores);
    // x (m, padded) = 2^(cap(x) - minus[head]); with softcap 0 no cap; room for a vector more
    void (*weights)(float* x, int64_t m, int group, float softcap, const float* minus);
    // out (group, dim) += sum over i of weights[i][head] * rows[index[i]], rows (_, dim); weights (m, padded); index
    // null: rows 0 .. m - 1
    void (*add_rows)(const void* rows, DType dtype, int dim, const uint32_t* index, int64_t m, const float* weights,
                     int group, float* out);
    // The same for value codes: 4 bits, `params` (n, 2) in bf16: lowest number and step of each row;
    // index null as there
    void (*add_value_codes)(const uint8_t* codes, int64_t row_bytes, const uint16_t* params, int dim,
                            const uint32_t* index, int64_t m, const float* weights, int group, float* out);
};

}  // namespace sakuin
