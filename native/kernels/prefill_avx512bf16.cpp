// Prefill's attention with AVX-512's products of pairs of bf16 numbers.
#include <immintrin.h>

#include "kernels/prefill_attend.hpp"
#include "kernels/prefill_pack.hpp"

namespace sakuin {
namespace {

struct Dot {
    struct Session {
        Session() {}
    };

    // Sums of 8 rows and 2 x 16 columns: sums[i][h] += row i (pairs of numbers, a unit's rows) x 16 pairs of rows of
    // the two units at `columns`.
    using Sums = __m512[8][2];
    static inline __attribute__((always_inline)) void multiply(Sums& sums, const uint16_t* rows,
                                                               const uint16_t* columns) {
#pragma GCC unroll 4
        for (int p = 0; p < 16; ++p) {
            const auto a = reinterpret_cast<__m512bh>(_mm512_loadu_si512(columns + p * 32)),
                       b = reinterpret_cast<__m512bh>(_mm512_loadu_si512(columns + prefill_unit + p * 32));
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                int32_t pair;
                __builtin_memcpy(&pair, rows + i * 32 + p * 2, 4);
                const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
                sums[i][0] = _mm512_dpbf16_ps(sums[i][0], a, x);
                sums[i][1] = _mm512_dpbf16_ps(sums[i][1], b, x);
            }
        }
    }

    static void begin_scores(const uint16_t*, const uint16_t*) {}
    static void store_scores(float*) {}

    template <class Fn>
    static inline __attribute__((always_inline)) void scores(const uint16_t* q, const uint16_t* keys, int dim, float*,
                                                             float* now, Fn&& meanwhile) {
        meanwhile(32);
        products(q, keys, dim, now);
    }

    static void products(const uint16_t* q, const uint16_t* keys, int dim, float* to) {
        for (int r = 0; r < 32; r += 8) {
            Sums sums = {};
            for (int i = 0; i < dim / 32; ++i)
                multiply(sums, q + (i * 2 + r / 16) * prefill_unit + r % 16 * 32, keys + i * 2 * prefill_unit);
            for (int i = 0; i < 8; ++i)
                for (int h = 0; h < 2; ++h) _mm512_storeu_ps(to + h * 512 + (r + i) * 16, sums[i][h]);
        }
    }

    static void add_values(const uint16_t* weights, const uint16_t* values, int columns, int dim, float* out) {
        for (int i = 0; i < dim; i += 32, values += prefill_block * 32)
            for (int r = 0; r < 32; r += 8) {
                Sums sums;
                float* to = out + r * dim + i;
                for (int k = 0; k < 8; ++k)
                    for (int h = 0; h < 2; ++h) sums[k][h] = _mm512_loadu_ps(to + k * dim + h * 16);
                for (int j = 0; j < columns; ++j)
                    multiply(sums, weights + (j * 2 + r / 16) * prefill_unit + r % 16 * 32,
                             values + j * 2 * prefill_unit);
                for (int k = 0; k < 8; ++k)
                    for (int h = 0; h < 2; ++h) _mm512_storeu_ps(to + k * dim + h * 16, sums[k][h]);
            }
    }
};

}  // namespace

extern const PrefillKernels prefill_avx512bf16;
const PrefillKernels prefill_avx512bf16{"avx512bf16", &PrefillPacking<Dot>::queries, &PrefillPacking<Dot>::keys,
                                        &PrefillPacking<Dot>::values, &PrefillAttend<Dot>::attend};

}  // namespace sakuin
