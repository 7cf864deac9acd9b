// The types of ggml's weights as codes of 8 bits without a sign, 64 at a time, and their scales. AVX-512 with VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/gemv_args.hpp"

namespace sakuin::gemv {

// What one row of a weight gives with N rows of x, spread over lanes.
template <int N>
struct Sums {
    __m512 dots[N];
    __m256 minima[N];
    const GemvChunk* x;  // the next chunk of the first row
    const float* sums;   // of the next 32 numbers of the first row
    int64_t stride;      // of sums, from row to row

    Sums(const GemvChunk* chunks, const float* s, int64_t sums_stride) : x(chunks), sums(s), stride(sums_stride) {
        for (int r = 0; r < N; ++r) dots[r] = _mm512_setzero_ps(), minima[r] = _mm256_setzero_ps();
    }
    // 64 codes of the weight; scales: of each four.
    void add(__m512i codes, __m512 scales) {
#pragma GCC unroll 8
        for (int r = 0; r < N; ++r, ++x) {
            const __m512i whole = _mm512_dpbusd_epi32(_mm512_load_si512(x->bias), codes, _mm512_load_si512(x->codes));
            dots[r] =
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_mul_ps(scales, _mm512_load_ps(x->scales)), dots[r]);
        }
    }
    // What the last `n` codes' blocks of 32 begin at: 8 blocks, or 2.
    void add_minima(__m256 least) {
#pragma GCC unroll 8
        for (int r = 0; r < N; ++r) minima[r] = _mm256_fmadd_ps(least, _mm256_loadu_ps(sums + r * stride), minima[r]);
        sums += 8;
    }
    void add_two_minima(__m128 scale_and_least) {
#pragma GCC unroll 8
        for (int r = 0; r < N; ++r) {
            const __m128d two = _mm_load_sd(reinterpret_cast<const double*>(sums + r * stride));
            const __m128 apart = _mm_unpacklo_ps(_mm_setzero_ps(), _mm_castpd_ps(two));
            minima[r] = _mm256_zextps128_ps256(_mm_fmadd_ps(scale_and_least, apart, _mm256_castps256_ps128(minima[r])));
        }
        sums += 2;
    }
};

inline uint32_t word(const char* p) {
    uint32_t x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
inline uint16_t half(const char* p) {
    uint16_t x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
inline __m128i bytes16(const char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline __m256i bytes32(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Of two blocks of 32 codes.
inline __m512 spread(__m128 scales, int first, int second) {
    const __m512i at = _mm512_inserti64x4(_mm512_set1_epi32(first), _mm256_set1_epi32(second), 1);
    return _mm512_permutexvar_ps(at, _mm512_castps128_ps512(scales));
}
inline __m512 spread_halves(const char* a, const char* b) {
    const uint32_t both = half(a) | static_cast<uint32_t>(half(b)) << 16;
    return spread(_mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(both))), 0, 1);
}
// Scale and least of two blocks, each of two halves.
inline __m128 two_pairs(const char* a, const char* b) {
    const uint64_t both = word(a) | static_cast<uint64_t>(word(b)) << 32;
    return _mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<long long>(both)));
}

// Codes of four bits: 16 bytes are two times 16 codes.
inline __m512i nibbles(const char* a, const char* b) {
    const __m512i both = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(bytes16(a)), 0xff00, bytes16(b));
    const __m512i shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
}
inline __m512i with_fifth(__m512i codes, uint32_t a, uint32_t b) {
    const uint64_t fifth = a | static_cast<uint64_t>(b) << 32;
    return _mm512_mask_add_epi8(codes, fifth, codes, _mm512_set1_epi8(16));
}

// Each type gives 64 codes with their scales to `add`, and to `add_minima` or `add_two_minima` what its codes begin at.
//   bytes    of a block           offset  codes are stored as code + offset
//   minima   1: codes begin at the least of their 32 numbers; -1: at its negative; 0: at zero
//   scaled   numbers with one scale

// Types of blocks of 32 numbers: two of them, at a and b.
struct Q4_0 {
    static constexpr int bytes = 18, offset = 8, minima = 0, scaled = 32;
    template <class To>
    static void add(To& s, const char* a, const char* b) {
        s.add(nibbles(a + 2, b + 2), spread_halves(a, b));
    }
};
struct Q4_1 {
    static constexpr int bytes = 20, offset = 0, minima = 1, scaled = 32;
    template <class To>
    static void add(To& s, const char* a, const char* b) {
        const __m128 scales = two_pairs(a, b);
        s.add(nibbles(a + 4, b + 4), spread(scales, 0, 2));
        s.add_two_minima(scales);
    }
};
struct Q5_0 {
    static constexpr int bytes = 22, offset = 16, minima = 0, scaled = 32;
    template <class To>
    static void add(To& s, const char* a, const char* b) {
        s.add(with_fifth(nibbles(a + 6, b + 6), word(a + 2), word(b + 2)), spread_halves(a, b));
    }
};
struct Q5_1 {
    static constexpr int bytes = 24, offset = 0, minima = 1, scaled = 32;
    template <class To>
    static void add(To& s, const char* a, const char* b) {
        const __m128 scales = two_pairs(a, b);
        s.add(with_fifth(nibbles(a + 8, b + 8), word(a + 4), word(b + 4)), spread(scales, 0, 2));
        s.add_two_minima(scales);
    }
};
struct Q8_0 {
    static constexpr int bytes = 34, offset = 128, minima = 0, scaled = 32;
    template <class To>
    static void add(To& s, const char* a, const char* b) {
        const __m512i codes = _mm512_inserti64x4(_mm512_castsi256_si512(bytes32(a + 2)), bytes32(b + 2), 1);
        s.add(_mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80))), spread_halves(a, b));
    }
};

