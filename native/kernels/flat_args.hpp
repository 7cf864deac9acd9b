// Arguments of the `flat` kernels: exact attention of a few query rows over one range of keys of one KV head.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sakuin {

// i8: whole numbers that stand for something else, see Int8Scales. The kernels take them as they are.
enum class DType : int { f32 = 0, bf16 = 1, fp16 = 2, i8 = 3 };

constexpr int64_t dtype_size(DType t) { return t == DType::f32 ? 4 : t == DType::i8 ? 1 : 2; }

// What keys and values in i8 stand for: key = zero + scale * number, by dimension;
// value = scale * number, by token. Contiguous.
struct Int8Scales {
    const float *key_scale, *key_zero;  // (n_kv_heads, head_dim)
    const float* value_scale;           // (n_kv_heads, n)
};

struct FlatRange {
    // rows x head_dim, row-major. A logit in base 2 is scale * q.k;
    // with softcap it is softcap * tanh(scale * q.k) * log2(e).
    const float* q;
    float scale;
    bool q_is_bf16;  // every number of q is one that bf16 holds; lets CPUs with a bf16 dot product use it
    int64_t rows, head_dim, value_dim;
    DType dtype;
    const void* keys;    // n rows of head_dim numbers, `key_stride` numbers apart
    const void* values;  // of value_dim numbers
    int64_t key_stride, value_stride, n;
    const int64_t*
        visible;  // per row: it sees the keys before number visible[row], the range beginning at `first`; null: all
    int64_t first;
    float softcap;  // 0: none
    // For i8 alone: per row what is added to q.k before anything else,
    // and per key what its value's numbers are multiplied by.
    const float *bias, *value_scale;

    // flat_range: per row the largest logit (base 2; -inf when it sees nothing), the sum of 2^(logit - max), and the
    // values weighted by these, rows x value_dim.
    float *out, *max, *sum;
    // Or null: row r's logit of key k, where the row sees it, goes to logits[r * logit_stride + k].
    float* logits;
    int64_t logit_stride;

    // flat_mass: per row the lse (base 2) of the whole softmax;
    // each key's share, summed over the rows, is added to mass[n].
    // flat_kept_mass: the same by the logits that flat_range left, of rows that see every key; of each sum only what is
    // above `least` is added. Of all else it reads rows and n alone.
    const float* lse;
    float* mass;
    float least;

    float* scratch;  // flat_scratch() floats, 64-byte aligned
};

}  // namespace sakuin
