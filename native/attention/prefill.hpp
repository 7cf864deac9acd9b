// Exact causal attention of a chunk of a prompt over all that came before it and over itself: for many queries at once,
// in bf16 with fp32 sums.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/prefill_args.hpp"

namespace sakuin {

// Keys (n_kv_heads, n, head_dim) and values (n_kv_heads, n, value_dim) of consecutive tokens; strides count numbers, a
// row is contiguous.
struct PrefillBlock {
    const void *keys, *values;
    DType key_dtype, value_dtype;
    int64_t n;
    int64_t key_head_stride, key_stride, value_head_stride, value_stride;
};

struct PrefillCall {
    const PrefillKernels* kernels;
    const void* q;  // (n_kv_heads * group, t, head_dim)
    DType q_dtype;
    int64_t q_head_stride, q_stride;
    std::vector<PrefillBlock> blocks;  // in order; the last t tokens are those of the queries
    int64_t n_kv_heads, group, t, head_dim, value_dim;
    float scaling, softcap;  // softcap 0: none
    const float* sinks;      // (n_kv_heads * group,) or null
    float* out;              // (n_kv_heads * group, t, value_dim)
    int64_t out_head_stride, out_stride;
    int n_threads;
};

void prefill_attention(const PrefillCall& call);

}  // namespace sakuin
