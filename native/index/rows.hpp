// Exact attention of one step over chosen rows of stored keys and values, and an estimate of all others by summaries.
// What every index needs that first chooses tokens and then attends them (`ivf`, `graph`); knows nothing of how they
// are chosen.
//
// An index keeps a head's rows in one or several *stores* and says, head by head, which rows it chose (`RowPick`) and,
// if it can, what the others look like (`RowSummaries`). Per head and position:
//
// - Every row may be picked once. A row that is picked may not also count in a summary: `left` of a summary is the
//   number of its tokens that no pick holds.
// - What is picked is attended by all query heads of the group.
// - A summary weighs left * 2^score and has its mean value. Without `estimate_rest` summaries stay out of the result
//   and are counted in `coverage` alone; without any, coverage is 1: nothing else is known.
// - Without picks and summaries, or where nothing is left in these, out is 0 and lse -inf.
// - All scores are in base 2: `scaled_queries` multiplies the queries by scaling * log2(e) and limits them to 1e18.
//   With keys up to 1e15 no product then leaves float32, and finite input gives finite output. A softcap comes after
//   the score.
// - Rows that lie apart are copied together first, into a buffer that stays in the cache, and attended by the kernel of
//   `flat`: keys in lanes are twice as fast as one product after another, the copy included.
//
// Nothing is checked here: pointers, rows and counts must be right.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.hpp"

namespace sakuin {

// Keys (n, head_dim) and values (n, value_dim) of one KV head, row-major and contiguous. Row i is token first +
// order[i] of the index, or first + i where `order` is null. Keys and values in i8 are not read.
struct RowStore {
    const void *keys, *values;
    DType dtype;
    int64_t n;
    int64_t first;
    const int32_t* order;

    int64_t token(int64_t row) const { return first + (order != nullptr ? order[row] : row); }
};

// Chosen rows of one store: rows[0] to rows[m - 1], or the rows begin to begin + m - 1 where `rows` is null,
// which is a straight read.
struct RowPick {
    const RowStore* store;
    const uint32_t* rows;
    int64_t begin, m;
};

// Tokens known by what they have in common.
struct RowSummaries {
    int64_t n;
    const float* scores;  // (n, padded(group)): of each summary's mean key; before the softcap
    const void* values;   // (n, value_dim): mean values
    DType dtype;          // of the values
    const int32_t* left;  // (n): tokens of each that no pick holds
};

// What the query group of one KV head attends.
struct RowChoice {
    std::vector<RowPick> picks;
    std::vector<RowSummaries> rest;
};

// What an index that chooses tokens is asked for, all KV heads and positions of it. A group has at most max_group query
// heads; larger ones are asked for in parts (parts.hpp).
struct RowCall {
    const Kernels* kernels;
    const float* q;  // (heads * group, t, head_dim), contiguous
    int64_t heads, group, t, head_dim, value_dim;
    int64_t n_tokens;         // of the index, for `exact_share`
    float scaling, softcap;   // softcap 0: none
    const float* static_lse;  // (heads * group, t), natural logarithm, or null
    bool estimate_rest;       // false: the summaries stay out of the result
    int n_threads;

    float* out;          // (heads * group, t, value_dim)
    float* lse;          // (heads * group, t): the natural logarithm, static_lse left out
    float* coverage;     // (heads * group, t): share of the softmax attended exactly, static part included, by estimate
    float* exact_share;  // (heads, t): share of the index's tokens that were picked
    // (heads, mass_stride) by token, or null: each picked token's share of the softmax of index and static part, summed
    // over the group, is added.
    float* mass;
    int64_t mass_stride;
    int64_t touched_bytes;  // out: what the index read
};

// One position of a step, for which alone results are written; q (heads * group, head_dim) are its queries from
// `scaled_queries`, `choices` has one entry for each KV head. Returns the bytes read: of picked keys and values and,
// with `estimate_rest`, of the summaries' values and counts (not of what their scores were made from).
int64_t attend_rows(const RowCall&, const float* q, int64_t position, const std::vector<RowChoice>& choices);

// This position's queries out of q (rows, t, head_dim), as `attend_rows` and the kernels take them:
// (rows, head_dim), base 2.
std::vector<float> scaled_queries(const float* q, int64_t rows, int64_t t, int64_t position, int64_t head_dim,
                                  float scaling);

// Queries of a search, whose inner products are wanted as they are: to (head_dim) is q, or q times a power of two where
// q is so large that its products with ordinary keys would leave float32. Scores of it times what is returned are those
// of q.
float tamed(const float* q, int64_t head_dim, float* to);
// A score times that, as large as float32 holds; what is not a number is the least.
float untamed(float score, float unit);

// The k picked rows with the largest inner product with one query (head_dim), the best first, of equal ones the earlier
// token: scores (k) and tokens (k). The picks must hold at least k rows.
void search_rows(const Kernels&, const float* query, int64_t head_dim, const std::vector<RowPick>& picks, int64_t k,
                 float* scores, int64_t* tokens);

}  // namespace sakuin
