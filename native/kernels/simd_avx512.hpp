// What AVX-512 (F, BW, DQ, VL) does better than the generic vector type (see simd.hpp, the only includer).
#pragma once

namespace sakuin {

template <class Tag>
struct Avx512Base : Generic<Tag, 16> {
    using Base = Generic<Tag, 16>;
    using Base::load_fp16;
    using Base::load_i8;
    using Base::load_u32;
    using Base::max;
    using Base::store;
    using typename Base::F;
    using typename Base::U;

    static constexpr int row_tile = 8;

    static SAKUIN_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
    static SAKUIN_INLINE F set1(float x) { return _mm512_set1_ps(x); }  // x + 0 is not folded: -0 + 0 is 0
    static SAKUIN_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static SAKUIN_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
    static SAKUIN_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
    static SAKUIN_INLINE float hsum(F v) { return _mm512_reduce_add_ps(v); }
    static SAKUIN_INLINE float hmax(F v) { return _mm512_reduce_max_ps(v); }
    static SAKUIN_INLINE bool any_above(F v, float limit) {
        return _mm512_cmp_ps_mask(v, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
    }
    static SAKUIN_INLINE U load_u32(const void* p, int n) {
        return reinterpret_cast<U>(_mm512_maskz_loadu_epi32(first_lanes(n), p));
    }
    static SAKUIN_INLINE void store(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
    static SAKUIN_INLINE F select_first(int n, F v, F other) { return _mm512_mask_mov_ps(other, first_lanes(n), v); }
    static SAKUIN_INLINE F load_fp16(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }

    static SAKUIN_INLINE F load_i8(const int8_t* p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
    }

    static SAKUIN_INLINE void transpose(U (&x)[16]) {
        __m512i a[16], b[16];
        for (int i = 0; i < 16; i += 2) {
            const __m512i p = reinterpret_cast<__m512i>(x[i]), q = reinterpret_cast<__m512i>(x[i + 1]);
            a[i] = _mm512_unpacklo_epi32(p, q);
            a[i + 1] = _mm512_unpackhi_epi32(p, q);
        }
        for (int i = 0; i < 16; i += 4) {
            b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        // b[4g + c], lane l: column 4l + c of rows 4g .. 4g + 3. What is left is a transpose of 128-bit lanes.
        for (int c = 0; c < 4; ++c) {
            const __m512i p = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88),
                          q = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
            const __m512i r = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd),
                          s = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
            x[c] = reinterpret_cast<U>(_mm512_shuffle_i32x4(p, q, 0x88));
            x[4 + c] = reinterpret_cast<U>(_mm512_shuffle_i32x4(r, s, 0x88));
            x[8 + c] = reinterpret_cast<U>(_mm512_shuffle_i32x4(p, q, 0xdd));
            x[12 + c] = reinterpret_cast<U>(_mm512_shuffle_i32x4(r, s, 0xdd));
        }
    }

    static constexpr bool sums_in_pairs = true;
    static SAKUIN_INLINE U add_bytes(U sums, U x, U y) {
        return reinterpret_cast<U>(
            _mm512_add_epi16(reinterpret_cast<__m512i>(sums),
                             _mm512_maddubs_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y))));
    }
    static SAKUIN_INLINE U widen_pairs(U sums, U pairs) {
        return sums + reinterpret_cast<U>(_mm512_madd_epi16(reinterpret_cast<__m512i>(pairs), _mm512_set1_epi16(1)));
    }
    static SAKUIN_INLINE U add_halves(U sums, U x, U y) {
        return sums +
               reinterpret_cast<U>(_mm512_madd_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
    }

    static SAKUIN_INLINE uint32_t mask_above(F v, float limit) {
        return _mm512_cmp_ps_mask(v, _mm512_set1_ps(limit), _CMP_GT_OQ);
    }
    static SAKUIN_INLINE int keep(uint32_t* to, U v, uint32_t mask) {
        _mm512_storeu_si512(to,
                            _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), reinterpret_cast<__m512i>(v)));
        return __builtin_popcount(mask);
    }
    static SAKUIN_INLINE void columns(const uint8_t* const (&rows)[16], int words, U (&out)[8]) {
        const __mmask8 some = static_cast<__mmask8>((1u << words) - 1u);
        const auto row = [&](int k) { return _mm256_maskz_loadu_epi32(some, rows[k]); };
        __m512i c[2][4];  // in each 128-bit lane: words j of four rows, words 4 + j of these, both of four rows more
        for (int h = 0; h < 2; ++h) {
            __m512i a[4], b[4];
            for (int k = 0; k < 4; ++k)
                a[k] = _mm512_inserti64x4(_mm512_castsi256_si512(row(8 * h + k)), row(8 * h + 4 + k), 1);
            for (int k = 0; k < 2; ++k) {
                b[k] = _mm512_unpacklo_epi32(a[2 * k], a[2 * k + 1]);
                b[2 + k] = _mm512_unpackhi_epi32(a[2 * k], a[2 * k + 1]);
            }
            for (int k = 0; k < 2; ++k) {
                c[h][2 * k] = _mm512_unpacklo_epi64(b[2 * k], b[2 * k + 1]);
                c[h][2 * k + 1] = _mm512_unpackhi_epi64(b[2 * k], b[2 * k + 1]);
            }
        }
        for (int j = 0; j < 4; ++j) {
            out[j] = reinterpret_cast<U>(_mm512_shuffle_i32x4(c[0][j], c[1][j], 0x88));
            out[4 + j] = reinterpret_cast<U>(_mm512_shuffle_i32x4(c[0][j], c[1][j], 0xdd));
        }
    }

    struct Keys32 {
        __m512i v;
    };
    struct Table16 {
        __m512i v;  // the 16 entries twice, so that the fifth bit of an index does not matter
    };
    static SAKUIN_INLINE Keys32 keys32(uint16_t x) { return {_mm512_set1_epi16(static_cast<short>(x))}; }
    static SAKUIN_INLINE Table16 table16(const uint16_t* t) {
        return {_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(t)))};
    }
    static SAKUIN_INLINE Keys32 pack(const U (&low)[1], const U (&high)[1]) {
        return {_mm512_packus_epi32(reinterpret_cast<__m512i>(low[0]), reinterpret_cast<__m512i>(high[0]))};
    }
    template <int Shift>
    static SAKUIN_INLINE Keys32 entries(const uint8_t* codes, const Table16& table) {
        const __m512i c = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
        return {_mm512_permutexvar_epi16(Shift == 0 ? c : _mm512_srli_epi16(c, 4), table.v)};
    }
    static SAKUIN_INLINE Keys32 max(Keys32 a, Keys32 b) { return {_mm512_max_epu16(a.v, b.v)}; }
    static SAKUIN_INLINE uint32_t at_least(const uint16_t* z, const Keys32& limit) {
        return _mm512_cmpge_epu16_mask(_mm512_loadu_si512(z), limit.v);
    }
    static SAKUIN_INLINE void store(uint16_t* p, const Keys32& a) { _mm512_storeu_si512(p, a.v); }
};

struct Avx512 : Avx512Base<Avx512> {
    static constexpr const char* name = "avx512";
};

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI2__)
// A build of its own for CPUs with BF16, VNNI and VBMI2: bf16 keys meet bf16 queries without being widened, two
// products a lane.
struct Avx512Bf16 : Avx512Base<Avx512Bf16> {
    static constexpr const char* name = "avx512bf16";
    static constexpr bool has_bf16_dot = true, sums_in_pairs = false, keeps_halves = true;
    static SAKUIN_INLINE void keep_halves(uint16_t* to, const uint16_t* from, uint32_t mask) {
        _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(mask, _mm512_loadu_si512(from)));
    }
    static SAKUIN_INLINE U add_bytes(U sums, U x, U y) {
        return reinterpret_cast<U>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(x),
                                                       reinterpret_cast<__m512i>(y)));
    }
    static SAKUIN_INLINE U add_halves(U sums, U x, U y) {
        return reinterpret_cast<U>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(x),
                                                       reinterpret_cast<__m512i>(y)));
    }
    // acc + first(a) * first(b) + second(a) * second(b), products and sums in fp32
    static SAKUIN_INLINE F dot_bf16(F acc, U a, U b) {
        return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }
};
#endif

}  // namespace sakuin
