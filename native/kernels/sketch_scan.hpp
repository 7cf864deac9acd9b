// Kernels of the `sketch` index that go over every key: projection, look-up tables, the scan, the exponentials, and the search
// for keys that may have a large weight. Included only by the files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_rescore.hpp"
#include "kernels/sketch_rows.hpp"

namespace sakuin {

template <class I>
struct SketchScan {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    using H = typename I::H;
    using Keys32 = typename I::Keys32;
    using Table16 = typename I::Table16;
    static constexpr int lanes = I::lanes;

    // --- projection -------------------------------------------------------------------------------------------------------
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
            for (int g = 0; g < G; ++g) here < lanes ? I::store(p + g * d + j, acc[g], here) : I::store(p + g * d + j, acc[g]);
        }
    }
    static void project(const float* q, const uint16_t* basis, int group, int d, float* p) {
        SketchRows<I>::in_tiles(group, [&]<int G>(int g) { project_tile<G>(q + g * d, basis, d, p + g * d); });
    }

    static void moments(const float* q, const float* p, const float* mean, const float* residue, int group, int d, float* dot, float* variance) {
        for (int g = 0; g < group; ++g, q += d, p += d) {
            F first = {}, second = {};
            for (int j = 0; j < d; j += lanes) {
                const int here = d - j < lanes ? d - j : lanes;
                const bool part = here < lanes;
                const F x = part ? I::load(q + j, here) : I::load(q + j), y = part ? I::load(p + j, here) : I::load(p + j);
                first = I::fma(x, part ? I::load(mean + j, here) : I::load(mean + j), first);
                second = I::fma(y * y, part ? I::load(residue + j, here) : I::load(residue + j), second);
            }
            dot[g] = I::hsum(first);
            variance[g] = I::hsum(second);
        }
    }

    // What entry e of a sub-quantizer stands for, in steps: one coordinate in four bits, or two in the lower and upper two bits.
    static constexpr float four_bits[16] = {-7.5f, -6.5f, -5.5f, -4.5f, -3.5f, -2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f};
    static constexpr float two_bits[16] = {-1.5f, -0.5f, 0.5f, 1.5f, -1.5f, -0.5f, 0.5f, 1.5f, -1.5f, -0.5f, 0.5f, 1.5f, -1.5f, -0.5f, 0.5f, 1.5f};
    static constexpr float two_bits_above[16] = {-1.5f, -1.5f, -1.5f, -1.5f, -0.5f, -0.5f, -0.5f, -0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f};

    // --- look-up tables -----------------------------------------------------------------------------------------------------
    static void make_tables(const SketchTables& a) {
        Table16* tables = static_cast<Table16*>(a.tables);
        for (int g = 0; g < a.group; ++g) {
            const float* p = a.p + g * a.head_dim;
            float total = 0.0f;
            for (int s = 0; s < a.subs; ++s) total += 2.0f * bound(a, p, s);
            // 16 bits for the sum of all tables; what rounding may add stays below the 500 that are left.
            const float scale = total > 0.0f ? total / 65000.0f : 1.0f, inverse = 1.0f / scale;
            for (int s = 0; s < a.subs; ++s) {
                const int second = a.coordinate[2 * s + 1];
                const F x = I::set1(p[a.coordinate[2 * s]] * a.step[2 * s] * inverse);
                const F y = I::set1(second < 0 ? 0.0f : p[second] * a.step[2 * s + 1] * inverse);
                const float lowest = bound(a, p, s);
                const F lift = I::set1(lowest * inverse + 0.5f);
                const float* level = second < 0 ? four_bits : two_bits;
                uint16_t entries[16];
                for (int e = 0; e < 16; e += lanes) {
                    const F raised = I::fma(x, I::load(level + e), I::fma(y, I::load(two_bits_above + e), lift));
                    const H whole = __builtin_convertvector(__builtin_convertvector(I::max(raised, F{}), S), H);
                    __builtin_memcpy(entries + e, &whole, sizeof whole);
                }
                tables[s * a.group + g] = I::table16(entries);
                a.bias[g] -= lowest;
            }
            a.scale[g] = scale;
        }
    }
    static SAKUIN_INLINE float bound(const SketchTables& a, const float* p, int s) {
        const int second = a.coordinate[2 * s + 1];
        const float x = __builtin_fabsf(p[a.coordinate[2 * s]] * a.step[2 * s]);
        return second < 0 ? 7.5f * x : 1.5f * (x + __builtin_fabsf(p[second] * a.step[2 * s + 1]));
    }

    // --- the scan -----------------------------------------------------------------------------------------------------------
    template <int G>
    static void scan_tile(const uint8_t* sketch, int64_t lists, int64_t list_bytes, int subs, const Table16* tables, int group,
                          uint16_t* z, uint16_t* largest) {
        Keys32 most[G];
        for (int g = 0; g < G; ++g) most[g] = I::keys32(0);
        const int pairs = subs / 2;
        for (int64_t l = 0; l < lists; ++l) {
            const uint8_t* codes = sketch + l * list_bytes;
            for (int half = 0; half < 2; ++half, codes += pairs * 32) {
                Keys32 acc[G];
                for (int g = 0; g < G; ++g) acc[g] = I::keys32(0);
                for (int s = 0; s < pairs; ++s)
                    for (int g = 0; g < G; ++g)
                        acc[g] = I::look_up(acc[g], codes + s * 32, tables[2 * s * group + g], tables[(2 * s + 1) * group + g]);
                uint16_t* to = z + (2 * l + half) * group * 32;
                for (int g = 0; g < G; ++g) {
                    I::store(to + g * 32, acc[g]);
                    most[g] = I::max(most[g], acc[g]);
                }
            }
        }
        for (int g = 0; g < G; ++g) {
            uint16_t all[32];
            I::store(all, most[g]);
            largest[g] = 0;
            for (const uint16_t v : all) largest[g] = v > largest[g] ? v : largest[g];
        }
    }
    static void scan(const uint8_t* sketch, int64_t lists, int64_t list_bytes, int subs, const void* tables, int group, uint16_t* z,
                     uint16_t* largest) {
        const Table16* t = static_cast<const Table16*>(tables);
        SketchRows<I>::in_tiles(group, [&]<int G>(int g) {
            scan_tile<G>(sketch, lists, list_bytes, subs, t + g, group, z + g * 32, largest + g);
        });
    }

    // --- exponentials ---------------------------------------------------------------------------------------------------------
    // The sum of the float whose upper half is z * rate / 2^16 + plus - minus, over a block of 32 keys, lane by lane; squares are added to
    // `squares`.
    static SAKUIN_INLINE F quick_sum(const uint16_t* z, uint16_t rate, uint16_t plus, uint16_t minus, F& squares) {
#if defined(__AVX512BW__)
        if constexpr (lanes == 16 && sizeof(Keys32) == sizeof(__m512i) && sizeof(Table16) == 64) {
            __m512i v = _mm512_mulhi_epu16(_mm512_loadu_si512(z), _mm512_set1_epi16(static_cast<short>(rate)));
            v = _mm512_adds_epu16(v, _mm512_set1_epi16(static_cast<short>(plus)));
            v = _mm512_subs_epu16(v, _mm512_set1_epi16(static_cast<short>(minus)));
            const F a = I::bf16_first(reinterpret_cast<U>(v)), b = I::bf16_second(reinterpret_cast<U>(v));
            squares = I::fma(a, a, I::fma(b, b, squares));
            return a + b;
        }
#elif defined(__AVX2__)
        if constexpr (lanes == 8 && sizeof(Keys32) == 64) {
            F sum = {};
            for (int half = 0; half < 2; ++half) {
                __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(z + 16 * half));
                v = _mm256_mulhi_epu16(v, _mm256_set1_epi16(static_cast<short>(rate)));
                v = _mm256_adds_epu16(v, _mm256_set1_epi16(static_cast<short>(plus)));
                v = _mm256_subs_epu16(v, _mm256_set1_epi16(static_cast<short>(minus)));
                const F a = I::bf16_first(reinterpret_cast<U>(v)), b = I::bf16_second(reinterpret_cast<U>(v));
                squares = I::fma(a, a, I::fma(b, b, squares));
                sum += a + b;
            }
            return sum;
        }
