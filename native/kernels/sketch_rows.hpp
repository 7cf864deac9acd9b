// Kernels of the `sketch` index that read single rows: scores from true keys, weighted sums of value codes and of
// true values. Included only by the files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"

namespace sakuin {

template <class I>
struct SketchRows {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    static constexpr int lanes = I::lanes;
    static constexpr int parts = 16 / lanes;          // vectors that hold one chunk of 16 numbers
    static constexpr int tile = lanes == 16 ? 8 : 4;  // query heads whose sums stay in registers together
    static constexpr int ahead = 12;                  // rows that are fetched before they are needed

    // 16 numbers of 4 bits: number l stands in word l % 2 of 32 bits at bit 4 * (l / 2) (see SketchCodes).
    static SAKUIN_INLINE void unpack4(const uint8_t* p, F (&x)[parts]) {
        typedef uint64_t L __attribute__((vector_size(lanes * 4)));
        uint64_t two;
        __builtin_memcpy(&two, p, 8);
        const U w = reinterpret_cast<U>(L{} + two);
        U shift;
        for (int i = 0; i < lanes; ++i) shift[i] = static_cast<uint32_t>(4 * (i / 2));
        for (int h = 0; h < parts; ++h)
            x[h] = __builtin_convertvector(
                reinterpret_cast<S>((w >> (shift + static_cast<uint32_t>(h * lanes * 2))) & 15u), F);
    }

    static SAKUIN_INLINE float bf16(uint16_t v) {
        const uint32_t bits = static_cast<uint32_t>(v) << 16;
        float f;
        __builtin_memcpy(&f, &bits, 4);
        return f;
    }

    // --- sums across lanes -------------------------------------------------------------------------------------------
    // to[g] += the sum of acc[g]; `to` has room for 4 numbers for up to 4 vectors, for 8 for more,
    // to which nothing is added.
    template <int G>
    static SAKUIN_INLINE void reduce(const F (&acc)[G], float* to) {
        constexpr int N = G <= 4 ? 4 : 8;
        F x[N];
        for (int g = 0; g < N; ++g) x[g] = g < G ? acc[g < G ? g : 0] : F{};
#if defined(__AVX512F__)
        if constexpr (lanes == 16) {
            __m512 quads[N / 4];  // in each 128-bit lane: parts of four sums
            for (int k = 0; k < N / 4; ++k) {
                const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(x[4 * k], x[4 * k + 1]),
                                               _mm512_unpackhi_ps(x[4 * k], x[4 * k + 1]));
                const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(x[4 * k + 2], x[4 * k + 3]),
                                               _mm512_unpackhi_ps(x[4 * k + 2], x[4 * k + 3]));
                quads[k] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
            }
            for (int k = 0; k < N / 4; ++k) {
                const __m256 half =
                    _mm256_add_ps(_mm512_castps512_ps256(quads[k]), _mm512_extractf32x8_ps(quads[k], 1));
                const __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
                _mm_storeu_ps(to + 4 * k, _mm_add_ps(_mm_loadu_ps(to + 4 * k), sum));
            }
        }
#elif defined(__AVX2__)
        if constexpr (lanes == 8)
            for (int k = 0; k < N / 4; ++k) {
                const __m256 a = _mm256_hadd_ps(x[4 * k], x[4 * k + 1]), b = _mm256_hadd_ps(x[4 * k + 2], x[4 * k + 3]);
                const __m256 q = _mm256_hadd_ps(a, b);
                const __m128 sum = _mm_add_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1));
                _mm_storeu_ps(to + 4 * k, _mm_add_ps(_mm_loadu_ps(to + 4 * k), sum));
            }
#else
        for (int g = 0; g < N; ++g) to[g] += I::hsum(x[g]);
