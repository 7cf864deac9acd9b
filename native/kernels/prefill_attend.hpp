// The attention of prefill over packed queries, keys and values (prefill_args.hpp), for the units that multiply them: M
// has `Session`, held while any of it runs, `scores` and `add_values`. AVX-512 with BF16 and VBMI.
//
// Scores of a tile and a column are made one step ahead of the softmax of the column before, so that both kinds of
// units are busy. The softmax does not follow the greatest score: bf16 and fp32 have the exponents for weights of up to
// 2^most, and a tile whose sums pass that is done again with another shift. What is exact stays exact.
#pragma once

#include <immintrin.h>

#include "kernels/prefill_args.hpp"

namespace sakuin {

// at[f / 4]: how far 1 + f / 256 is above 2^(f / 256), in units of 1 / 256.
struct PrefillBend {
    uint8_t at[64];
};
constexpr PrefillBend prefill_bend() {
    PrefillBend bend{};
    for (int i = 0; i < 64; ++i) {
        const double f = (i * 4 + 0.5) / 256.0;  // the middle of 4, less the unit that rounding has added
        double power = 1.0, term = 1.0;
        for (int k = 1; k < 20; ++k) {
            term *= f * 0.693147180559945309 / k;
            power += term;
        }
        bend.at[i] = static_cast<uint8_t>((1.0 + f - power) * 256.0 + 0.5);
    }
    return bend;
}

template <class M>
class PrefillAttend {
    static constexpr int rows = prefill_tile, column_scores = 32 * 32, block_columns = prefill_block / 32;
    static constexpr int most_tiles = prefill_most_tiles;
    static constexpr float most = 0x1p60f, unit = 256.0f, magic = 0x1.8p23f;

    struct Constants {
        __m512i bend, quarter, magic_bits;
        __m512bh ones;
        __m512 factor, cap;
        Constants(float f, float c) {
            static constexpr PrefillBend table = prefill_bend();
            bend = _mm512_loadu_si512(table.at);
            quarter = _mm512_set1_epi64(0x3a322a221a120a02);  // byte i: the 8 bits from bit 8 i + 2 on
            magic_bits = _mm512_castps_si512(_mm512_set1_ps(magic));
            ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
            factor = _mm512_set1_ps(f);
            cap = _mm512_set1_ps(c);
        }
    };

    // What one tile and one block of keys are worked on with.
    struct Work {
        alignas(64) float scores[2][column_scores];  // of a column: [half of the keys][32 rows][16]
        alignas(64) uint16_t weights[block_columns][2 * prefill_unit];
        alignas(64) float sums[rows * 16];
        alignas(64) float base[rows];  // unit * (127 - shift) + 1, see `weigh_row`
    };

    static inline __attribute__((always_inline)) int least_of(int a, int b) { return a < b ? a : b; }
    static inline __attribute__((always_inline)) int greatest_of(int a, int b) { return a > b ? a : b; }

public:
    static void attend(const PrefillStep& p) {
        const typename M::Session session;
        p.softcap > 0.0f ? run<true>(p) : run<false>(p);
    }

private:
    template <bool Capped>
    static void run(const PrefillStep& p) {
        const Constants c(unit * 1.44269504f * (Capped ? p.softcap : p.scaling),
                          Capped ? 2.0f * 1.44269504f * p.scaling / p.softcap : 0.0f);
        Work w;
        int least[most_tiles], greatest[most_tiles];
        for (int i = 0; i < p.tiles; ++i) {
            least[i] = greatest[i] = p.seen[i * rows];
            for (int r = 1; r < rows; ++r) {
                least[i] = least_of(least[i], p.seen[i * rows + r]);
                greatest[i] = greatest_of(greatest[i], p.seen[i * rows + r]);
            }
        }
        for (int start = 0; start < p.columns; start += block_columns)
            for (int tile = 0; tile < p.tiles; ++tile) {
                const int columns = least_of(block_columns, least_of(p.columns, (greatest[tile] + 31) / 32) - start);
                if (columns <= 0) continue;
                const Piece x{p, tile, start, columns};
                if (p.first && start == 0) shift<Capped>(x, c, w, 1, ~0u);
                const bool masked = least[tile] < (start + columns) * 32;
                weigh<Capped>(x, c, w, masked);
                if (overflown(w)) [[unlikely]] {
                    shift<Capped>(x, c, w, columns, overflown_rows(w));
                    weigh<Capped>(x, c, w, masked);
                }
                float* sum = p.sum + tile * rows * 16;
                for (int i = 0; i < rows * 16; i += 16)
                    _mm512_storeu_ps(sum + i, _mm512_add_ps(_mm512_loadu_ps(sum + i), _mm512_load_ps(w.sums + i)));
                M::add_values(w.weights[0], x.values(), columns, p.value_dim, p.out + tile * rows * p.value_dim);
            }
    }

