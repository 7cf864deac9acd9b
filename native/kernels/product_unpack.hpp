// Quantized weights to bf16, by the definitions of ggml's types. Where a block has at most 32 different values, these
// are computed and rounded once, and looked up. AVX-512 with BF16; compiled without contraction to fused operations, so
// that the numbers are those of ggml's own functions, rounded.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sakuin::unpack {

inline float half(const uint8_t* p) {
    uint16_t x;
    std::memcpy(&x, p, sizeof x);
    return _cvtsh_ss(x);
}

inline uint32_t word(const uint8_t* p) {
    uint32_t x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline __m256i bytes32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m128i bytes16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// 32 numbers, those of `low` first.
inline void put(uint16_t* to, __m512 low, __m512 high) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}
inline void put(uint16_t* to, __m512i numbers) { _mm512_storeu_si512(to, numbers); }

inline __m512 counting(float first) {
    return _mm512_add_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_ps(first));
}

// The values of codes 0 to 15, twice, so that an index's fifth bit does not matter.
inline __m512i values16(__m512 values) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(values, values)); }
inline __m512i values32(__m512 low, __m512 high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }
inline __m512i look_up(__m512i codes, __m512i values) { return _mm512_permutexvar_epi16(codes, values); }

inline __m512 times(__m512 codes, float scale) { return _mm512_mul_ps(codes, _mm512_set1_ps(scale)); }
inline __m512 plus(__m512 x, float y) { return _mm512_add_ps(x, _mm512_set1_ps(y)); }
inline __m512 minus(__m512 x, float y) { return _mm512_sub_ps(x, _mm512_set1_ps(y)); }

// 16 bytes: codes 0 to 15 are the low halves, 16 to 31 the high ones. Above their four bits others are left.
inline __m512i halves(const uint8_t* p) {
    const __m256i codes = _mm256_cvtepu8_epi16(bytes16(p));
    return _mm512_inserti64x4(_mm512_castsi256_si512(codes), _mm256_srli_epi16(codes, 4), 1);
}

// A fifth bit for 32 codes of four.
inline __m512i with_fifth(__m512i codes, __mmask32 fifth) {
    const __m512i low = _mm512_and_si512(codes, _mm512_set1_epi16(15));
    return _mm512_mask_or_epi32(low, 0xffff, low, _mm512_maskz_set1_epi16(fifth, 16));
}

// 16 signed bytes as floats.
inline __m512 floats(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

inline void f32(const uint8_t* from, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32) {
        const auto part = [&](int64_t at) {
            const int64_t left = n - at;
            const auto some = static_cast<__mmask16>(left >= 16 ? 0xffffu : left <= 0 ? 0u : (1u << left) - 1u);
            return _mm512_maskz_loadu_ps(some, reinterpret_cast<const float*>(from) + at);
        };
        const __m512i x = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(part(i + 16), part(i)));
        if (n - i >= 32)
            put(to + i, x);
        else
            _mm512_mask_storeu_epi16(to + i, (1u << (n - i)) - 1u, x);
    }
}

inline __m512i up_to_32(const uint8_t* from, int64_t n) {
    return n >= 32 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16((1u << n) - 1u, from);
}

inline void f16(const uint8_t* from, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32) {
        const __m512i x = up_to_32(from + 2 * i, n - i);
        const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(x)),
                     high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1));
        const __m512i y = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
        if (n - i >= 32)
            put(to + i, y);
        else
            _mm512_mask_storeu_epi16(to + i, (1u << (n - i)) - 1u, y);
    }
}

inline void bf16(const uint8_t* from, int64_t n, uint16_t* to) { std::memcpy(to, from, static_cast<size_t>(n) * 2); }

// Each of the following: n is a multiple of the type's block.

inline void q4_0(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32, p += 18)
        put(to + i, look_up(halves(p + 2), values16(times(counting(-8), half(p)))));
}

inline void q4_1(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32, p += 20)
        put(to + i, look_up(halves(p + 4), values16(plus(times(counting(0), half(p)), half(p + 2)))));
}

inline void q5_0(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32, p += 22) {
        const float d = half(p);
        put(to + i,
            look_up(with_fifth(halves(p + 6), word(p + 2)), values32(times(counting(-16), d), times(counting(0), d))));
    }
}

inline void q5_1(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32, p += 24) {
        const float d = half(p), m = half(p + 2);
        put(to + i, look_up(with_fifth(halves(p + 8), word(p + 4)),
                            values32(plus(times(counting(0), d), m), plus(times(counting(16), d), m))));
    }
}