#endif
    }

    // --- scores ------------------------------------------------------------------------------------------------------
    template <int G, DType T>
    static void score_rows_tile(const float* q, const void* keys, int d, const uint32_t* index, int64_t m, int width,
                                int first, float* scores) {
        q += first * d;
        for (int64_t i = 0; i < m; ++i) {
            const int64_t at = static_cast<int64_t>(index[i]) * d;
            if (i + ahead < m) prefetch_row<T>(keys, static_cast<int64_t>(index[i + ahead]) * d, d);
            F acc[G] = {};
            for (int j = 0; j < d; j += lanes) {
                const int here = d - j < lanes ? d - j : lanes;
                const F x = number<T>(keys, at + j, here);
                for (int g = 0; g < G; ++g)
                    acc[g] = I::fma(x, here < lanes ? I::load(q + g * d + j, here) : I::load(q + g * d + j), acc[g]);
            }
            reduce<G>(acc, scores + i * width + first);
        }
    }
    static void score_rows(const float* q, const void* keys, DType dtype, int d, const uint32_t* index, int64_t m,
                           int group, float* scores) {
        const int width = padded(group);
        for (int64_t i = 0; i < m * width; ++i) scores[i] = 0.0f;
        in_tiles(group, [&]<int G>(int first) {
            by_dtype(dtype, [&]<DType T>() { score_rows_tile<G, T>(q, keys, d, index, m, width, first, scores); });
        });
    }

    // --- weighted sums -----------------------------------------------------------------------------------------------
    // A tile of query heads times two vectors of dimensions stays in registers while all rows pass.
    template <int G, DType T>
    static void add_rows_tile(const void* rows, int d, const uint32_t* index, int64_t m, const float* weights,
                              int width, float* out) {
        for (int j = 0; j < d; j += 2 * lanes) {
            const int a = d - j < lanes ? d - j : lanes, b = d - j - lanes <= 0      ? 0
                                                             : d - j - lanes < lanes ? d - j - lanes
                                                                                     : lanes;
            F x[G] = {}, y[G] = {};
            for (int64_t i = 0; i < m; ++i) {
                const int64_t at = (index != nullptr ? static_cast<int64_t>(index[i]) : i) * d + j;
                if (index != nullptr && j == 0 && i + ahead < m)
                    prefetch_row<T>(rows, static_cast<int64_t>(index[i + ahead]) * d, d);
                const F u = number<T>(rows, at, a), v = b > 0 ? number<T>(rows, at + lanes, b) : F{};
                for (int g = 0; g < G; ++g) {
                    const F w = I::set1(weights[i * width + g]);
                    x[g] = I::fma(w, u, x[g]);
                    y[g] = I::fma(w, v, y[g]);
                }
            }
            for (int g = 0; g < G; ++g) {
                add_to(out + g * d + j, x[g], a);
                if (b > 0) add_to(out + g * d + j + lanes, y[g], b);
            }
        }
    }
    static void add_rows(const void* rows, DType dtype, int d, const uint32_t* index, int64_t m, const float* weights,
                         int group, float* out) {
        in_tiles(group, [&]<int G>(int first) {
            by_dtype(dtype, [&]<DType T>() {
                add_rows_tile<G, T>(rows, d, index, m, weights + first, padded(group), out + first * d);
            });
        });
    }

    template <int G>
    static void add_value_codes_tile(const uint8_t* codes, int64_t row_bytes, const uint16_t* params, int d,
                                     const uint32_t* index, int64_t m, const float* weights, int width, float* out) {
        constexpr int64_t batch = 64;      // rows whose scaled weights fit beside what they are multiplied with
        constexpr int N = G <= 4 ? 4 : 8;  // whole vectors of weights: what fills a tile up is read and not used
        const auto row = [&](int64_t i) { return index != nullptr ? static_cast<int64_t>(index[i]) : i; };
        float scaled[batch * N], base[N] = {};
        for (int64_t from = 0; from < m; from += batch) {
            const int64_t rows = m - from < batch ? m - from : batch;
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t k = row(from + i);
                const float low = bf16(params[2 * k]), step = bf16(params[2 * k + 1]);
                const float* w = weights + (from + i) * width;
                for (int g = 0; g < N; ++g) base[g] += w[g] * low;
                for (int g = 0; g < N; ++g) scaled[i * N + g] = w[g] * step;
                I::prefetch(codes + k * row_bytes);
            }
            for (int j = 0; j < d; j += 16) {
                F x[G * parts] = {};
                for (int64_t i = 0; i < rows; ++i) {
                    F c[parts];
                    unpack4(codes + row(from + i) * row_bytes + j / 2, c);
                    for (int g = 0; g < G; ++g)
                        for (int h = 0; h < parts; ++h)
                            x[g * parts + h] = I::fma(I::set1(scaled[i * N + g]), c[h], x[g * parts + h]);
                }
                // By way of memory: with anything less plain after the loop, GCC keeps the sums in memory inside it.
                float sums[G * 16];
                for (int k = 0; k < G * parts; ++k) I::store(sums + k * lanes, x[k]);
                for (int g = 0; g < G; ++g)
                    for (int k = 0; k < 16 && j + k < d; ++k) out[g * d + j + k] += sums[g * 16 + k];
            }
        }
        for (int g = 0; g < G; ++g)
            for (int j = 0; j < d; ++j) out[g * d + j] += base[g];
    }
    static void add_value_codes(const uint8_t* codes, int64_t row_bytes, const uint16_t* params, int d,
                                const uint32_t* index, int64_t m, const float* weights, int group, float* out) {
        in_tiles(group, [&]<int G>(int first) {
            add_value_codes_tile<G>(codes, row_bytes, params, d, index, m, weights + first, padded(group),
                                    out + first * d);
        });
    }

