// A step of decoding in one layer, as whoever runs a model's weights hands it over: the new tokens go in, their
// attention comes out. An index that can do all of it without Python is a `Steps`.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"

namespace sakuin {

// The newest tokens of one sequence in one layer. Arrays are contiguous; q, keys and values of one dtype.
struct NewTokens {
    int64_t heads, kv_heads, t, head_dim, value_dim;
    DType dtype;
    const void* q;              // (heads, t, head_dim)
    const void *keys, *values;  // (kv_heads, t, head_dim), (kv_heads, t, value_dim)
    float scaling, softcap;     // softcap 0: none
    const float* sinks;         // (heads), or null
    float* out;                 // (t, heads, value_dim)
};

class Steps {
public:
    virtual ~Steps() = default;
    // Takes keys and values, and attends.
    virtual void step(const NewTokens& tokens) = 0;
    // What its oldest tokens are held in: the same for sequences that began as one, null where nothing is sealed.
    virtual const void* origin() const { return nullptr; }
};

}  // namespace sakuin