    struct Piece {
        const PrefillStep& p;
        int tile, start, columns;

        const uint16_t* q() const { return p.q + int64_t{tile} * rows * p.dim; }
        const uint16_t* keys(int column) const { return p.keys + int64_t{start + column} * 32 * p.dim; }
        const uint16_t* values() const { return p.values + int64_t{start} * 32 * p.value_dim; }
        const int32_t* seen() const { return p.seen + tile * rows; }
    };

    template <bool Capped>
    static void weigh(const Piece& x, const Constants& c, Work& w, bool masked) {
        masked ? weigh<Capped, true>(x, c, w) : weigh<Capped, false>(x, c, w);
    }

    template <bool Capped, bool Masked>
    static void weigh(const Piece& x, const Constants& c, Work& w) {
        const float* shifts = x.p.shift + x.tile * rows;
        for (int r = 0; r < rows; r += 16)
            _mm512_store_ps(w.base + r, _mm512_fnmadd_ps(_mm512_loadu_ps(shifts + r), _mm512_set1_ps(unit),
                                                         _mm512_set1_ps(magic + unit * 127.0f + 1.0f)));
        __builtin_memset(w.sums, 0, sizeof w.sums);
        const int n = x.columns;
        // Scores take their time to arrive: those of column j are stored while column j + 1 is multiplied, and weighed
        // while column j + 2 is.
        Rows<Capped, Masked> softmax{c, w.base, w.sums, x.seen()};
        M::begin_scores(x.q(), x.keys(0));
        M::scores(x.q(), x.keys(0), x.p.dim, nullptr, w.scores[0], Nothing{});
        if (n > 1) M::scores(x.q(), x.keys(1), x.p.dim, w.scores[0], w.scores[1], Nothing{});
        for (int j = 2; j < n; ++j) {
            softmax.begin(w.scores[j & 1], w.weights[j - 2], (x.start + j - 2) * 32);
            M::scores(x.q(), x.keys(j), x.p.dim, w.scores[(j - 1) & 1], w.scores[j & 1], softmax);
        }
        M::store_scores(w.scores[(n - 1) & 1]);
        for (int j = greatest_of(0, n - 2); j < n; ++j) {
            softmax.begin(w.scores[j & 1], w.weights[j], (x.start + j) * 32);
            softmax(rows);
        }
    }

    struct Nothing {
        void operator()(int) const {}
    };

    // Weighs the rows of a column, some at each call. 2^z with z in units of 1 / 256 is, as an integer, the bits of a
    // number in bf16 (and one bit more) whose mantissa is only to be bent. The sum is of the weights as they are
    // rounded.
    template <bool Capped, bool Masked>
    struct Rows {
        Constants c;
        const float* base;
        float* sums;
        const int32_t* seen;
        const float* scores = nullptr;
        uint16_t* weights = nullptr;
        int first_key = 0, next = 0;

        inline __attribute__((always_inline)) void begin(const float* from, uint16_t* to, int key) {
            scores = from;
            weights = to;
            first_key = key;
            next = 0;
        }

        inline __attribute__((always_inline)) void operator()(int many) {
            const int end = least_of(rows, next + many);
            for (; next < end; ++next) {
                const float* s = scores + next * 16;
                __m512 a = _mm512_load_ps(s), b = _mm512_load_ps(s + 512);
                if constexpr (Capped) {
                    a = capped(a, c);
                    b = capped(b, c);
                }
                const __m512 from = _mm512_set1_ps(base[next]);
                const __m512i low = whole(_mm512_fmadd_ps(a, c.factor, from), c),
                              high = whole(_mm512_fmadd_ps(b, c.factor, from), c);
                const __m512i linear = _mm512_packus_epi32(low, high);  // too small: 0; too great: no number at last
                const __m512i bend = _mm512_maskz_permutexvar_epi8(
                    0x5555555555555555u, _mm512_multishift_epi64_epi8(c.quarter, linear), c.bend);
                __m512i weight = _mm512_srli_epi16(_mm512_subs_epu16(linear, bend), 1);
                if constexpr (Masked) {
                    const int shown = least_of(32, greatest_of(0, seen[next] - first_key));
                    weight = _mm512_maskz_mov_epi16(_bzhi_u32(~0u, static_cast<uint32_t>(shown)), weight);
                }
                _mm512_store_si512(weights + next * 32, weight);
                float* sum = sums + next * 16;
                _mm512_store_ps(sum, _mm512_dpbf16_ps(_mm512_load_ps(sum), reinterpret_cast<__m512bh>(weight), c.ones));
            }
        }
    };

