// `flat`: exact attention over spans of row-major keys and values, for all heads, positions and threads. Plain C++:
// called by the bindings, and by other indexes for the part that is always exact.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/flat_args.hpp"

namespace sakuin {

// Consecutive tokens of one sequence: keys `(n_kv_heads, n, head_dim)` and values `(n_kv_heads, n, value_dim)`, the
// last dimension contiguous. Strides count numbers, not bytes.
struct FlatSpan {
    const void *keys, *values;
    DType dtype;
    int64_t n;
    int64_t key_head_stride, key_stride, value_head_stride, value_stride;
    Int8Scales scales{};  // for DType::i8
    int64_t after = 0;    // tokens between the span before it and itself that lie elsewhere; for `mass` alone
};

struct FlatArgs {
    // (n_kv_heads * group, t, head_dim); query heads of one group are neighbours
    const void* q;
    DType q_dtype;
    int64_t q_head_stride, q_stride;
    int64_t n_kv_heads, group, t, head_dim, value_dim;

    std::vector<FlatSpan> spans;  // in order of the sequence; empty ones are allowed
    bool causal;                  // position i sees all but the last t - 1 - i tokens of the last span

    float scaling;
    float softcap;       // 0: none
    const float* s_aux;  // (n_query_heads): a logit that adds to the lse and has no value; null: none

    int n_threads;
    std::string_view isa;  // empty: the one in use

    float* out;  // (n_query_heads, t, value_dim), contiguous; 0 for a position that sees nothing
    float* lse;  // (n_query_heads, t), natural logarithm; -inf for a position that sees nothing

    // Each token's share of the whole softmax, summed over the group's rows, is added to mass[head * mass_stride +
    // token], tokens in order of the spans. static_lse (n_query_heads, t) is the lse of what lies outside the spans,
    // for this alone. Either may be null.
    float* mass;
    int64_t mass_stride;
    const float* static_lse;

    // (n_query_heads, tokens of the spans), or null: the scores in base 2, kept for mass. t is 1.
    float* logits;
    float mass_least;  // with logits: of a token's sum only what is above is added
};

// Throws std::invalid_argument where the arguments contradict each other or go beyond what the kernels cover.
void flat_attend(const FlatArgs& args);

// The mass alone, which flat_attend left out for want of static_lse: lse, and logits if there are any, are as it left
// them.
void flat_mass(const FlatArgs& args);

}  // namespace sakuin
