// The `flat` kernel: exact attention of a group's query rows over a range of row-major keys and values, in one pass
// over both.
//
// Keys go in blocks of 64. A block is transposed once, so that keys lie in lanes (two bf16 numbers or four of 8 bits
// travel as one 32-bit unit) and a logit needs no horizontal sum; the transposed block serves every row. Then online
// softmax over the lanes, then values with dimensions in lanes and the weights broadcast. All sums are fp32. bf16
// values are accumulated as (even, odd) pairs and put in order at the end.
#pragma once

#include "kernels/flat_args.hpp"
#include "kernels/flat_keys.hpp"
#include "kernels/simd.hpp"

namespace sakuin {

template <class I>
struct Flat : FlatKeys<I> {
    using FlatKeys<I>::padded_units;
    using FlatKeys<I>::transpose_keys;
    using FlatKeys<I>::units;
    using F = typename I::F;
    using U = typename I::U;
    static constexpr int L = I::lanes;
    static constexpr int strip = 2 * L;  // dimensions of a value that are accumulated at a time
    static constexpr int64_t block = 64;
    static constexpr float no_logit = -__builtin_inff();

    static int64_t padded_dim(int64_t d) { return (d + strip - 1) / strip * strip; }
    struct Work {
        float *transposed, *logits, *packed, *sums, *acc;
    };
    static Work work(const FlatRange& a) {
        Work w{};
        w.transposed = a.scratch;
        w.logits = w.transposed + padded_units(a) * block;
        w.packed = w.logits + I::row_tile * block;
        w.sums = w.packed + (a.rows * a.head_dim + 15) / 16 * 16;
        w.acc = w.sums + a.rows * L;
        return w;
    }
    static size_t scratch(const FlatRange& a) {
        return static_cast<size_t>(padded_units(a) * block + I::row_tile * block + a.rows * a.head_dim + 16 +
                                   a.rows * (L + padded_dim(a.value_dim)));
    }

    // --- rows go in tiles of nearly equal size -----------------------------------------------------------------------
    static int64_t tile_count(int64_t rows) { return (rows + I::row_tile - 1) / I::row_tile; }
    static int64_t tile_begin(int64_t rows, int64_t tile) {
        const int64_t tiles = tile_count(rows), base = rows / tiles, extra = rows % tiles;
        return tile * base + (tile < extra ? tile : extra);
    }

    // Calls f.template operator()<R>() for the R of 1 .. row_tile that equals `rows`.
    template <int R = I::row_tile, class Fn>
    static SAKUIN_INLINE void with_rows(int64_t rows, Fn&& f) {
        if (rows == R) {
            f.template operator()<R>();
        } else if constexpr (R > 1) {
            with_rows<R - 1>(rows, f);
        }
    }

    // Query rows of each tile, interleaved: [dimension][row of the tile], or [pair of dimensions][row] as bf16.
    static void pack(const FlatRange& a, float* packed) {
        const bool pairs = I::has_bf16_dot && a.q_is_bf16 && a.dtype == DType::bf16;
        for (int64_t t = 0; t < tile_count(a.rows); ++t) {
            const int64_t r0 = tile_begin(a.rows, t), r1 = tile_begin(a.rows, t + 1);
            float* to = packed + r0 * a.head_dim;
            if (pairs) {
                for (int64_t j = 0; j < a.head_dim; j += 2)
                    for (int64_t r = r0; r < r1; ++r) {
                        const float* q = a.q + r * a.head_dim + j;
                        const uint32_t first = __builtin_bit_cast(uint32_t, q[0]),
                                       second = __builtin_bit_cast(uint32_t, q[1]);
                        *to++ = __builtin_bit_cast(float, (second & 0xffff0000u) | first >> 16);
                    }
            } else {
                for (int64_t j = 0; j < a.head_dim; ++j)
                    for (int64_t r = r0; r < r1; ++r) *to++ = a.q[r * a.head_dim + j];
            }
        }
    }

