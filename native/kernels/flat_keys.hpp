// The first step of the `flat` kernel: a block of row-major keys is transposed, so that keys lie in lanes and two bf16
// (four int8) numbers travel as one 32-bit unit.
#pragma once

#include "kernels/flat_args.hpp"
#include "kernels/simd.hpp"

namespace sakuin {

template <class I>
struct FlatKeys {
    using U = typename I::U;
    static constexpr int L = I::lanes;

    static int64_t units(const FlatRange& a) {
        return a.dtype == DType::bf16 ? a.head_dim / 2 : a.dtype == DType::i8 ? a.head_dim / 4 : a.head_dim;
    }
    static int64_t padded_units(const FlatRange& a) { return (units(a) + L - 1) / L * L; }

    template <DType T>
    static SAKUIN_INLINE U load_units(const void* row, int64_t unit, int n) {
        if constexpr (T == DType::fp16) {
            const uint16_t* p = static_cast<const uint16_t*>(row) + unit;
            return I::as_u32(n == L ? I::load_fp16(p) : I::load_fp16(p, n));
        } else {
            const char* p = static_cast<const char*>(row) + unit * 4;
            return n == L ? I::load_u32(p) : I::load_u32(p, n);
        }
    }

    template <DType T>
    static void transpose_keys(const FlatRange& a, int64_t first, int64_t n, int64_t groups, float* to) {
        const int64_t size = dtype_size(T), n_units = units(a);
        const char* base = static_cast<const char*>(a.keys);
        for (int64_t g = 0; g < groups; ++g) {
            const char* rows[L];
            for (int i = 0; i < L; ++i) {
                // Lanes past the end repeat the last key; their logits are masked afterwards.
                const int64_t r = g * L + i < n ? g * L + i : n - 1;
                rows[i] = base + (first + r) * a.key_stride * size;
            }
            // Fetched in order of address first: transposing jumps from row to row,
            // which the hardware's prefetchers do not follow.
            for (int64_t b = 0; b < L * a.key_stride * size; b += 64) I::prefetch(rows[0] + b);
            for (int64_t u = 0; u < n_units; u += L) {
                const int width = n_units - u < L ? static_cast<int>(n_units - u) : L;
                U x[L];
#pragma GCC unroll 16
                for (int i = 0; i < L; ++i) x[i] = load_units<T>(rows[i], u, width);
                I::transpose(x);
#pragma GCC unroll 16
                for (int i = 0; i < L; ++i) I::store_u32(to + (u + i) * L, x[i]);
            }
            to += padded_units(a) * L;
        }
    }
};

}  // namespace sakuin
