// Kernels of the `sketch` index around the scan: projection of the queries, the exponentials of all keys, and the
// search for those that may have a large weight. Included only by the files
// compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_rescore.hpp"
#include "kernels/sketch_rows.hpp"

namespace sakuin {

template <class I>
struct SketchKeys {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    using H = typename I::H;
    using Keys32 = typename I::Keys32;
    using Table16 = typename I::Table16;
    static constexpr int lanes = I::lanes;

    // --- projection --------------------------------------------------------------------------------------------------
    template <int G>
    static void project_tile(const float* q, const uint16_t* basis, int d, float* p) {
        for (int j = 0; j < d; j += lanes) {
            const int here = d - j < lanes ? d - j : lanes;  // head_dim is a multiple of 8, maybe not of the lanes
            F acc[G] = {};
            for (int i = 0; i < d; ++i) {
                const uint16_t* at = basis + static_cast<size_t>(i) * static_cast<size_t>(d) + j;
                const F row = here < lanes ? I::load_fp16(at, here) : I::load_fp16(at);
                for (int g = 0; g < G; ++g) acc[g] = I::fma(I::set1(q[g * d + i]), row, acc[g]);
            }
            for (int g = 0; g < G; ++g)
                here < lanes ? I::store(p + g * d + j, acc[g], here) : I::store(p + g * d + j, acc[g]);
        }
    }
    static void project(const float* q, const uint16_t* basis, int group, int d, float* p) {
        SketchRows<I>::in_tiles(group, [&]<int G>(int g) { project_tile<G>(q + g * d, basis, d, p + g * d); });
    }

    static void moments(const float* q, const float* p, const float* mean, const float* residue, int group, int d,
                        float* dot, float* variance) {
        for (int g = 0; g < group; ++g, q += d, p += d) {
            F first = {}, second = {};
            for (int j = 0; j < d; j += lanes) {
                const int here = d - j < lanes ? d - j : lanes;
                const bool part = here < lanes;
                const F x = part ? I::load(q + j, here) : I::load(q + j),
                        y = part ? I::load(p + j, here) : I::load(p + j);
                first = I::fma(x, part ? I::load(mean + j, here) : I::load(mean + j), first);
                second = I::fma(y * y, part ? I::load(residue + j, here) : I::load(residue + j), second);
            }
            dot[g] = I::hsum(first);
            variance[g] = I::hsum(second);
        }
    }

    // --- exponentials ------------------------------------------------------------------------------------------------
    // The sum of the quick weights (ScoreMap::rate) of a block of 32 keys, lane by lane;
    // their squares are added to `squares`.
    static SAKUIN_INLINE F quick_sum(const uint16_t* z, uint16_t floor, uint16_t rate, uint16_t plus, F& squares) {
#if defined(__AVX512BW__)
        if constexpr (lanes == 16 && sizeof(Keys32) == sizeof(__m512i)) {
            __m512i v = _mm512_subs_epu16(_mm512_loadu_si512(z), _mm512_set1_epi16(static_cast<short>(floor)));
            v = _mm512_mullo_epi16(v, _mm512_set1_epi16(static_cast<short>(rate)));
            v = _mm512_add_epi16(v, _mm512_set1_epi16(static_cast<short>(plus)));
            const F a = I::bf16_first(reinterpret_cast<U>(v)), b = I::bf16_second(reinterpret_cast<U>(v));
            squares = I::fma(a, a, I::fma(b, b, squares));
            return a + b;
        }
#elif defined(__AVX2__)
        if constexpr (lanes == 8 && sizeof(Keys32) == 64) {
            F sum = {};
            for (int half = 0; half < 2; ++half) {
                __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(z + 16 * half));
                v = _mm256_subs_epu16(v, _mm256_set1_epi16(static_cast<short>(floor)));
                v = _mm256_mullo_epi16(v, _mm256_set1_epi16(static_cast<short>(rate)));
                v = _mm256_add_epi16(v, _mm256_set1_epi16(static_cast<short>(plus)));
                const F a = I::bf16_first(reinterpret_cast<U>(v)), b = I::bf16_second(reinterpret_cast<U>(v));
                squares = I::fma(a, a, I::fma(b, b, squares));
                sum += a + b;
            }
            return sum;
        }
#else
        F sum = {};
        for (int i = 0; i < 32; ++i) {
            const float w = SketchRescore<I>::quick(z[i], floor, rate, plus);
            sum[i % lanes] += w;
            squares[i % lanes] += w * w;
        }
        return sum;
#endif
    }