    // --- logits: z[r][key] for R rows and G groups of L keys ---------------------------------------------------------
    template <DType T, int R, int G, bool Pairs>
    static SAKUIN_INLINE void dot(const float* keys, int64_t n_units, int64_t group_size, const float* q,
                                  const float* bias, float scale, float* z, const char* ahead) {
        constexpr int lines = G * L / 16;  // of the keys that one round's units come from
        F acc[R][G] = {};
        if constexpr (T == DType::i8)
            for (int r = 0; r < R; ++r)
                for (int g = 0; g < G; ++g) acc[r][g] = I::set1(bias[r]);
        for (int64_t u = 0; u < n_units; ++u) {
            F k[G];
#pragma GCC unroll 4
            for (int i = 0; i < lines; ++i) I::prefetch_far(ahead + (u * lines + i) * 64);
            if constexpr (Pairs) {
                U pair[G];
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) pair[g] = I::load_u32(keys + g * group_size + u * L);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const U b = I::as_u32(I::set1(q[u * R + r]));
#pragma GCC unroll 4
                    for (int g = 0; g < G; ++g) acc[r][g] = I::dot_bf16(acc[r][g], pair[g], b);
                }
            } else if constexpr (T == DType::bf16) {
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) k[g] = I::bf16_first(I::load_u32(keys + g * group_size + u * L));
                multiply<R, G>(acc, k, q + 2 * u * R);
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) k[g] = I::bf16_second(I::load_u32(keys + g * group_size + u * L));
                multiply<R, G>(acc, k, q + (2 * u + 1) * R);
            } else if constexpr (T == DType::i8) {
                multiply_i8<0, R, G>(acc, keys, group_size, u, q);
                multiply_i8<1, R, G>(acc, keys, group_size, u, q);
                multiply_i8<2, R, G>(acc, keys, group_size, u, q);
                multiply_i8<3, R, G>(acc, keys, group_size, u, q);
            } else {
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) k[g] = I::load(keys + g * group_size + u * L);
                multiply<R, G>(acc, k, q + u * R);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) I::store(z + r * block + g * L, acc[r][g] * scale);
    }
    template <int R, int G>
    static SAKUIN_INLINE void multiply(F (&acc)[R][G], const F (&k)[G], const float* q) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const F b = I::set1(q[r]);
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) acc[r][g] = I::fma(k[g], b, acc[r][g]);
        }
    }
    template <int N, int R, int G>
    static SAKUIN_INLINE void multiply_i8(F (&acc)[R][G], const float* keys, int64_t group_size, int64_t u,
                                          const float* q) {
        F k[G];
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) k[g] = I::template i8_number<N>(I::load_u32(keys + g * group_size + u * L));
        multiply<R, G>(acc, k, q + (4 * u + N) * R);
    }
    // Enough independent sums to hide the latency of a multiply-add, few enough to stay in registers.
    template <int R>
    static constexpr int key_groups = L == 16 ? (R <= 4 ? 4 : 2) : (R <= 2 ? 4 : 2);

    template <DType T, int R>
    static void logits(const FlatRange& a, const float* keys, int64_t groups, const float* q, const float* bias,
                       float* z, const char* ahead) {
        if constexpr (T == DType::bf16 && I::has_bf16_dot)
            if (a.q_is_bf16) return all_dots<T, R, true>(a, keys, groups, q, bias, z, ahead);
        all_dots<T, R, false>(a, keys, groups, q, bias, z, ahead);
    }
    template <DType T, int R, bool Pairs>
    static SAKUIN_INLINE void all_dots(const FlatRange& a, const float* keys, int64_t groups, const float* q,
                                       const float* bias, float* z, const char* ahead) {
        const int64_t n_units = units(a), group_size = padded_units(a) * L;
        for (int64_t g = 0; g < groups; g += key_groups<R>)
            dot<T, R, key_groups<R>, Pairs>(keys + g * group_size, n_units, group_size, q, bias, a.scale, z + g * L,
                                            ahead + g * L * a.head_dim * dtype_size(T));
        if (a.softcap != 0.0f)
            for (int r = 0; r < R; ++r)
                for (int64_t g = 0; g < groups; ++g) cap(z + r * block + g * L, a.softcap);
    }
    static SAKUIN_INLINE void cap(float* x, float softcap) {
        constexpr float log2_e = 1.44269504f;
        // tanh(20) is 1 in fp32; the bound keeps the exponential finite.
        const F e = I::exp2(I::min(I::set1(20.0f), I::load(x)) * (2.0f * log2_e));
        I::store(x, (e - 1.0f) / (e + 1.0f) * (softcap * log2_e));
    }

    // --- online softmax of one row over one block: logits become weights ---------------------------------------------
    // `sums` are L partial sums of the weights; acc (width) the values weighted so far.
    static SAKUIN_INLINE void softmax(float* z, int64_t groups, int64_t sees, float& max, float* sums, float* acc,
                                      int64_t width) {
        if (sees < groups * L) {
            for (int64_t g = 0; g < groups; ++g) {
                int64_t k = sees - g * L;
                k = k < 0 ? 0 : k > L ? L : k;
                I::store(z + g * L, I::select_first(static_cast<int>(k), I::load(z + g * L), I::set1(no_logit)));
            }
        }
        F top = I::load(z);
        for (int64_t g = 1; g < groups; ++g) top = I::max(top, I::load(z + g * L));
        // Rare: a horizontal maximum at every block would cost more than all the rest here.
        if (I::any_above(top, max)) {
            const float block_max = I::hmax(top), shrink = scalar_exp2(max - block_max);
            max = block_max;
            I::store(sums, I::load(sums) * shrink);
            for (int64_t j = 0; j < width; j += L) I::store(acc + j, I::load(acc + j) * shrink);
        }
        const float shift = max == no_logit ? 0.0f : max;  // a row that sees nothing yet: 2^-inf = 0, not NaN
        F total = I::load(sums);
        for (int64_t g = 0; g < groups; ++g) {
            const F p = I::exp2(I::load(z + g * L) - shift);
            I::store(z + g * L, p);
            total += p;
        }
        I::store(sums, total);
    }
    static SAKUIN_INLINE float scalar_exp2(float x) { return I::exp2(I::set1(x))[0]; }

    // Once the weights are summed up: a value is its numbers times its scale.
    static SAKUIN_INLINE void scale_weights(float* p, const float* scale, int64_t n) {
        for (int64_t k = 0; k < n; k += L) {
            const int m = n - k < L ? static_cast<int>(n - k) : L;
            I::store(p + k, I::load(p + k) * I::load(scale + k, m));
        }
    }

    // --- values: acc[r] += sum over keys of weight[r][key] * value[key], for S strips of 2 L dimensions --------------
    template <DType T>
    static SAKUIN_INLINE void load_strip(const void* row, int64_t dim, int64_t n, F& a, F& b) {
        if constexpr (T == DType::bf16) {
            const uint16_t* p = static_cast<const uint16_t*>(row) + dim;
            const U v = n == strip ? I::load_u32(p) : I::load_u32(p, static_cast<int>(n / 2));
            a = I::bf16_first(v);
            b = I::bf16_second(v);
        } else if constexpr (T == DType::fp16) {
            const uint16_t* p = static_cast<const uint16_t*>(row) + dim;
            a = n >= L ? I::load_fp16(p) : I::load_fp16(p, static_cast<int>(n));
            b = n == strip ? I::load_fp16(p + L) : n > L ? I::load_fp16(p + L, static_cast<int>(n - L)) : F{};
        } else if constexpr (T == DType::i8) {
            const int8_t* p = static_cast<const int8_t*>(row) + dim;
            a = n >= L ? I::load_i8(p) : I::load_i8(p, static_cast<int>(n));
            b = n == strip ? I::load_i8(p + L) : n > L ? I::load_i8(p + L, static_cast<int>(n - L)) : F{};
        } else {
            const float* p = static_cast<const float*>(row) + dim;
            a = n >= L ? I::load(p) : I::load(p, static_cast<int>(n));
            b = n == strip ? I::load(p + L) : n > L ? I::load(p + L, static_cast<int>(n - L)) : F{};
        }
    }

    template <DType T, int R, int S>
    static SAKUIN_INLINE void weigh(const char* rows, int64_t row_bytes, int64_t n, int64_t dim, int64_t dims,
                                    const float* p, float* acc, int64_t width) {
        F sum[R][2 * S];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < 2 * S; ++s) sum[r][s] = I::load(acc + r * width + dim + s * L);
        for (int64_t k = 0; k < n; ++k) {
            const char* row = rows + k * row_bytes;
            F v[2 * S];
#pragma GCC unroll 4
            for (int s = 0; s < S; ++s) {
                load_strip<T>(row, dim + s * strip, S == 1 ? dims : strip, v[2 * s], v[2 * s + 1]);
                I::prefetch_far(row + block * row_bytes + (dim + s * strip) * dtype_size(T));
            }
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const F b = I::set1(p[r * block + k]);
#pragma GCC unroll 8
                for (int s = 0; s < 2 * S; ++s) sum[r][s] = I::fma(v[s], b, sum[r][s]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int s = 0; s < 2 * S; ++s) I::store(acc + r * width + dim + s * L, sum[r][s]);
    }
    template <int R>
    static constexpr int strips = R == 1                          ? 4
                                  : R == 2 || (R <= 4 && L == 16) ? 2
                                                                  : 1;

    template <DType T, int R>
    static void values(const FlatRange& a, int64_t first, int64_t n, const float* p, float* acc) {
        const int64_t width = padded_dim(a.value_dim), row_bytes = a.value_stride * dtype_size(T);
        const char* rows = static_cast<const char*>(a.values) + first * row_bytes;
        for (int64_t b = 0; b < n * row_bytes; b += 64) I::prefetch(rows + b);
        int64_t dim = 0;
        for (; a.value_dim - dim >= strips<R> * strip; dim += strips<R> * strip)
            weigh<T, R, strips<R>>(rows, row_bytes, n, dim, strip, p, acc, width);
        for (; a.value_dim - dim >= strip; dim += strip) weigh<T, R, 1>(rows, row_bytes, n, dim, strip, p, acc, width);
        if (dim < a.value_dim) weigh<T, R, 1>(rows, row_bytes, n, dim, a.value_dim - dim, p, acc, width);
    }

    // --- the whole range ---------------------------------------------------------------------------------------------
    template <DType T, class Fn>
    static SAKUIN_INLINE void each_block(const FlatRange& a, const Work& w, Fn&& tile) {
        // A block of 32 keeps long rows and their transposed copy in the first-level cache.
        const int64_t keys = a.head_dim * dtype_size(T) > 256 ? 32 : 64;
        int64_t end = a.n;
        if (a.visible != nullptr) {
            end = 0;
            for (int64_t r = 0; r < a.rows; ++r) end = a.visible[r] - a.first > end ? a.visible[r] - a.first : end;
            end = end < a.n ? end : a.n;
        }
        for (int64_t first = 0; first < end; first += keys) {
            const int64_t n = end - first < keys ? end - first : keys;
            const int64_t step = L == 16 ? 2 : 4, least = (n + L - 1) / L;
            const int64_t groups = n == keys ? keys / L : (least + step - 1) / step * step;
            FlatKeys<I>::template transpose_keys<T>(a, first, n, groups, w.transposed);
            for (int64_t t = 0; t < tile_count(a.rows); ++t) {
                const int64_t r0 = tile_begin(a.rows, t), r1 = tile_begin(a.rows, t + 1);
                with_rows(r1 - r0, [&]<int R>() {
                    constexpr int64_t g = key_groups<R>;
                    const int64_t padded = (groups + g - 1) / g * g;
                    logits<T, R>(a, w.transposed, padded, w.packed + r0 * a.head_dim,
                                 a.bias + (T == DType::i8 ? r0 : 0), w.logits,
                                 static_cast<const char*>(a.keys) + (first + keys) * a.key_stride * dtype_size(T));
                    tile.template operator()<R>(r0, first, n, padded);
                });
            }
        }
    }
    static SAKUIN_INLINE int64_t sees(const FlatRange& a, int64_t row, int64_t first, int64_t n) {
        if (a.visible == nullptr) return n;
        const int64_t left = a.visible[row] - a.first - first;
        return left < 0 ? 0 : left < n ? left : n;
    }

    static SAKUIN_INLINE void keep(const float* z, int64_t n, float* to) {
        int64_t k = 0;
        for (; k + L <= n; k += L) I::store(to + k, I::load(z + k));
        if (k < n) I::store(to + k, I::load(z + k), static_cast<int>(n - k));
    }

    template <DType T>
    static void range_of(const FlatRange& a) {
        const Work w = work(a);
        const int64_t width = padded_dim(a.value_dim);
        pack(a, w.packed);
        for (int64_t r = 0; r < a.rows; ++r) {
            a.max[r] = no_logit;
            I::store(w.sums + r * L, F{});
        }
        for (int64_t i = 0; i < a.rows * width; ++i) w.acc[i] = 0.0f;
        each_block<T>(a, w, [&]<int R>(int64_t r0, int64_t first, int64_t n, int64_t groups) {
            float* acc = w.acc + r0 * width;
            for (int r = 0; r < R; ++r) {
                if (a.logits != nullptr)
                    keep(w.logits + r * block, sees(a, r0 + r, first, n), a.logits + (r0 + r) * a.logit_stride + first);
                softmax(w.logits + r * block, groups, sees(a, r0 + r, first, n), a.max[r0 + r], w.sums + (r0 + r) * L,
                        acc + r * width, width);
                if constexpr (T == DType::i8) scale_weights(w.logits + r * block, a.value_scale + first, n);
            }
            values<T, R>(a, first, n, w.logits, acc);
        });
        for (int64_t r = 0; r < a.rows; ++r) {
            a.sum[r] = I::hsum(I::load(w.sums + r * L));
            for (int64_t j = 0; j < a.value_dim; ++j) {
                const int64_t s = j / strip * strip, i = j % strip;
                a.out[r * a.value_dim + j] = w.acc[r * width + (T == DType::bf16 ? s + i / 2 + (i % 2) * L : j)];
            }
        }
    }

    template <DType T>
    static void mass_of(const FlatRange& a) {
        const Work w = work(a);
        pack(a, w.packed);
        each_block<T>(a, w, [&]<int R>(int64_t r0, int64_t first, int64_t n, int64_t) {
            for (int r = 0; r < R; ++r) {
                const float lse = a.lse[r0 + r];
                if (lse == no_logit) continue;
                const int64_t seen = sees(a, r0 + r, first, n);
                for (int64_t k = 0; k < seen; k += L) {
                    const int m = seen - k < L ? static_cast<int>(seen - k) : L;
                    const F share = I::exp2(I::load(w.logits + r * block + k) - lse);
                    I::store(a.mass + first + k, I::load(a.mass + first + k, m) + share, m);
                }
            }
        });
    }

    template <class Fn>
    static SAKUIN_INLINE void by_dtype(DType t, const Fn& fn) {
        switch (t) {
            case DType::f32: fn.template operator()<DType::f32>(); break;
            case DType::bf16: fn.template operator()<DType::bf16>(); break;
            case DType::fp16: fn.template operator()<DType::fp16>(); break;
            case DType::i8: fn.template operator()<DType::i8>(); break;
        }
    }
    static void range(const FlatRange& a) {
        by_dtype(a.dtype, [&]<DType T>() { range_of<T>(a); });
    }
    static void mass(const FlatRange& a) {
        by_dtype(a.dtype, [&]<DType T>() { mass_of<T>(a); });
    }
};

}  // namespace sakuin
