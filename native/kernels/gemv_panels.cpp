// Products of weights with several rows of x, by panels of 16 rows of the weight. AVX-512 with VNNI.
#include "kernels/gemv_panels.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/gemv_panel_types.hpp"

namespace sakuin {

namespace {

using gemv::Panel, gemv::panel_blocks, gemv::panel_rows;

constexpr int at_once = 8;  // rows of x whose sums stay in registers

// sums[r] += x[r] . weight, of `blocks` blocks and R rows of x, `stride` blocks from one to the next.
template <class Type, int R>
void multiply_rows(const Panel<Type>& w, int64_t blocks, const GemvBlock* x, int64_t stride, __m512* sums,
                   const char* ahead) {
    constexpr int64_t bytes = panel_rows * Type::bytes / (Type::bytes > 100 ? 8 : 1);
    __m512 own[R];
    for (int r = 0; r < R; ++r) own[r] = sums[r];
    for (int64_t b = 0; b < blocks; ++b, x += stride, ahead += bytes) {
        for (int64_t j = 0; j < bytes; j += 64) _mm_prefetch(ahead + j, _MM_HINT_T1);
        constexpr int parts = Panel<Type>::parts;
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part) {
            __m512i whole[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) whole[r] = _mm512_set1_epi32(x[r].bias[part]);
#pragma GCC unroll 8
            for (int k = part * 8 / parts; k < (part + 1) * 8 / parts; ++k) {
                const __m512i codes = w.codes[b][k];
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r)
                    whole[r] = _mm512_dpbusd_epi32(whole[r], codes, _mm512_set1_epi32(x[r].codes[k]));
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
void multiply_some(const Panel<Type>& w, int64_t blocks, const GemvBlock* x, int64_t stride, __m512* sums,
                   const char* ahead, int64_t rows) {
    switch (rows) {
        case 1: return multiply_rows<Type, 1>(w, blocks, x, stride, sums, ahead);
        case 2: return multiply_rows<Type, 2>(w, blocks, x, stride, sums, ahead);
        case 3: return multiply_rows<Type, 3>(w, blocks, x, stride, sums, ahead);
        case 4: return multiply_rows<Type, 4>(w, blocks, x, stride, sums, ahead);
        case 5: return multiply_rows<Type, 5>(w, blocks, x, stride, sums, ahead);
        case 6: return multiply_rows<Type, 6>(w, blocks, x, stride, sums, ahead);
        case 7: return multiply_rows<Type, 7>(w, blocks, x, stride, sums, ahead);
        default: return multiply_rows<Type, 8>(w, blocks, x, stride, sums, ahead);
    }
}

// Sixteen rows of the weight, the last of them repeated where there are fewer.
template <class Type>
void panel(const GemvRange& p, int64_t first, const GemvBlock* x, Panel<Type>& w) {
    constexpr int64_t block = Type::bytes > 100 ? 8 : 1;  // of 32 numbers, that are unpacked together
    const int n = static_cast<int>(std::min<int64_t>(panel_rows, p.n - first));
    const char* rows[panel_rows];
    for (int r = 0; r < panel_rows; ++r) rows[r] = p.weight + (first + std::min(r, n - 1)) * p.row_bytes;
    __m512 sums[gemv_most_arranged];
    for (int i = 0; i < p.n_rows; ++i) sums[i] = _mm512_setzero_ps();
    const int64_t groups = (p.n_rows + at_once - 1) / at_once, all = p.depth / 32;
    for (int64_t b = 0; b < all; b += panel_blocks) {
        const int64_t blocks = std::min<int64_t>(panel_blocks, all - b), offset = b / block * Type::bytes;
        for (int64_t i = 0; i < blocks; i += block) gemv::unpack(rows, offset + i / block * Type::bytes, w, i);
        for (int64_t g = 0; g < groups; ++g) {
            const char* const ahead = p.weight + (first + panel_rows) * p.row_bytes + panel_rows * offset;
            const int64_t begin = p.n_rows * g / groups, end = p.n_rows * (g + 1) / groups;
            multiply_some<Type>(w, blocks, x + b * p.n_rows + begin, p.n_rows, sums + begin, ahead, end - begin);
        }
    }
    const auto wanted = static_cast<__mmask16>((1u << n) - 1);
    for (int i = 0; i < p.n_rows; ++i) _mm512_mask_storeu_ps(p.out[i] + first, wanted, sums[i]);
}

}  // namespace

int gemv_panels_from(int) { return 3; }

int64_t gemv_panel_bytes(const GemvRange& p) {
    return p.depth / 32 * p.n_rows * static_cast<int64_t>(sizeof(GemvBlock));
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
        Panel<T> w;
        for (int64_t first = 0; first < p.n; first += panel_rows)
            panel<T>(p, first, static_cast<const GemvBlock*>(x), w);
    });
}

}  // namespace sakuin