#else
        F sum = {};
        for (int i = 0; i < 32; ++i) {
            const float w = SketchRescore<I>::quick(z[i], rate, static_cast<int32_t>(plus) - static_cast<int32_t>(minus));
            sum[i % lanes] += w;
            squares[i % lanes] += w * w;
        }
        return sum;
#endif
    }

    // Over the keys [from, to) of a block, one by one: the end of a segment, and scores that the quick form does not cover.
    static float slow_sum(const ScoreMap& m, const uint16_t* z, int g, float top, int64_t n, F& squares) {
        float sum = 0.0f;
        for (int64_t i = 0; i < n; i += lanes) {
            const int here = n - i < lanes ? static_cast<int>(n - i) : lanes;
            if (m.rate != nullptr) {
                for (int k = 0; k < here; ++k) {
                    const float w = SketchRescore<I>::quick(z[i + k], m.rate[g], m.offset[g]);
                    sum += w;
                    squares[k] += w * w;
                }
                continue;
            }
            const F x = SketchRescore<I>::score(z + i, I::set1(m.scale[g]), I::set1(m.bias[g]));
            const F w = I::select_first(here, I::template exp2<false>(SketchRescore<I>::capped(x, m.softcap) - top), F{});
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
                    const int32_t offset = m.offset[first + g];
                    const uint16_t plus = static_cast<uint16_t>(offset > 0 ? offset : 0), minus = static_cast<uint16_t>(offset < 0 ? -offset : 0);
                    acc[g] = quick_sum(z + g * 32, m.rate[first + g], plus, minus, square[g]) +
                             quick_sum(z + (m.group + g) * 32, m.rate[first + g], plus, minus, square[g]);
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

    // Bit k is set where z[k] >= key k's number in `limit`.
    static SAKUIN_INLINE uint32_t at_least(const uint16_t* z, const Keys32& limit) {
#if defined(__AVX512BW__)
        if constexpr (sizeof(Keys32) == 64 && lanes == 16)
            return _mm512_cmpge_epu16_mask(_mm512_loadu_si512(z), limit.v);
#elif defined(__AVX2__)
        if constexpr (sizeof(Keys32) == 64) {
            const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(z));
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(z + 16));
            const __m256i l = _mm256_permute2x128_si256(a, b, 0x20), h = _mm256_permute2x128_si256(a, b, 0x31);
            const __m256i low = _mm256_cmpeq_epi16(_mm256_max_epu16(l, limit.low), l);
            const __m256i high = _mm256_cmpeq_epi16(_mm256_max_epu16(h, limit.high), h);
            return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(low, high)));
        }
