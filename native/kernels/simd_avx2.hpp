// What AVX2, FMA and F16C do better than the generic vector type (see simd.hpp, the only includer).
#pragma once

namespace sakuin {

struct Avx2 : Generic<Avx2, 8> {
    using Base = Generic<Avx2, 8>;
    using Base::load_fp16;
    using Base::load_i8;
    using Base::load_u32;
    using Base::max;
    using Base::store;

    static constexpr const char* name = "avx2";
    static constexpr int row_tile = 6;

    static SAKUIN_INLINE F set1(float x) { return _mm256_set1_ps(x); }  // x + 0 is not folded: -0 + 0 is 0
    static SAKUIN_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static SAKUIN_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
    static SAKUIN_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }
    static SAKUIN_INLINE __m256i first_lanes(int n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static SAKUIN_INLINE U load_u32(const void* p, int n) {
        return reinterpret_cast<U>(_mm256_maskload_epi32(static_cast<const int*>(p), first_lanes(n)));
    }
    static SAKUIN_INLINE bool any_above(F v, float limit) {
        return _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(limit), _CMP_GT_OQ)) != 0;
    }
    static SAKUIN_INLINE F select_first(int n, F v, F other) {
        return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(first_lanes(n)));
    }
    static SAKUIN_INLINE __m128 halves_add(F v) {
        return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    }
    static SAKUIN_INLINE float hsum(F v) {
        __m128 x = halves_add(v);
        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
    }
    static SAKUIN_INLINE float hmax(F v) {
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
    }
    static SAKUIN_INLINE F load_fp16(const uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }

    static SAKUIN_INLINE F load_i8(const int8_t* p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    }

    static SAKUIN_INLINE void transpose(U (&x)[8]) {
        __m256i a[8], b[8];
        for (int i = 0; i < 8; i += 2) {
            const __m256i p = reinterpret_cast<__m256i>(x[i]), q = reinterpret_cast<__m256i>(x[i + 1]);
            a[i] = _mm256_unpacklo_epi32(p, q);
            a[i + 1] = _mm256_unpackhi_epi32(p, q);
        }
        for (int i = 0; i < 8; i += 4) {
            b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        for (int i = 0; i < 4; ++i) {
            x[i] = reinterpret_cast<U>(_mm256_permute2x128_si256(b[i], b[i + 4], 0x20));
            x[i + 4] = reinterpret_cast<U>(_mm256_permute2x128_si256(b[i], b[i + 4], 0x31));
        }
    }

    static constexpr bool sums_in_pairs = true;
    static SAKUIN_INLINE U add_bytes(U sums, U x, U y) {
        return reinterpret_cast<U>(
            _mm256_add_epi16(reinterpret_cast<__m256i>(sums),
                             _mm256_maddubs_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y))));
    }
    static SAKUIN_INLINE U widen_pairs(U sums, U pairs) {
        return sums + reinterpret_cast<U>(_mm256_madd_epi16(reinterpret_cast<__m256i>(pairs), _mm256_set1_epi16(1)));
    }
    static SAKUIN_INLINE U add_halves(U sums, U x, U y) {
        return sums +
               reinterpret_cast<U>(_mm256_madd_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
    }

    static SAKUIN_INLINE uint32_t mask_above(F v, float limit) {
        return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(limit), _CMP_GT_OQ)));
    }
    static SAKUIN_INLINE void columns(const uint8_t* const (&rows)[8], int words, U (&out)[8]) {
        for (int k = 0; k < 8; ++k) out[k] = load_u32(rows[k], words);
        transpose(out);
    }

    // `low` holds keys 0-7 and 16-23, `high` keys 8-15 and 24-31: the order in which unpacking bytes leaves them.
    struct Keys32 {
        __m256i low, high;
    };
    struct Table16 {
        __m256i low, high;  // low and high bytes of the 16 entries, twice
    };
    static SAKUIN_INLINE Keys32 keys32(uint16_t x) {
        const __m256i v = _mm256_set1_epi16(static_cast<short>(x));
        return {v, v};
    }
    // From keys in order.
    static SAKUIN_INLINE Keys32 keys32(__m256i first, __m256i second) {
        return {_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31)};
    }
    static SAKUIN_INLINE Keys32 pack(const U (&low)[2], const U (&high)[2]) {
        __m256i x[2];
        for (int k = 0; k < 2; ++k)
            x[k] = _mm256_packus_epi32(reinterpret_cast<__m256i>(low[k]), reinterpret_cast<__m256i>(high[k]));
        return keys32(x[0], x[1]);
    }
    static SAKUIN_INLINE Table16 table16(const uint16_t* t) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t));
        const __m256i low = _mm256_and_si256(v, _mm256_set1_epi16(0xff)), high = _mm256_srli_epi16(v, 8);
        // packus works within 128-bit lanes; 0xd8 brings the two useful quarters together,
        // and the table is then doubled.
        const __m256i l = _mm256_permute4x64_epi64(_mm256_packus_epi16(low, low), 0x88);
        const __m256i h = _mm256_permute4x64_epi64(_mm256_packus_epi16(high, high), 0x88);
        return {l, h};
    }
    template <int Shift>
    static SAKUIN_INLINE Keys32 entries(const uint8_t* codes, const Table16& table) {
        const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)), nibble = _mm256_set1_epi8(15);
        return entries(_mm256_and_si256(Shift == 0 ? c : _mm256_srli_epi16(c, 4), nibble), table);
    }
    static SAKUIN_INLINE Keys32 entries(__m256i index, const Table16& table) {
        const __m256i l = _mm256_shuffle_epi8(table.low, index), h = _mm256_shuffle_epi8(table.high, index);
        return {_mm256_unpacklo_epi8(l, h), _mm256_unpackhi_epi8(l, h)};
    }
    static SAKUIN_INLINE Keys32 max(Keys32 a, Keys32 b) {
        return {_mm256_max_epu16(a.low, b.low), _mm256_max_epu16(a.high, b.high)};
    }
    static SAKUIN_INLINE uint32_t at_least(const uint16_t* z, const Keys32& limit) {
        const Keys32 x = keys32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(z)),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(z + 16)));
        const __m256i low = _mm256_cmpeq_epi16(_mm256_max_epu16(x.low, limit.low), x.low);
        const __m256i high = _mm256_cmpeq_epi16(_mm256_max_epu16(x.high, limit.high), x.high);
        // Packing undoes the split of the unpacking.
        return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(low, high)));
    }
    static SAKUIN_INLINE void store(uint16_t* p, const Keys32& a) {
        __m256i* out = reinterpret_cast<__m256i*>(p);
        _mm256_storeu_si256(out, _mm256_permute2x128_si256(a.low, a.high, 0x20));
        _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(a.low, a.high, 0x31));
    }
};

}  // namespace sakuin