// Types of blocks of 256 numbers.

// Scales and minima of the eight parts of a block of Q4_K or Q5_K: 6 bits each, in 12 bytes.
struct Eight {
    __m256 scales, minima;
    explicit Eight(const char* p) {
        const uint32_t a = word(p + 4), b = word(p + 8), c = word(p + 12);
        const __m128i bytes = _mm_set_epi32(
            static_cast<int>((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)), static_cast<int>(b & 0x3f3f3f3f),
            static_cast<int>((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)), static_cast<int>(a & 0x3f3f3f3f));
        const __m512 all = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
        const __m128 factors = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(word(p))));
        const __m512 scaled = _mm512_mul_ps(all, spread(factors, 0, 1));
        scales = _mm512_castps512_ps256(scaled), minima = _mm512_extractf32x8_ps(scaled, 1);
    }
    __m512 of(int j) const {
        const __m512i at = _mm512_inserti64x4(_mm512_set1_epi32(j), _mm256_set1_epi32(j + 1), 1);
        return _mm512_permutexvar_ps(at, _mm512_castps256_ps512(scales));
    }
};

// 32 bytes are two times 32 codes of four bits.
inline __m512i wide_nibbles(const char* p) {
    const __m512i shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    return _mm512_and_si512(_mm512_srlv_epi64(_mm512_broadcast_i64x4(bytes32(p)), shifts), _mm512_set1_epi8(15));
}

struct Q4_K {
    static constexpr int bytes = 144, offset = 0, minima = -1, scaled = 32;
    template <class To>
    static void add(To& s, const char* p) {
        const Eight eight(p);
#pragma GCC unroll 4
        for (int j = 0; j < 8; j += 2) s.add(wide_nibbles(p + 16 + j * 16), eight.of(j));
        s.add_minima(eight.minima);
    }
};
struct Q5_K {
    static constexpr int bytes = 176, offset = 0, minima = -1, scaled = 32;
    template <class To>
    static void add(To& s, const char* p) {
        const Eight eight(p);
        const __m512i fifths = _mm512_broadcast_i64x4(bytes32(p + 16));
#pragma GCC unroll 4
        for (int j = 0; j < 8; j += 2) {
            const __m512i bit = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << j)),
                                                   _mm256_set1_epi8(static_cast<char>(2 << j)), 1);
            const __m512i codes = wide_nibbles(p + 48 + j * 16);
            s.add(_mm512_mask_add_epi8(codes, _mm512_test_epi8_mask(fifths, bit), codes, _mm512_set1_epi8(16)),
                  eight.of(j));
        }
        s.add_minima(eight.minima);
    }
};
struct Q6_K {
    static constexpr int bytes = 210, offset = 32, minima = 0, scaled = 16;
    template <class To>
    static void add(To& s, const char* p) {
        const __m512 factor = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half(p + 208))));
        const __m512 scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes16(p + 192))), factor);
        const __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
        const __m512i each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
#pragma GCC unroll 2
        for (int half_block = 0; half_block < 2; ++half_block) {
            const __m512i low = _mm512_loadu_si512(p + 64 * half_block);
            const __m512i high = _mm512_broadcast_i64x4(bytes32(p + 128 + 32 * half_block));
            const auto part = [&](__m512i nibble, __m512i turn, int scale) {
                const __m512i upper = _mm512_and_si512(_mm512_rolv_epi64(high, turn), two);
                const __m512i codes = _mm512_ternarylogic_epi64(nibble, four, upper, 0xea);  // (a & b) | c
                s.add(codes, _mm512_permutexvar_ps(_mm512_add_epi32(each, _mm512_set1_epi32(scale)), scales));
            };
            part(low, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2), 8 * half_block);
            part(_mm512_srli_epi64(low, 4), _mm512_setr_epi64(0, 0, 0, 0, 62, 62, 62, 62), 8 * half_block + 4);
        }
    }
};

inline bool known(int type) { return type == 2 || type == 3 || (type >= 6 && type <= 8) || (type >= 12 && type <= 14); }

// f(the type), by ggml's number of a known one.
template <class F>
auto with_type(int type, F f) {
    switch (type) {
        case 2: return f(Q4_0{});
        case 3: return f(Q4_1{});
        case 6: return f(Q5_0{});
        case 7: return f(Q5_1{});
        case 8: return f(Q8_0{});
        case 12: return f(Q4_K{});
        case 13: return f(Q5_K{});
        default: return f(Q6_K{});
    }
}

}  // namespace sakuin::gemv
