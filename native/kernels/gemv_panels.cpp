// Products of weights with several rows of x, by panels of 16 rows of the weight. AVX-512 with VNNI.
#include "kernels/gemv_panels.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/gemv_panel_types.hpp"

namespace sakuin {

namespace {

using gemv::Panel, gemv::panel_rows;

constexpr int at_once = 8;  // rows of x whose sums stay in registers

// sums[r] += x[r] . weight, of R rows of x, `stride` blocks from one block to the next.
template <class Type, int R>
void multiply_rows(const Panel<Type>& w, const GemvBlock* x, int64_t stride, __m512* sums) {
    constexpr int parts = Panel<Type>::parts, fours = 8 / parts;
    __m512 own[R];
    for (int r = 0; r < R; ++r) own[r] = sums[r];
    for (int b = 0; b < Panel<Type>::blocks; ++b, x += stride) {
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part) {
            __m512i whole[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) whole[r] = _mm512_set1_epi32(x[r].bias[part]);
#pragma GCC unroll 8
            for (int k = 0; k < fours; ++k) {
                const __m512i codes = w.codes[b][part * fours + k];
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r)
                    whole[r] = _mm512_dpbusd_epi32(whole[r], codes, _mm512_set1_epi32(x[r].codes[part * fours + k]));
            }
            const __m512 scales = w.scales[b][part];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
                own[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r]),
                                         _mm512_mul_ps(scales, _mm512_set1_ps(x[r].scale)), own[r]);
        }
        if constexpr (Type::minima != 0) {
            const __m512 least = w.least[b];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const __m512 of_x = _mm512_set1_ps(x[r].sum);
                own[r] =
                    Type::minima > 0 ? _mm512_fmadd_ps(least, of_x, own[r]) : _mm512_fnmadd_ps(least, of_x, own[r]);
            }
        }
    }
    for (int r = 0; r < R; ++r) sums[r] = own[r];
}

template <class Type>
void multiply_group(const Panel<Type>& w, const GemvBlock* x, int64_t stride, __m512* sums, int64_t rows) {
    switch (rows) {
        case 1: return multiply_rows<Type, 1>(w, x, stride, sums);
        case 2: return multiply_rows<Type, 2>(w, x, stride, sums);
        case 3: return multiply_rows<Type, 3>(w, x, stride, sums);
        case 4: return multiply_rows<Type, 4>(w, x, stride, sums);
        case 5: return multiply_rows<Type, 5>(w, x, stride, sums);
        case 6: return multiply_rows<Type, 6>(w, x, stride, sums);
        case 7: return multiply_rows<Type, 7>(w, x, stride, sums);
        default: return multiply_rows<Type, 8>(w, x, stride, sums);
    }
}

// Sixteen rows of the weight, the last of them repeated where there are fewer. What the next panel is unpacked from is
// asked for in the order of memory, a little at a time: asked for at once, or into the first cache, it comes late.
template <class Type>
void panel(const GemvRange& p, int64_t first, const GemvBlock* x) {
    constexpr int64_t bytes = panel_rows * Type::bytes;
    const int n = static_cast<int>(std::min<int64_t>(panel_rows, p.n - first));
    const char* rows[panel_rows];
    for (int r = 0; r < panel_rows; ++r) rows[r] = p.weight + (first + std::min(r, n - 1)) * p.row_bytes;
    const char* ahead = p.weight + (first + panel_rows) * p.row_bytes;
    __m512 sums[gemv_most_arranged];
    for (int r = 0; r < p.n_rows; ++r) sums[r] = _mm512_setzero_ps();
    const int groups = (p.n_rows + at_once - 1) / at_once;
    Panel<Type> w;
    for (int64_t at = 0; at < p.row_bytes; at += Type::bytes, ahead += bytes, x += Panel<Type>::blocks * p.n_rows) {
        for (int64_t j = 0; j < bytes; j += 64) _mm_prefetch(ahead + j, _MM_HINT_T1);
        gemv::unpack(rows, at, w);
        for (int g = 0; g < groups; ++g) {
            const int begin = p.n_rows * g / groups, end = p.n_rows * (g + 1) / groups;
            multiply_group<Type>(w, x + begin, p.n_rows, sums + begin, end - begin);
        }
    }
    const auto wanted = static_cast<__mmask16>((1u << n) - 1);
    for (int r = 0; r < p.n_rows; ++r) _mm512_mask_storeu_ps(p.out[r] + first, wanted, sums[r]);
}

}  // namespace

// Measured: two rows take as long either way, or less by panels; one takes more.
int gemv_panels_from(int) { return 2; }

int64_t gemv_panel_bytes(int, int64_t depth, int n_rows) {
    return depth / 32 * n_rows * static_cast<int64_t>(sizeof(GemvBlock));
}

void gemv_to_blocks(const GemvRange& p, int row, void* out) {
    auto* to = static_cast<GemvBlock*>(out) + row;
    const bool halves = gemv::with_type(p.type, []<class T>(T) { return T::scaled == 16; });
    const float* const sums = p.sums + row * 2 * gemv_chunks(p.depth);
    for (int64_t b = 0; b < p.depth / 32; ++b, to += p.n_rows) {
        const GemvChunk& from = p.x[b / 2 * p.n_rows + row];
        const int half = b % 2 == 0 ? 0 : 8;
        std::memcpy(to->codes, from.codes + 4 * half, sizeof to->codes);
        const __m256i fours = _mm256_load_si256(reinterpret_cast<const __m256i*>(from.bias + half));
        const __m128i first = _mm256_castsi256_si128(fours), second = _mm256_extracti128_si256(fours, 1);
        __m128i both = _mm_hadd_epi32(first, second);
        both = _mm_hadd_epi32(both, both);
        if (!halves) both = _mm_hadd_epi32(both, both);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to->bias), both);
        to->scale = from.scales[half], to->sum = sums[b];
    }
}

void gemv_panels(const GemvRange& p, const void* x) {
    gemv::with_type(p.type, [&]<class T>(T) {
        for (int64_t first = 0; first < p.n; first += panel_rows) panel<T>(p, first, static_cast<const GemvBlock*>(x));
    });
}

}  // namespace sakuin