    // Over the keys [from, to) of a block, one by one: the end of a segment,
    // and scores that the quick form does not cover.
    static float slow_sum(const ScoreMap& m, const uint16_t* z, int g, float top, int64_t n, F& squares) {
        float sum = 0.0f;
        for (int64_t i = 0; i < n; i += lanes) {
            const int here = n - i < lanes ? static_cast<int>(n - i) : lanes;
            if (m.rate != nullptr) {
                for (int k = 0; k < here; ++k) {
                    const float w = SketchRescore<I>::quick(z[i + k], m.floor[g], m.rate[g], m.plus[g]);
                    sum += w;
                    squares[k] += w * w;
                }
                continue;
            }
            const F x = SketchRescore<I>::score(z + i, I::set1(m.scale[g]), I::set1(m.bias[g]));
            const F w =
                I::select_first(here, I::template exp2<false>(SketchRescore<I>::capped(x, m.softcap) - top), F{});
            squares = I::fma(w, w, squares);
            sum += I::hsum(w);
        }
        return sum;
    }

    template <int G>
    static void sums_tile(const ScoreMap& m, const float* top, int64_t n, int first, float* sums, float* squares) {
        const int width = padded(m.group);
        const int64_t lists = (n + list_size - 1) / list_size;
        F square[G] = {};
        for (int64_t l = 0; l < lists; ++l) {
            const uint16_t* z = m.z + (2 * l * m.group + first) * 32;
            float* to = sums + l * width + first;
            const int64_t left = n - l * list_size;
            if (left >= list_size && m.rate != nullptr) {
                F acc[G];
                for (int g = 0; g < G; ++g) {
                    const auto sum = [&](const uint16_t* keys) {
                        return quick_sum(keys, m.floor[first + g], m.rate[first + g], m.plus[first + g], square[g]);
                    };
                    acc[g] = sum(z + g * 32) + sum(z + (m.group + g) * 32);
                }
                SketchRows<I>::template reduce<G>(acc, to);
                continue;
            }
            for (int g = 0; g < G; ++g) {
                const int64_t second = left - 32 < 0 ? 0 : left - 32 > 32 ? 32 : left - 32;
                to[g] = slow_sum(m, z + g * 32, first + g, top[first + g], left < 32 ? left : 32, square[g]) +
                        slow_sum(m, z + (m.group + g) * 32, first + g, top[first + g], second, square[g]);
            }
        }
        SketchRows<I>::template reduce<G>(square, squares + first);
    }
    static void list_sums(const ScoreMap& m, const float* top, int64_t n, float* sums, float* squares) {
        const int64_t all = (n + list_size - 1) / list_size * padded(m.group);
        for (int64_t i = 0; i < all; ++i) sums[i] = 0.0f;
        for (int g = 0; g < padded(m.group); ++g) squares[g] = 0.0f;
        SketchRows<I>::in_tiles(m.group, [&]<int G>(int first) { sums_tile<G>(m, top, n, first, sums, squares); });
    }

