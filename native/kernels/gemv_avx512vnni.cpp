// Products of weights with a few rows of x, in whole numbers of 8 bits with sums of 32. AVX-512 with VNNI.
#include <algorithm>
#include <limits>

#include "kernels/gemv_amx.hpp"
#include "kernels/gemv_panels.hpp"
#include "kernels/gemv_types.hpp"

namespace sakuin {

namespace {

constexpr int ahead = 2048;  // bytes of the weight that are asked for before they are read

template <class Type, int N>
void row_of(gemv::Sums<N>& s, const char* w, int64_t depth) {
    if constexpr (Type::bytes > 100) {
        for (int64_t i = 0; i < depth; i += 256, w += Type::bytes) {
            for (int j = 0; j < Type::bytes; j += 64) _mm_prefetch(w + ahead + j, _MM_HINT_T0);
            Type::add(s, w);
        }
    } else {
        int64_t i = 0;
        for (; i + 64 <= depth; i += 64, w += 2 * Type::bytes) {
            _mm_prefetch(w + ahead, _MM_HINT_T0);
            Type::add(s, w, w + Type::bytes);
        }
        if (i < depth) Type::add(s, w, w);  // x has zeros there
    }
}

template <class Type, int N>
void rows_of(const GemvRange& p) {
    for (int64_t j = 0; j < p.n; ++j) {
        gemv::Sums<N> s(p.x, p.sums, 2 * gemv_chunks(p.depth));
        row_of<Type, N>(s, p.weight + j * p.row_bytes, p.depth);
        for (int r = 0; r < N; ++r) {
            __m256 sum = _mm256_add_ps(_mm512_castps512_ps256(s.dots[r]), _mm512_extractf32x8_ps(s.dots[r], 1));
            if constexpr (Type::minima != 0) sum = _mm256_fmadd_ps(_mm256_set1_ps(Type::minima), s.minima[r], sum);
            __m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
            four = _mm_add_ps(four, _mm_movehl_ps(four, four));
            p.out[r][j] = _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
        }
    }
}

template <class Type>
void of_type(const GemvRange& p) {
    switch (p.n_rows) {
        case 1: return rows_of<Type, 1>(p);
        case 2: return rows_of<Type, 2>(p);
        case 3: return rows_of<Type, 3>(p);
        case 4: return rows_of<Type, 4>(p);
        case 5: return rows_of<Type, 5>(p);
        case 6: return rows_of<Type, 6>(p);
        case 7: return rows_of<Type, 7>(p);
        default: return rows_of<Type, 8>(p);
    }
}

int offset(int type) {
    return gemv::known(type) ? gemv::with_type(type, []<class T>(T) { return T::offset; }) : -1;
}

void multiply(const GemvRange& p) {
    gemv::with_type(p.type, [&]<class T>(T) { of_type<T>(p); });
}

// 32 numbers: codes, sums of four, and the scale.
void round_block(const float* x, int offset_of_type, GemvChunk& to, int half, float& sum) {
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    // The largest of numbers and what is none may be a number.
    const bool numbers = _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) == 0;
    const float scale = numbers ? most / 127.0f : std::numeric_limits<float>::quiet_NaN();
    const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    const __m128i low = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)));
    const __m128i high = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
    const __m256i codes = _mm256_set_m128i(high, low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to.codes + 32 * half), codes);
    const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to.bias + 8 * half),
                       _mm256_mullo_epi32(fours, _mm256_set1_epi32(-offset_of_type)));
    _mm256_store_ps(to.scales + 8 * half, _mm256_set1_ps(scale));
    sum = scale * static_cast<float>(_mm512_reduce_add_epi32(_mm512_zextsi256_si512(fours)));
}

void round(const GemvInput& p) {
    for (int64_t i = 0; i < p.depth; i += 32)
        round_block(p.x + i, p.offset, p.to[i / 64 * p.stride], i % 64 != 0, p.sums[i / 32]);
    if (p.depth % 64 != 0) {
        GemvChunk& last = p.to[p.depth / 64 * p.stride];
        std::fill(last.codes + 32, last.codes + 64, int8_t{0});
        std::fill(last.bias + 8, last.bias + 16, 0);
        std::fill(last.scales + 8, last.scales + 16, 0.0f);
        p.sums[p.depth / 32] = 0;
    }
}

}  // namespace

extern const GemvKernels gemv_avx512vnni, gemv_amx;
constinit const GemvKernels gemv_avx512vnni{
    "avx512vnni",       &offset,           &round,          &multiply,    &gemv_panels_from,
    gemv_most_arranged, &gemv_panel_bytes, &gemv_to_blocks, &gemv_panels,
};
constinit const GemvKernels gemv_amx{"amx_int8",     &offset,          &round,         &multiply,  &gemv_tiles_from,
                                     gemv_most_rows, &gemv_tile_bytes, &gemv_to_tiles, &gemv_tiles};

}  // namespace sakuin