#else
        uint16_t l[32];
        I::store(l, limit);
        uint32_t bits = 0;
        for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(z[i] >= l[i]) << i;
        return bits;
#endif
    }

    // --- reach ----------------------------------------------------------------------------------------------------------------
    static int64_t find_reach(const Reach& a) {
        const ScoreMap& m = a.map;
        const int width = padded(m.group);
        Table16 limits[max_group];
        const float least = __builtin_log2f(a.least);
        for (int g = 0; g < m.group; ++g) limits[g] = limits_of(a, g, least);
        const int64_t lists = (a.n + list_size - 1) / list_size;
        int64_t found = 0;
        for (int64_t l = 0; l < lists; ++l) {
            const uint8_t* sizes = a.sketch + (l + 1) * a.list_bytes - 32;
            for (int half = 0; half < 2; ++half) {
                const int64_t at = l * list_size + half * 32;
                if (at >= a.n) break;
                const uint16_t* z = m.z + (2 * l + half) * m.group * 32;
                uint32_t mask = 0;
                for (int g = 0; g < m.group; ++g) {
                    const Keys32 limit = half == 0 ? I::template entries<0>(sizes, limits[g]) : I::template entries<4>(sizes, limits[g]);
                    mask |= at_least(z + g * 32, limit);
                }
                if (a.n - at < 32) mask &= (1u << (a.n - at)) - 1u;
                for (; mask != 0; mask &= mask - 1, ++found) {
                    const int k = __builtin_ctz(mask);
                    a.index[found] = static_cast<uint32_t>(at) + static_cast<uint32_t>(k);
                    a.length[found] = static_cast<uint8_t>(half == 0 ? sizes[k] & 15 : sizes[k] >> 4);
                    const uint8_t* code = a.codes + (at + k) * a.code_bytes;
                    I::prefetch_far(code);
                    I::prefetch_far(code + a.code_bytes - 1);
                    uint16_t* row = a.rows + found * width;
                    for (int g = 0; g < m.group; ++g) row[g] = z[g * 32 + k];
                    for (int g = m.group; g < width; ++g) row[g] = 0;
                }
            }
        }
        return found;
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