private:
    template <DType T>
    static SAKUIN_INLINE F number(const void* rows, int64_t at, int n) {
        if constexpr (T == DType::f32) {
            const float* p = static_cast<const float*>(rows) + at;
            return n < lanes ? I::load(p, n) : I::load(p);
        } else if constexpr (T == DType::i8) {
            const int8_t* p = static_cast<const int8_t*>(rows) + at;
            return n < lanes ? I::load_i8(p, n) : I::load_i8(p);
        } else {
            const uint16_t* p = static_cast<const uint16_t*>(rows) + at;
            if (n < lanes) {
                uint16_t part[lanes] = {};
                __builtin_memcpy(part, p, static_cast<size_t>(n) * 2);
                return T == DType::bf16 ? I::load_bf16(part) : I::load_fp16(part);
            }
            return T == DType::bf16 ? I::load_bf16(p) : I::load_fp16(p);
        }
    }
    template <DType T>
    static SAKUIN_INLINE void prefetch_row(const void* rows, int64_t at, int d) {
        constexpr int64_t size = dtype_size(T);
        const char* p = static_cast<const char*>(rows) + at * size;
        for (int64_t b = 0; b < d * size; b += 64) I::prefetch(p + b);
    }
    static SAKUIN_INLINE void add_to(float* p, F v, int n) {
        if (n < lanes)
            I::store(p, I::load(p, n) + v, n);
        else
            I::store(p, I::load(p) + v);
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

public:
    template <class Fn>
    static SAKUIN_INLINE void in_tiles(int group, const Fn& fn) {
        for (int g = 0; g < group; g += tile) switch (group - g < tile ? group - g : tile) {
                case 1: fn.template operator()<1>(g); break;
                case 2: fn.template operator()<2>(g); break;
                case 3: fn.template operator()<3>(g); break;
                case 4: fn.template operator()<4>(g); break;
                case 5:
                    if constexpr (tile == 8) fn.template operator()<5>(g);
                    break;
                case 6:
                    if constexpr (tile == 8) fn.template operator()<6>(g);
                    break;
                case 7:
                    if constexpr (tile == 8) fn.template operator()<7>(g);
                    break;
                case 8:
                    if constexpr (tile == 8) fn.template operator()<8>(g);
                    break;
            }
    }
};

}  // namespace sakuin
