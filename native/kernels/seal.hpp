// What sealing a `sketch` segment spends its time in.
// Included only by the files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/seal_args.hpp"
#include "kernels/simd.hpp"

namespace sakuin {

template <class I>
struct Seal {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    static constexpr int lanes = I::lanes;
    typedef uint8_t Bytes __attribute__((vector_size(lanes)));

    static SAKUIN_INLINE F some(const float* x, int64_t n) {
        return n >= lanes ? I::load(x) : I::load(x, static_cast<int>(n));
    }

    static float squares(const float* x, int64_t n) {
        F sums[4] = {};  // several, so that no sum waits for its own last addition
        int64_t i = 0;
        for (; i + 4 * lanes <= n; i += 4 * lanes)
            for (int k = 0; k < 4; ++k)
                sums[k] = I::fma(I::load(x + i + k * lanes), I::load(x + i + k * lanes), sums[k]);
        for (; i < n; i += lanes) sums[0] = I::fma(some(x + i, n - i), some(x + i, n - i), sums[0]);
        return I::hsum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }

    static float beyond(const float* x, int64_t n, float range, float inner) {
        F sums[2] = {};
        for (int64_t i = 0; i < n; i += 2 * lanes)
            for (int k = 0; k < 2; ++k) {
                if (i + k * lanes >= n) break;
                const F v = some(x + i + k * lanes, n - i - k * lanes), size = I::max(v, -v), far = size - inner,
                        square = far * far;
                const U kept = reinterpret_cast<U>(size > range);
                sums[k] += I::as_f32(I::as_u32(square * square) & kept);
            }
        return I::hsum(sums[0] + sums[1]);
    }

    // The nearest whole number from 0 to `most`, which is cut off after it is clamped.
    static SAKUIN_INLINE S nearest(F x, float most) {
        return __builtin_convertvector(I::min(I::max(x + 0.5f, F{}), I::set1(most)), S);
    }

    static void encode(float* x, int64_t n, float inverse, float step, float middle, uint8_t* codes) {
        for (int64_t i = 0; i < n; i += lanes) {
            const F v = some(x + i, n - i);
            const S code = nearest(v * inverse + middle, 2.0f * middle);
            const F left = v - (__builtin_convertvector(code, F) - middle) * step;
            const Bytes bytes = __builtin_convertvector(code, Bytes);
            const int here = n - i < lanes ? static_cast<int>(n - i) : lanes;
            if (here == lanes)
                I::store(x + i, left);
            else
                I::store(x + i, left, here);
            __builtin_memcpy(codes + i, &bytes, static_cast<size_t>(here));
        }
    }

    static SAKUIN_INLINE float from_bf16(uint16_t x) {
        return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16);
    }
    static SAKUIN_INLINE uint16_t to_bf16(float x) {
        const uint32_t b = __builtin_bit_cast(uint32_t, x);
        return static_cast<uint16_t>((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
    }

    static void pack_row(const float* row, int head_dim, uint8_t* codes, uint16_t* params) {
        F low = I::set1(row[0]), high = low;
        for (int j = 0; j < head_dim; j += lanes) {
            const int left = head_dim - j;
            const F v = left >= lanes ? I::load(row + j) : I::select_first(left, some(row + j, left), I::set1(row[0]));
            low = I::min(low, v);
            high = I::max(high, v);
        }
        const float lowest = -I::hmax(-low), highest = I::hmax(high);
        params[0] = to_bf16(lowest);
        const float base = from_bf16(params[0]), range = highest - base;
        params[1] = to_bf16((range > 0.0f ? range : 0.0f) / 15.0f);
        const float step = from_bf16(params[1]), inverse = step > 1e-30f ? 1.0f / step : 0.0f;
        for (int j = 0; j < head_dim; j += 16) {
            // Number l of a chunk stands in word l mod 2, at bit 4 (l / 2):
            // pairs of numbers, shifted, are the two words' bits.
            uint64_t pairs[8] = {};
            for (int k = 0; k < 16 && j + k < head_dim; k += lanes) {
                const int left = head_dim - j - k;
                S code = nearest((some(row + j + k, left) - base) * inverse, 15.0f);
                if (left < lanes) code = I::iota() < S{} + left ? code : S{};
                const U shifted = reinterpret_cast<U>(code) << reinterpret_cast<U>((I::iota() + k) / 2 * 4);
                __builtin_memcpy(pairs + k / 2, &shifted, sizeof shifted);
            }
            uint64_t words = 0;
            for (const uint64_t p : pairs) words |= p;
            __builtin_memcpy(codes + j / 2, &words, 8);
        }
    }
};

template <class I>
constexpr SealKernels seal_table = {&Seal<I>::squares, &Seal<I>::beyond, &Seal<I>::encode, &Seal<I>::pack_row};

}  // namespace sakuin
