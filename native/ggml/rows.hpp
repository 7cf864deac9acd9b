// Numbers of llama.cpp in the types and the order that sakuin keeps them in.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"

namespace sakuin::ggml {

// fp32 numbers (heads, t, width), rows anywhere; the last dimension is contiguous. rotary: so many of the dimensions
// come as pairs (2i, 2i + 1) and are kept as halves (i, i + rotary / 2); 0: they stay.
struct FloatRows {
    const float* data;
    int64_t row_stride, head_stride;
    int64_t t, heads, width, rotary;
};

// to: (heads, t, width), contiguous, f32 or bf16 (rounded to nearest, ties to even).
void convert(const FloatRows& from, void* to, DType dtype, int n_threads);

// Rows of all heads side by side, in the dtype that they are kept in.
struct SideBySide {
    const void* data;
    int64_t row_stride, t, heads, head_dim, rotary;
};

// to: (heads, t, head_dim), contiguous.
void arrange(const SideBySide& from, void* to, DType dtype);

// Rows of a weight as a file has them.
struct PackedRows {
    const char* data;
    int64_t row_bytes, n, depth;
    void (*to_float)(const void*, float*, int64_t);  // null: they are fp32
};

// to: (n, depth), contiguous, f32 or bf16.
void unpack_rows(const PackedRows& from, void* to, DType dtype, int n_threads);

}  // namespace sakuin::ggml