    // The whole number that was added to `magic`.
    static inline __attribute__((always_inline)) __m512i whole(__m512 x, const Constants& c) {
        return _mm512_sub_epi32(_mm512_castps_si512(x), c.magic_bits);
    }

    // tanh(s * scaling / softcap)
    static __m512 capped(__m512 s, const Constants& c) {
        const __m512 limit = _mm512_set1_ps(40.0f);
        const __m512 z =
            _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), limit), _mm512_min_ps(limit, _mm512_mul_ps(s, c.cap)));
        const __m512 whole = _mm512_roundscale_ps(z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        const __m512 f = _mm512_sub_ps(z, whole);
        __m512 e = _mm512_set1_ps(1.5403530e-4f);
        constexpr float rest[] = {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f};
        for (const float k : rest) e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(k));
        e = _mm512_scalef_ps(e, whole);
        const __m512 one = _mm512_set1_ps(1.0f);
        return _mm512_div_ps(_mm512_sub_ps(e, one), _mm512_add_ps(e, one));
    }

    // Whether weights have passed what is allowed, or are no numbers; and of which rows.
    static bool overflown(const Work& w) {
        __m512 all = _mm512_load_ps(w.sums);
        for (int r = 1; r < rows; ++r) all = _mm512_add_ps(all, _mm512_load_ps(w.sums + r * 16));
        return _mm512_cmp_ps_mask(all, _mm512_set1_ps(most), _CMP_NLE_UQ) != 0;
    }
    static uint32_t overflown_rows(const Work& w) {
        uint32_t over = 0;
        for (int r = 0; r < rows; ++r)
            over |= uint32_t{!(_mm512_reduce_add_ps(_mm512_load_ps(w.sums + r * 16)) <= most / rows)} << r;
        return over;
    }

    // Raises the shift of the rows in `which` to their greatest score in the first `columns` columns of the piece.
    template <bool Capped>
    static void shift(const Piece& x, const Constants& c, Work& w, int columns, uint32_t which) {
        const float nothing = -__builtin_inff();
        float greatest[rows];
        for (float& g : greatest) g = nothing;
        const __m512i keys = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        M::begin_scores(x.q(), x.keys(0));
        for (int j = 0; j < columns; ++j) {
            M::scores(x.q(), x.keys(j), x.p.dim, nullptr, w.scores[0], Nothing{});
            M::store_scores(w.scores[0]);
            for (int r = 0; r < rows; ++r)
                for (int half = 0; half < 2; ++half) {
                    __m512 s = _mm512_load_ps(w.scores[0] + half * 512 + r * 16);
                    if constexpr (Capped) s = capped(s, c);
                    const __mmask16 shown =
                        _mm512_cmplt_epi32_mask(keys, _mm512_set1_epi32(x.seen()[r] - (x.start + j) * 32 - half * 4));
                    const __m512 z = _mm512_mask_mul_ps(_mm512_set1_ps(nothing), shown, s, c.factor);
                    const float most_here = _mm512_reduce_max_ps(z) / unit;
                    if (most_here > greatest[r]) greatest[r] = most_here;
                }
        }
        for (int r = 0; r < rows; ++r) {
            if ((which >> r & 1u) == 0 || !__builtin_isfinite(greatest[r])) continue;
            // Whole units, as `weigh` takes it.
            const float next = __builtin_rintf(greatest[r] * unit) / unit;
            float& old = x.p.shift[x.tile * rows + r];
            if (x.p.first && x.start == 0) {
                old = next;
            } else if (next > old) {
                const __m512 down = _mm512_set1_ps(__builtin_exp2f(old - next));
                float *sum = x.p.sum + (x.tile * rows + r) * 16, *out = x.p.out + (x.tile * rows + r) * x.p.value_dim;
                _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), down));
                for (int i = 0; i < x.p.value_dim; i += 16)
                    _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_loadu_ps(out + i), down));
                old = next;
            }
        }
    }
};

}  // namespace sakuin
