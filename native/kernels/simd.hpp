// A thin vector type for the kernels: one struct per instruction set, all with the same static functions, so that a
// kernel is written once as a template on it. `Generic` is plain GCC vector extensions and is correct everywhere;
// `Avx2` and `Avx512` replace what the compiler would not find by itself.
//
// Included only by the files that are compiled per instruction set (portable.cpp, avx2.cpp, ...). Everything here is a
// member of a template on the tag or always inlined: no function of a header may exist once for two sets of compiler
// flags, or the linker could hand the AVX-512 copy to the portable path.
// For the same reason kernels call nothing of `std::`.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define SAKUIN_INLINE inline __attribute__((always_inline))

namespace sakuin {

template <int Lanes>
struct Vectors;
template <>
struct Vectors<8> {
    typedef float F __attribute__((vector_size(32)));
    typedef uint32_t U __attribute__((vector_size(32)));
    typedef int32_t S __attribute__((vector_size(32)));
    typedef uint16_t H __attribute__((vector_size(16)));
    typedef int8_t B __attribute__((vector_size(8)));
};
template <>
struct Vectors<16> {
    typedef float F __attribute__((vector_size(64)));
    typedef uint32_t U __attribute__((vector_size(64)));
    typedef int32_t S __attribute__((vector_size(64)));
    typedef uint16_t H __attribute__((vector_size(32)));
    typedef int8_t B __attribute__((vector_size(16)));
};

template <class Tag, int Lanes>
struct Generic {
    static constexpr int lanes = Lanes;
    static constexpr bool has_bf16_dot = false;
    static constexpr int row_tile =
        4;  // query rows that share one pass of a kernel; bounded by the registers there are

    using F = typename Vectors<Lanes>::F;
    using U = typename Vectors<Lanes>::U;
    using S = typename Vectors<Lanes>::S;
    using H = typename Vectors<Lanes>::H;
    using B = typename Vectors<Lanes>::B;

    // --- memory ------------------------------------------------------------------------------------------------------
    template <class V, class T>
    static SAKUIN_INLINE V read(const T* p) {
        V v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
    }
    static SAKUIN_INLINE F load(const float* p) { return read<F>(p); }
    static SAKUIN_INLINE U load_u32(const void* p) { return read<U>(static_cast<const char*>(p)); }
    static SAKUIN_INLINE void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
    static SAKUIN_INLINE void store_u32(void* p, U v) { __builtin_memcpy(p, &v, sizeof v); }
    // The first n lanes (0 <= n <= lanes); the others are 0 and their memory is not touched.
    static SAKUIN_INLINE U load_u32(const void* p, int n) {
        U v{};
        __builtin_memcpy(&v, p, static_cast<size_t>(n) * 4);
        return v;
    }
    static SAKUIN_INLINE F load(const float* p, int n) { return as_f32(Tag::load_u32(p, n)); }
    static SAKUIN_INLINE void store(float* p, F v, int n) { __builtin_memcpy(p, &v, static_cast<size_t>(n) * 4); }

    // --- arithmetic --------------------------------------------------------------------------------------------------
    static SAKUIN_INLINE F as_f32(U v) { return reinterpret_cast<F>(v); }
    static SAKUIN_INLINE U as_u32(F v) { return reinterpret_cast<U>(v); }
    static SAKUIN_INLINE F set1(float x) { return F{} + x; }
    static SAKUIN_INLINE F fma(F a, F b, F c) { return a * b + c; }
    static SAKUIN_INLINE F max(F a, F b) { return a > b ? a : b; }  // b where either is NaN
    static SAKUIN_INLINE F min(F a, F b) { return a < b ? a : b; }  // b where either is NaN
    static SAKUIN_INLINE float hsum(F v) {
        float parts[Lanes];
        store(parts, v);
        for (int h = Lanes / 2; h > 0; h /= 2)
            for (int i = 0; i < h; ++i) parts[i] += parts[i + h];
        return parts[0];
    }
    static SAKUIN_INLINE float hmax(F v) {
        float best = v[0];
        for (int i = 1; i < Lanes; ++i) best = v[i] > best ? v[i] : best;
        return best;
    }
    static SAKUIN_INLINE bool any_above(F v, float limit) {
        const S above = v > limit;
        int any = 0;
        for (int i = 0; i < Lanes; ++i) any |= above[i];
        return any != 0;
    }
    // v where the lane's number is below n, `other` in the rest.
    static SAKUIN_INLINE F select_first(int n, F v, F other) { return iota() < S{} + n ? v : other; }
    static SAKUIN_INLINE S iota() {
        S v{};
        for (int i = 0; i < Lanes; ++i) v[i] = i;
        return v;
    }

