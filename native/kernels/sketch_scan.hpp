// Kernels of the `sketch` index that go over every key: projection, look-up tables, the scan, the exponentials, and the search
// for keys that may have a large weight. Included only by the files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
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

    static SAKUIN_INLINE F score(const uint16_t* z, F scale, F bias) {
        // Through signed integers: AVX2 has no conversion from unsigned ones.
        const S whole = __builtin_convertvector(I::template read<H>(z), S);
        return I::fma(__builtin_convertvector(whole, F), scale, bias);
    }

    // cap * tanh(x / cap) by way of 2^x; `cap` and `x` are in base 2, so x / cap is the plain ratio.
    static SAKUIN_INLINE F capped(F x, float cap) {
        if (cap == 0.0f) return x;
        F y = x * (2.88539008f / cap);  // 2 log2(e)
        y = I::min(I::max(y, I::set1(-60.0f)), I::set1(60.0f));
        const F e = I::template exp2<true>(y);
        return cap * ((e - 1.0f) / (e + 1.0f));
    }

    // 2^x where x may be beyond what 2^x holds: there it is 2^127 instead of nonsense.
    static SAKUIN_INLINE F raise(F x) { return I::template exp2<false>(I::min(I::set1(127.0f), x)); }

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
        int g = 0;
        for (; g + 4 <= group; g += 4) project_tile<4>(q + g * d, basis, d, p + g * d);
        for (; g < group; ++g) project_tile<1>(q + g * d, basis, d, p + g * d);
    }

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
                const float x = p[a.coordinate[2 * s]] * a.step[2 * s] * inverse;
                const float y = second < 0 ? 0.0f : p[second] * a.step[2 * s + 1] * inverse;
                const float lift = bound(a, p, s) * inverse + 0.5f;
                uint16_t entries[16];
                for (int e = 0; e < 16; ++e) {
                    const float v = second < 0 ? x * (static_cast<float>(e) - 7.5f)
                                               : x * (static_cast<float>(e & 3) - 1.5f) + y * (static_cast<float>(e >> 2) - 1.5f);
                    const float raised = v + lift;
                    entries[e] = static_cast<uint16_t>(raised > 0.0f ? raised : 0.0f);
                }
                tables[s * a.group + g] = I::table16(entries);
                a.bias[g] -= bound(a, p, s);
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
    template <bool Cap>
    static void sums_of(const ScoreMap& m, const float* top, int64_t n, float* sums) {
        const int64_t lists = (n + list_size - 1) / list_size;
        for (int g = 0; g < m.group; ++g) {
            // Without a cap the largest score folds into the bias.
            const F scale = I::set1(m.scale[g]), bias = I::set1(Cap ? m.bias[g] : m.bias[g] - top[g]);
            for (int64_t l = 0; l < lists; ++l) {
                F sum = {};
                const int64_t left = n - l * list_size;
                for (int half = 0; half < 2; ++half) {
                    const uint16_t* z = m.z + ((2 * l + half) * m.group + g) * 32;
                    for (int i = 0; i < 32; i += lanes) {
                        F x = score(z + i, scale, bias);
                        if constexpr (Cap) x = capped(x, m.softcap) - top[g];
                        F w = I::template exp2<false>(x);
                        const int64_t here = left - half * 32 - i;
                        if (here < lanes) w = I::select_first(here < 0 ? 0 : static_cast<int>(here), w, F{});
                        sum += w;
                    }
                }
                sums[g * lists + l] = I::hsum(sum);
            }
        }
    }
    static void list_sums(const ScoreMap& m, const float* top, int64_t n, float* sums) {
        m.softcap == 0.0f ? sums_of<false>(m, top, n, sums) : sums_of<true>(m, top, n, sums);
    }

    static void weights(float* x, int64_t n, float softcap, float minus) {
        int64_t i = 0;
        for (; i < n; i += lanes) {
            const int here = n - i < lanes ? static_cast<int>(n - i) : lanes;
            const F v = here < lanes ? I::load(x + i, here) : I::load(x + i);
            const F w = raise(capped(v, softcap) - minus);
            here < lanes ? I::store(x + i, w, here) : I::store(x + i, w);
        }
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
        // A mean above `least` needs one query head above it: a test in 16-bit integers that leaves few keys to look at closely.
        Table16 low[max_group], high[max_group];
        const uint16_t none[16] = {};
        const Table16 zero = I::table16(none);
        for (int g = 0; g < m.group; ++g) {
            uint16_t limit[16];
            for (int s = 0; s < 16; ++s) limit[s] = limit_of(a, g, s);
            low[g] = I::table16(limit);
            high[g] = low[g];
        }
        const int64_t lists = (a.n + list_size - 1) / list_size;
        int64_t found = 0;
        uint32_t batch[lanes];
        int waiting = 0;
        for (int64_t l = 0; l < lists; ++l) {
            const uint8_t* sizes = a.sketch + l * a.list_bytes + a.list_bytes - 32;
            for (int half = 0; half < 2; ++half) {
                const int64_t at = l * list_size + half * 32;
                if (at >= a.n) break;
                const uint16_t* z = m.z + (2 * l + half) * m.group * 32;
                uint32_t mask = 0;
                for (int g = 0; g < m.group; ++g) {
                    const Keys32 limit = half == 0 ? I::look_up(I::keys32(0), sizes, low[g], zero)
                                                   : I::look_up(I::keys32(0), sizes, zero, high[g]);
                    mask |= at_least(z + g * 32, limit);
                }
                if (a.n - at < 32) mask &= (1u << (a.n - at)) - 1u;
                while (mask != 0) {
                    batch[waiting++] = static_cast<uint32_t>(at) + static_cast<uint32_t>(__builtin_ctz(mask));
                    mask &= mask - 1;
                    if (waiting == lanes) {
                        found = judge(a, batch, waiting, found);
                        waiting = 0;
                    }
                }
            }
        }
        return judge(a, batch, waiting, found);
    }

    // The least 16-bit score with which a key of residue length s may have a share above a.least, rounded down.
    static SAKUIN_INLINE uint16_t limit_of(const Reach& a, int g, int s) {
        if (s == 15) return 0;
        float bar = a.lse[g] + __builtin_log2f(a.least);
        if (a.map.softcap > 0.0f) {
            const float r = bar / a.map.softcap;
            if (r >= 1.0f) return 65535;
            if (r <= -1.0f) return 0;
            bar = a.map.softcap * __builtin_atanhf(r);
        }
        const float z = (bar - a.sigma[g] * static_cast<float>(s) * 0.25f - a.map.bias[g]) / a.map.scale[g] - 1.0f;
        return static_cast<uint16_t>(z <= 0.0f ? 0.0f : z >= 65535.0f ? 65535.0f : z);
    }

    static int64_t judge(const Reach& a, const uint32_t* batch, int n, int64_t found) {
        if (n == 0) return found;
        const ScoreMap& m = a.map;
        float length[lanes] = {}, x[lanes] = {};
        for (int i = 0; i < n; ++i) {
            const uint32_t k = batch[i];
            const uint8_t both = a.sketch[(k / list_size) * static_cast<uint64_t>(a.list_bytes) + static_cast<uint64_t>(a.list_bytes) - 32 + k % 32];
            length[i] = static_cast<float>((k % list_size) < 32 ? both & 15 : both >> 4);
        }
        const F quarter = I::load(length) * 0.25f;
        F sum = {};
        for (int g = 0; g < m.group; ++g) {
            for (int i = 0; i < n; ++i) x[i] = z_of(m, g, batch[i]);
            const F score = I::fma(I::load(x), I::set1(m.scale[g]), I::set1(m.bias[g]));
            sum += raise(capped(I::fma(quarter, I::set1(a.sigma[g]), score), m.softcap) - a.lse[g]);
        }
        float reach[lanes];
        I::store(reach, sum * (1.0f / static_cast<float>(m.group)));
        for (int i = 0; i < n; ++i) {
            const float r = length[i] == 15.0f ? __builtin_inff() : reach[i];
            if (r > a.least) {
                a.index[found] = batch[i];
                a.reach[found++] = r;
            }
        }
        return found;
    }

    static void gather_scores(const ScoreMap& m, const uint32_t* index, int64_t n, int64_t capacity, float* scores) {
        for (int g = 0; g < m.group; ++g) {
            const F scale = I::set1(m.scale[g]), bias = I::set1(m.bias[g]);
            for (int64_t i = 0; i < n; i += lanes) {
                float x[lanes] = {};
                const int here = n - i < lanes ? static_cast<int>(n - i) : lanes;
                for (int k = 0; k < here; ++k) x[k] = z_of(m, g, index[i + k]);
                const F v = I::fma(I::load(x), scale, bias);
                here < lanes ? I::store(scores + g * capacity + i, v, here) : I::store(scores + g * capacity + i, v);
            }
        }
    }
    static SAKUIN_INLINE float z_of(const ScoreMap& m, int g, uint32_t key) {
        return static_cast<float>(m.z[(static_cast<size_t>(key / 32) * static_cast<size_t>(m.group) + static_cast<size_t>(g)) * 32 + key % 32]);
    }
};

}  // namespace sakuin