    // --- reach -------------------------------------------------------------------------------------------------------
    static int64_t find_reach(const Reach& a) {
        const ScoreMap& m = a.map;
        Table16 limits[max_group];
        make_limits(a, limits);
        const int64_t lists = (a.n + list_size - 1) / list_size;
        int64_t found = 0;
        for (int64_t l = 0; l < lists; ++l) {
            a.begin[l] = static_cast<uint32_t>(found);
            const uint8_t* sizes = a.sketch + (l + 1) * a.list_bytes - 32;
            for (int half = 0; half < 2; ++half) {
                const int64_t at = l * list_size + half * 32;
                if (at >= a.n) break;
                const uint16_t* z = m.z + (2 * l + half) * m.group * 32;
                uint32_t mask = 0;
                for (int g = 0; g < m.group; ++g) {
                    const Keys32 limit =
                        half == 0 ? I::template entries<0>(sizes, limits[g]) : I::template entries<4>(sizes, limits[g]);
                    mask |= I::at_least(z + g * 32, limit);
                }
                if (a.n - at < 32) mask &= (1u << (a.n - at)) - 1u;
                if (mask != 0) found += take(a, z, sizes, 4 * half, static_cast<uint32_t>(at), mask, found);
            }
        }
        a.begin[lists] = static_cast<uint32_t>(found);
        return found;
    }

    // Appends the keys of a block whose bits are set; `sizes` holds their residue lengths at bit `shift`.
    static SAKUIN_INLINE int64_t take(const Reach& a, const uint16_t* z, const uint8_t* sizes, int shift, uint32_t at,
                                      uint32_t mask, int64_t found) {
        uint32_t* index = a.index + found;
        uint16_t* lengths = a.rows + a.map.group * a.row_stride + found;
        int64_t n = 0;
        if constexpr (I::keeps_halves) {
            for (int k = 0; k < 32; k += lanes)
                n += I::keep(index + n, reinterpret_cast<U>(I::iota()) + (at + static_cast<uint32_t>(k)),
                             mask >> k & ((1u << lanes) - 1u));
            for (int g = 0; g < a.map.group; ++g) I::keep_halves(a.rows + g * a.row_stride + found, z + g * 32, mask);
            uint16_t all[32];
            for (int k = 0; k < 32; ++k) all[k] = static_cast<uint16_t>(sizes[k] >> shift & 15);
            I::keep_halves(lengths, all, mask);
        } else {
            for (; mask != 0; mask &= mask - 1, ++n) {
                const int k = __builtin_ctz(mask);
                index[n] = at + static_cast<uint32_t>(k);
                lengths[n] = static_cast<uint16_t>(sizes[k] >> shift & 15);
                for (int g = 0; g < a.map.group; ++g) a.rows[g * a.row_stride + found + n] = z[g * 32 + k];
            }
        }
        for (int64_t i = 0; i < n; ++i) {  // a row may lie on two lines
            const uint8_t* code = a.codes + static_cast<int64_t>(index[i]) * a.code_bytes;
            I::prefetch_far(code);
            I::prefetch_far(code + a.code_bytes - 1);
        }
        return n;
    }

    static SAKUIN_INLINE void make_limits(const Reach& a, Table16 (&limits)[max_group]) {
        const float least = __builtin_log2f(a.least);
        for (int g = 0; g < a.map.group; ++g) limits[g] = limits_of(a, g, least);
    }

    // The least 16-bit score with which a key may have a share above 2^least, by its residue length.
    static SAKUIN_INLINE Table16 limits_of(const Reach& a, int g, float least) {
        const float cap = a.map.softcap;
        float bar = a.lse[g] + least;
        if (cap > 0.0f) {
            const float r = bar / cap;
            // What is out of the cap's reach is so at any length: 65535 or 0 below.
            bar = r >= 1.0f ? __builtin_inff() : r <= -1.0f ? -__builtin_inff() : cap * __builtin_atanhf(r);
        }
        const float inverse = 1.0f / a.map.scale[g];
        const F start = I::set1((bar - a.map.bias[g]) * inverse), slope = I::set1(-0.25f * a.sigma[g] * inverse);
        uint16_t limit[16];
        for (int s = 0; s < 16; s += lanes) {
            F z = I::fma(__builtin_convertvector(I::iota() + s, F), slope, start);
            z = I::min(I::max(z, F{}), I::set1(65535.0f));  // NaN becomes 0
            S whole = __builtin_convertvector(z, S);
            whole -= __builtin_convertvector(whole, F) < z;  // rounded up
            const H half = __builtin_convertvector(whole, H);
            __builtin_memcpy(limit + s, &half, sizeof half);
        }
        limit[15] = 0;
        return I::table16(limit);
    }
};

}  // namespace sakuin
