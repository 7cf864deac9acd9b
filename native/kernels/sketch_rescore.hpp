// The kernel of the `sketch` index that decides how precisely each found key is attended: scores it again from its
// code, corrects its list, and sorts it by its new weight. Also the exponentials of single keys. Included only by the
// files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_codes.hpp"
#include "kernels/sketch_rows.hpp"

namespace sakuin {

template <class I>
struct SketchRescore {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    using H = typename I::H;
    static constexpr int lanes = I::lanes;
    static constexpr int past_scale = 15;  // quarters: the largest residue length that is kept

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

    // See ScoreMap::rate.
    static SAKUIN_INLINE float quick(uint16_t z, uint16_t floor, uint16_t rate, uint16_t plus) {
        const uint32_t bits = ((z > floor ? static_cast<uint32_t>(z - floor) : 0u) * rate + plus) << 16;
        float f;
        __builtin_memcpy(&f, &bits, 4);
        return f;
    }
    static SAKUIN_INLINE F quick(const uint16_t* z, S floor, U rate, U plus) {
        const S above = __builtin_convertvector(I::template read<H>(z), S) - floor;
        // Below 2^15 all of them, so products of signed halves do.
        return I::as_f32((I::add_halves(plus, reinterpret_cast<U>(above > 0 ? above : S{}), rate)) << 16);
    }

    // A constant per query head, repeated over the vectors that hold whole keys.
    template <int P, class T>
    struct Pattern {
        static constexpr int length = P > lanes ? P : lanes;
        T v[length];
        explicit Pattern(const T* heads) {
            for (int i = 0; i < length; ++i) v[i] = heads[i % P];
        }
        SAKUIN_INLINE const T* at(int64_t i) const { return v + i % length; }
    };

    template <int P>
    static void weights_of(float* x, int64_t m, float softcap, const float* minus) {
        const Pattern<P, float> below(minus);
        for (int64_t i = 0; i < m * P; i += lanes)
            I::store(x + i, raise(capped(I::load(x + i), softcap) - I::load(below.at(i))));
    }
    static void weights(float* x, int64_t m, int group, float softcap, const float* minus) {
        switch (padded(group)) {
            case 4: weights_of<4>(x, m, softcap, minus); break;
            case 8: weights_of<8>(x, m, softcap, minus); break;
            default: weights_of<16>(x, m, softcap, minus); break;
        }
    }

    static void rescore(Rescore& r) {
        SketchCodes<I>::score(r);
        // Keys past the scale of lengths are unlike those that the code was made for:
        // it may be nats off where they matter most.
        const uint16_t* lengths = r.rows + r.map.group * r.row_stride;
        for (int64_t i = 0; i < r.m; i += lanes) {
            const S length = __builtin_convertvector(I::template read<H>(lengths + i), S);
            I::store(r.best + i, I::as_f32(reinterpret_cast<U>(length >= past_scale) &
                                           reinterpret_cast<U>(I::set1(__builtin_inff()))));
        }
        for (int g = 0; g < r.map.group; ++g) weigh(r, g);
        sort(r);
        for (int g = 0; g < padded(r.map.group); ++g) r.taken[g] = r.put[g] = 0.0f;
        SketchRows<I>::in_tiles(r.map.group, [&]<int G>(int first) { correct_lists<G>(r, first); });
    }

private:
    // One query head's weights: by its new scores, and those with which its keys stand in their lists.
    static void weigh(const Rescore& r, int g) {
        float *fresh = r.fresh + g * r.stride, *old = r.old + g * r.stride;
        const uint16_t* z = r.rows + g * r.row_stride;
        const F lse = I::set1(r.lse[g]), share = I::set1(r.share[g]);
        for (int64_t i = 0; i < r.m; i += lanes) {
            const F w = raise(capped(I::load(fresh + i), r.map.softcap) - lse);
            I::store(fresh + i, w);
            I::store(r.best + i, I::max(w * share, I::load(r.best + i)));
        }
        const F fold = I::set1(r.fold[g]);
        if (r.map.rate == nullptr) {
            const F scale = I::set1(r.map.scale[g]), bias = I::set1(r.map.bias[g]);
            for (int64_t i = 0; i < r.m; i += lanes)
                I::store(old + i, raise(capped(score(z + i, scale, bias), r.map.softcap) - r.top[g]) * fold);
            return;
        }
        const S floor = S{} + static_cast<int32_t>(r.map.floor[g]);
        const U rate = U{} + static_cast<uint32_t>(r.map.rate[g]), plus = U{} + static_cast<uint32_t>(r.map.plus[g]);
        for (int64_t i = 0; i < r.m; i += lanes) I::store(old + i, quick(z + i, floor, rate, plus) * fold);
    }

    static void sort(Rescore& r) {
        int64_t n_exact = 0, n_coded = 0;
        for (int64_t i = 0; i < r.m; i += lanes) {
            const F best = I::load(r.best + i);
            uint32_t exact = I::mask_above(best, r.exact_above), coded = I::mask_above(best, r.coded_above) & ~exact;
            if (r.m - i < lanes) {
                const uint32_t here = (1u << (r.m - i)) - 1u;
                exact &= here;
                coded &= here;
            }
            const U index = I::load_u32(r.index + i);
            n_exact += I::keep(r.exact + n_exact, index, exact);
            const int64_t from = n_coded;
            n_coded += I::keep(r.coded + n_coded, index, coded);
            for (int64_t k = from; coded != 0; coded &= coded - 1, ++k) {
                const int64_t at = i + __builtin_ctz(coded);
                I::prefetch_far(r.value_codes + static_cast<int64_t>(r.coded[k]) * r.value_bytes);
                float* to = r.coded_weights + k * padded(r.map.group);
                for (int g = 0; g < r.map.group; ++g) to[g] = r.fresh[g * r.stride + at];
                for (int g = r.map.group; g < padded(r.map.group); ++g) to[g] = 0.0f;
            }
        }
        r.n_exact = n_exact;
        r.n_coded = n_coded;
    }

    // Takes found keys out of their lists, and puts back those that stay by their new weight.
    template <int G>
    static void correct_lists(const Rescore& r, int first) {
        const int width = padded(r.map.group);
        F taken[G] = {}, put[G] = {};
        for (int64_t l = 0; l < r.lists; ++l) {
            const int64_t end = r.begin[l + 1];
            if (r.begin[l] == end) continue;
            F change[G] = {};
            for (int64_t i = r.begin[l]; i < end; i += lanes) {
                const int here = end - i < lanes ? static_cast<int>(end - i) : lanes;
                const F best = I::load(r.best + i);
                const U in_list = reinterpret_cast<U>(I::iota() < S{} + here),
                        stays = in_list & ~reinterpret_cast<U>(best > r.coded_above);
                for (int g = 0; g < G; ++g) {
                    const F back = I::as_f32(I::load_u32(r.fresh + (first + g) * r.stride + i) & stays);
                    const F old = I::as_f32(I::load_u32(r.old + (first + g) * r.stride + i) & in_list);
                    change[g] += back - old;
                    taken[g] = I::fma(old, old, taken[g]);
                    put[g] = I::fma(back, back, put[g]);
                }
            }
            SketchRows<I>::template reduce<G>(change, r.in_list + l * width + first);
        }
        SketchRows<I>::template reduce<G>(taken, r.taken + first);
        SketchRows<I>::template reduce<G>(put, r.put + first);
    }
};

}  // namespace sakuin