    // --- bf16 and fp16 -----------------------------------------------------------------------------------------------
    // A 32-bit unit holds two neighbouring bf16 numbers; these give the first and the second of each unit.
    static SAKUIN_INLINE F bf16_first(U v) { return as_f32(v << 16); }
    static SAKUIN_INLINE F bf16_second(U v) { return as_f32(v & 0xffff0000u); }
    static SAKUIN_INLINE F load_bf16(const uint16_t* p) { return as_f32(__builtin_convertvector(read<H>(p), U) << 16); }
    static SAKUIN_INLINE F load_fp16(const uint16_t* p) {
        const U h = __builtin_convertvector(read<H>(p), U);
        const U magnitude = h & 0x7fffu;
        // Multiplying by 2^112 moves the exponent's bias and makes subnormals normal; infinity and NaN are patched.
        F v = as_f32(magnitude << 13) * 0x1p112f;
        const U special = reinterpret_cast<U>(magnitude >= 0x7c00u);
        const U bits = (special & (0x7f800000u | (magnitude << 13))) | (~special & as_u32(v));
        return as_f32(bits | ((h & 0x8000u) << 16));
    }
    static SAKUIN_INLINE F load_fp16(const uint16_t* p, int n) {
        uint16_t part[Lanes] = {};
        __builtin_memcpy(part, p, static_cast<size_t>(n) * 2);
        return Tag::load_fp16(part);
    }

    // --- 8-bit whole numbers -----------------------------------------------------------------------------------------
    static SAKUIN_INLINE F load_i8(const int8_t* p) {
        return __builtin_convertvector(__builtin_convertvector(read<B>(p), S), F);
    }
    static SAKUIN_INLINE F load_i8(const int8_t* p, int n) {
        int8_t part[Lanes] = {};
        __builtin_memcpy(part, p, static_cast<size_t>(n));
        return Tag::load_i8(part);
    }
    // A 32-bit unit holds four neighbouring numbers; this gives number N of each unit.
    template <int N>
    static SAKUIN_INLINE F i8_number(U v) {
        return __builtin_convertvector(reinterpret_cast<S>(v << static_cast<uint32_t>(24 - 8 * N)) >> 24, F);
    }

    // --- products of whole numbers -----------------------------------------------------------------------------------
    // sums + the four products of each 32-bit unit's unsigned bytes `x` and signed ones `y`. Where `sums_in_pairs`,
    // units hold two sums of 16 bits, each of two products, which `widen_pairs` adds to sums of 32.
    static constexpr bool sums_in_pairs = false;
    static SAKUIN_INLINE U add_bytes(U sums, U x, U y) {
        for (int b = 0; b < 32; b += 8) {
            const S code = reinterpret_cast<S>(x >> static_cast<uint32_t>(b) & 255u),
                    factor = reinterpret_cast<S>(y << static_cast<uint32_t>(24 - b)) >> 24;
            sums += reinterpret_cast<U>(code * factor);
        }
        return sums;
    }
    static SAKUIN_INLINE U widen_pairs(U sums, U) { return sums; }
    // sums + the two products of each unit's signed halves
    static SAKUIN_INLINE U add_halves(U sums, U x, U y) {
        const S a = reinterpret_cast<S>(x), b = reinterpret_cast<S>(y);
        return sums + reinterpret_cast<U>((a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16));
    }

    // --- masks and gathers -------------------------------------------------------------------------------------------
    // Bit i is set where v[i] > limit.
    static SAKUIN_INLINE uint32_t mask_above(F v, float limit) {
        uint32_t bits = 0;
        for (int i = 0; i < Lanes; ++i) bits |= static_cast<uint32_t>(v[i] > limit) << i;
        return bits;
    }
    // Writes those of Lanes numbers whose bit is set, in order; `to` has room for all of them. Returns how many.
    static SAKUIN_INLINE int keep(uint32_t* to, U v, uint32_t mask) {
        int n = 0;
        for (; mask != 0; mask &= mask - 1) to[n++] = v[__builtin_ctz(mask)];
        return n;
    }
    // The same for 32 numbers of 16 bits in memory; whether the instruction set does it at once.
    static constexpr bool keeps_halves = false;
    static SAKUIN_INLINE void keep_halves(uint16_t* to, const uint16_t* from, uint32_t mask) {
        for (; mask != 0; mask &= mask - 1) *to++ = from[__builtin_ctz(mask)];
    }
    // out[j][k] = the 32-bit word j of row k, for the first `words` (1 to 8) of each;
    // what comes after in memory is not touched.
    static SAKUIN_INLINE void columns(const uint8_t* const (&rows)[Lanes], int words, U (&out)[8]) {
        for (int k = 0; k < Lanes; ++k)
            for (int j = 0; j < 8; ++j) {
                uint32_t word = 0;
                if (j < words) __builtin_memcpy(&word, rows[k] + 4 * j, 4);
                out[j][k] = word;
            }
    }

