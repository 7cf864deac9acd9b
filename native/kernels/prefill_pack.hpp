// Packs queries, keys and values for the kernels of prefill (layouts: prefill_args.hpp). AVX-512 with BF16.
// Included only by the files that are compiled per instruction set, as simd.hpp explains; calls nothing of `std::`.
#pragma once

#include <immintrin.h>

#include "kernels/prefill_args.hpp"

namespace sakuin {

template <class Tag>
struct PrefillPacking {
    static constexpr int most_dim = prefill_most_dim;

    static __m256i to_bf16(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

    // The first `n` numbers of a row in bf16, then zeros up to `dim`.
    static void row(const void* from, DType dtype, int n, int dim, uint16_t* to) {
        if (from == nullptr) {
            __builtin_memset(to, 0, static_cast<size_t>(dim) * 2);
            return;
        }
        for (int i = 0; i < dim; i += 16) {
            const int left = n - i;
            const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffu : left <= 0 ? 0u : (1u << left) - 1u);
            __m256i x;
            if (dtype == DType::f32)
                x = to_bf16(_mm512_maskz_loadu_ps(mask, static_cast<const float*>(from) + i));
            else
                x = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(from) + i);
            if (dtype == DType::fp16) x = to_bf16(_mm512_cvtph_ps(x));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), x);
        }
    }

    static void queries(const PrefillPack& p) {
        alignas(64) uint16_t x[most_dim];
        for (int r = 0; r < 32; ++r) {
            row(p.rows[r], p.dtypes[r], p.head_dim, p.dim, x);
            for (int i = 0; i < p.dim; i += 32)
                __builtin_memcpy(p.to + (i / 32 * 2 + r / 16) * prefill_unit + r % 16 * 32, x + i, 64);
        }
    }

    static void keys(const PrefillPack& p) {
        alignas(64) uint16_t x[32 * most_dim];
        for (int r = 0; r < 32; ++r) row(p.rows[r], p.dtypes[r], p.head_dim, p.dim, x + r * p.dim);
        for (int i = 0; i < p.dim; i += 32)
            for (int half = 0; half < 2; ++half) {
                __m512i v[16];
                for (int k = 0; k < 16; ++k) v[k] = _mm512_loadu_si512(x + (k / 4 * 8 + half * 4 + k % 4) * p.dim + i);
                transpose(v);
                uint16_t* to = p.to + (i / 32 * 2 + half) * prefill_unit;
                for (int k = 0; k < 16; ++k) _mm512_storeu_si512(to + k * 32, v[k]);
            }
    }

    static void values(const PrefillPack& p) {
        alignas(64) uint16_t x[2 * most_dim];
        for (int r = 0; r < 32; r += 2) {
            for (int k = 0; k < 2; ++k) row(p.rows[r + k], p.dtypes[r + k], p.head_dim, p.dim, x + k * p.dim);
            for (int i = 0; i < p.dim; i += 16) {
                const __m512i even = widened(x + i), odd = widened(x + p.dim + i);
                uint16_t* to = p.to + (i / 32 * (prefill_block / 32) * 2 + i / 16 % 2) * prefill_unit + r / 2 * 32;
                _mm512_storeu_si512(to, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
            }
        }
    }

private:
    static __m512i widened(const uint16_t* x) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    }

    // Of 16 rows of 16 numbers of 32 bits.
    static void transpose(__m512i (&x)[16]) {
        __m512i a[16], b[16];
        for (int i = 0; i < 16; i += 2) {
            a[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            a[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        }
        for (int i = 0; i < 16; i += 4) {
            b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        for (int c = 0; c < 4; ++c) {  // what is left is a transpose of 128-bit lanes
            const __m512i p = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88),
                          q = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
            const __m512i r = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd),
                          s = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
            x[c] = _mm512_shuffle_i32x4(p, q, 0x88);
            x[4 + c] = _mm512_shuffle_i32x4(r, s, 0x88);
            x[8 + c] = _mm512_shuffle_i32x4(p, q, 0xdd);
            x[12 + c] = _mm512_shuffle_i32x4(r, s, 0xdd);
        }
    }
};

}  // namespace sakuin