inline void q8_0(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32, p += 34) {
        const float d = half(p);
        put(to + i, times(floats(bytes16(p + 2)), d), times(floats(bytes16(p + 18)), d));
    }
}

// Scales and minima of the eight parts of a block of Q4_K or Q5_K: 6 bits each, in 12 bytes.
struct Parts8 {
    float scale[8], least[8];
    explicit Parts8(const uint8_t* p) {
        const uint32_t a = word(p + 4), b = word(p + 8), c = word(p + 12);
        const uint64_t scales = (a & 0x3f3f3f3f) | static_cast<uint64_t>((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030))
                                                       << 32,
                       minima = (b & 0x3f3f3f3f) | static_cast<uint64_t>((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030))
                                                       << 32;
        widen(scales, half(p), scale);
        widen(minima, half(p + 2), least);
    }

private:
    static void widen(uint64_t bytes, float factor, float* to) {
        const __m128i b = _mm_cvtsi64_si128(static_cast<long long>(bytes));
        _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)), _mm256_set1_ps(factor)));
    }
};

inline void q4_k(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 256, p += 144) {
        const Parts8 parts(p);
        const auto values = [&](int j) { return values16(minus(times(counting(0), parts.scale[j]), parts.least[j])); };
        for (int j = 0; j < 8; j += 2) {
            const __m512i codes = _mm512_cvtepu8_epi16(bytes32(p + 16 + j * 16));
            put(to + i + j * 32, look_up(codes, values(j)));
            put(to + i + j * 32 + 32, look_up(_mm512_srli_epi16(codes, 4), values(j + 1)));
        }
    }
}

inline void q5_k(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 256, p += 176) {
        const Parts8 parts(p);
        const __m512i fifths = _mm512_cvtepu8_epi16(bytes32(p + 16));
        const auto values = [&](int j) {
            return values32(minus(times(counting(0), parts.scale[j]), parts.least[j]),
                            minus(times(counting(16), parts.scale[j]), parts.least[j]));
        };
        const auto fifth = [&](int j) {
            return _mm512_test_epi16_mask(fifths, _mm512_set1_epi16(static_cast<short>(1 << j)));
        };
        for (int j = 0; j < 8; j += 2) {
            const __m512i codes = _mm512_cvtepu8_epi16(bytes32(p + 48 + j * 16));
            put(to + i + j * 32, look_up(with_fifth(codes, fifth(j)), values(j)));
            put(to + i + j * 32 + 32, look_up(with_fifth(_mm512_srli_epi16(codes, 4), fifth(j + 1)), values(j + 1)));
        }
    }
}

// Two parts of 16 codes of six bits: the low four as they are, the high two wherever `high` has them shifted to.
inline void put_six_bits(uint16_t* to, __m256i low, __m256i high, const float* scales) {
    const __m256i codes = _mm256_sub_epi8(
        _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_and_si256(high, _mm256_set1_epi8(48))),
        _mm256_set1_epi8(32));
    put(to, times(floats(_mm256_castsi256_si128(codes)), scales[0]),
        times(floats(_mm256_extracti128_si256(codes, 1)), scales[1]));
}

inline void q6_k(const uint8_t* p, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 256, p += 210) {
        float scales[16];
        _mm512_storeu_ps(scales, times(floats(bytes16(p + 192)), half(p + 208)));
        for (int j = 0; j < 2; ++j) {
            const __m256i a = bytes32(p + 64 * j), b = bytes32(p + 64 * j + 32), high = bytes32(p + 128 + 32 * j);
            uint16_t* const at = to + i + 128 * j;
            const float* const s = scales + 8 * j;
            put_six_bits(at, a, _mm256_slli_epi16(high, 4), s);
            put_six_bits(at + 32, b, _mm256_slli_epi16(high, 2), s + 2);
            put_six_bits(at + 64, _mm256_srli_epi16(a, 4), high, s + 4);
            put_six_bits(at + 96, _mm256_srli_epi16(b, 4), _mm256_srli_epi16(high, 2), s + 6);
        }
    }
}

using Function = void (*)(const uint8_t* from, int64_t n, uint16_t* to);

// By ggml's number of the type; null where there is none.
inline Function function_of(int type) {
    switch (type) {
        case 0: return f32;
        case 1: return f16;
        case 2: return q4_0;
        case 3: return q4_1;
        case 6: return q5_0;
        case 7: return q5_1;
        case 8: return q8_0;
        case 12: return q4_k;
        case 13: return q5_k;
        case 14: return q6_k;
        case 30: return bf16;
        default: return nullptr;
    }
}

}  // namespace sakuin::unpack