    // --- 2^x ---------------------------------------------------------------------------------------------------------
    // 2^x for x <= 127 (no check); 0 below -126.5 and for -inf, NaN for NaN. Relative error below 2e-7 (Exact) or 1e-4.
    template <bool Exact = true>
    static SAKUIN_INLINE F exp2(F x) {
        x = Tag::max(set1(-127.0f), x);
        const F shifted = x + 12582912.0f;  // 1.5 * 2^23: the nearest whole number now stands in the low bits
        const F f = x - (shifted - 12582912.0f);
        F p;
        if constexpr (Exact) {
            p = set1(1.534581179e-04f);
            p = Tag::fma(p, f, set1(1.339993142e-03f));
            p = Tag::fma(p, f, set1(9.618488960e-03f));
            p = Tag::fma(p, f, set1(5.550328776e-02f));
            p = Tag::fma(p, f, set1(2.402264689e-01f));
            p = Tag::fma(p, f, set1(6.931472057e-01f));
            p = Tag::fma(p, f, set1(1.0f));
        } else {
            p = set1(5.517166681e-02f);
            p = Tag::fma(p, f, set1(2.426111351e-01f));
            p = Tag::fma(p, f, set1(6.932609870e-01f));
            p = Tag::fma(p, f, set1(9.999280728e-01f));
        }
        return p * as_f32((as_u32(shifted) - (0x4b400000u - 127u)) << 23);
    }

    // --- transpose ---------------------------------------------------------------------------------------------------
    static SAKUIN_INLINE void transpose(U (&x)[Lanes]) {
        U y[Lanes];
        for (int i = 0; i < Lanes; ++i)
            for (int j = 0; j < Lanes; ++j) y[j][i] = x[i][j];
        for (int i = 0; i < Lanes; ++i) x[i] = y[i];
    }

    // --- 16-bit scores of 32 keys ------------------------------------------------------------------------------------
    // `Keys32` holds one uint16 per key of a block of 32, in an order of its own;
    // `Table16` a look-up table of 16 uint16.
    struct Keys32 {
        uint16_t v[32];
    };
    struct Table16 {
        uint16_t v[16];
    };
    static SAKUIN_INLINE Keys32 keys32(uint16_t x) {
        Keys32 k;
        for (int i = 0; i < 32; ++i) k.v[i] = x;
        return k;
    }
    static SAKUIN_INLINE Table16 table16(const uint16_t* t) { return read<Table16>(t); }
    // From sums of 32 bits that fit into 16: unit l of all of `low` is key 8 (l / 4) + l % 4,
    // of `high` the key four further on.
    static constexpr int pieces = 16 / Lanes;
    static SAKUIN_INLINE Keys32 pack(const U (&low)[pieces], const U (&high)[pieces]) {
        Keys32 k;
        for (int l = 0; l < 16; ++l) {
            const int key = l / 4 * 8 + l % 4;
            k.v[key] = static_cast<uint16_t>(low[l / Lanes][l % Lanes]);
            k.v[key + 4] = static_cast<uint16_t>(high[l / Lanes][l % Lanes]);
        }
        return k;
    }
    // Each key's entry in one table, by the four bits from `Shift` of its byte.
    template <int Shift>
    static SAKUIN_INLINE Keys32 entries(const uint8_t* codes, const Table16& table) {
        Keys32 k;
        for (int i = 0; i < 32; ++i) k.v[i] = table.v[codes[i] >> Shift & 15];
        return k;
    }
    static SAKUIN_INLINE Keys32 max(Keys32 a, Keys32 b) {
        for (int i = 0; i < 32; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
        return a;
    }
    // Bit k is set where z[k] >= key k's number in `limit`.
    static SAKUIN_INLINE uint32_t at_least(const uint16_t* z, const Keys32& limit) {
        uint32_t bits = 0;
        for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(z[i] >= limit.v[i]) << i;
        return bits;
    }
    static SAKUIN_INLINE void store(uint16_t* p, const Keys32& a) { __builtin_memcpy(p, a.v, sizeof a.v); }

    // Into the first-level cache, and into the second: of the latter many more can be under way.
    static SAKUIN_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
    static SAKUIN_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
};

struct Portable : Generic<Portable, 8> {
    static constexpr const char* name = "portable";
};

// The width of AVX-512 in plain vector extensions: what depends on 16 lanes is tested on any machine.
struct Portable16 : Generic<Portable16, 16> {
    static constexpr const char* name = "portable16";
};

}  // namespace sakuin

#if defined(__AVX512F__)
#include "kernels/simd_avx512.hpp"
#elif defined(__AVX2__)
#include "kernels/simd_avx2.hpp"
#endif
