// The kernel of the `sketch` index that decides how precisely each found key is attended: scores it again from its code, corrects
// its list, and sorts it by its new weight. Also the exponentials of single keys. Included only by the files compiled per
// instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_codes.hpp"

namespace sakuin {

template <class I>
struct SketchRescore {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    using H = typename I::H;
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

    // See ScoreMap::rate.
    static SAKUIN_INLINE float quick(uint16_t z, uint16_t rate, int32_t offset) {
        const int32_t upper = static_cast<int32_t>((static_cast<uint32_t>(z) * rate) >> 16) + offset;
        const uint32_t bits = static_cast<uint32_t>(upper > 0 ? upper : 0) << 16;
        float f;
        __builtin_memcpy(&f, &bits, 4);
        return f;
    }
    static SAKUIN_INLINE F quick(const uint16_t* z, U rate, S offset) {
        const U product = (__builtin_convertvector(I::template read<H>(z), U) * rate) >> 16;
        const S upper = reinterpret_cast<S>(product) + offset;
        return I::as_f32(reinterpret_cast<U>(upper > 0 ? upper : S{}) << 16);
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
        by_width(group, [&]<int P>() { weights_of<P>(x, m, softcap, minus); });
    }

    static void rescore(Rescore& r) {
        by_width(r.map.group, [&]<int P>() { rescore_of<P>(r); });
    }

    template <int P>
    static void rescore_of(Rescore& r) {
        SketchCodes<I>::score(r);
        old_weights<P>(r);
        weights_of<P>(r.fresh, r.m, r.map.softcap, r.lse);
        sort<P>(r);
    }

    // The weights with which the keys stand in their lists.
    template <int P>
    static void old_weights(Rescore& r) {
        const Pattern<P, float> fold(r.fold);
        if (r.map.rate == nullptr) {
            const Pattern<P, float> scale(r.map.scale), bias(r.map.bias), top(r.top);
            for (int64_t i = 0; i < r.m * P; i += lanes) {
                const F x = capped(score(r.rows + i, I::load(scale.at(i)), I::load(bias.at(i))), r.map.softcap);
                I::store(r.old + i, raise(x - I::load(top.at(i))) * I::load(fold.at(i)));
            }
            return;
        }
        uint32_t wide[max_group];
        for (int g = 0; g < P; ++g) wide[g] = r.map.rate[g];
        const Pattern<P, uint32_t> rate(wide);
        const Pattern<P, int32_t> offset(r.map.offset);
        for (int64_t i = 0; i < r.m * P; i += lanes)
            I::store(r.old + i, quick(r.rows + i, I::load_u32(rate.at(i)), reinterpret_cast<S>(I::load_u32(offset.at(i)))) * I::load(fold.at(i)));
    }

    // Bit i is set where v[i] > limit.
    static SAKUIN_INLINE uint32_t above(F v, float limit) {
#if defined(__AVX512F__)
        if constexpr (lanes == 16) return _mm512_cmp_ps_mask(v, _mm512_set1_ps(limit), _CMP_GT_OQ);
#elif defined(__AVX2__)
        if constexpr (lanes == 8)
            return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(limit), _CMP_GT_OQ)));
#else
        uint32_t bits = 0;
        for (int i = 0; i < lanes; ++i) bits |= static_cast<uint32_t>(v[i] > limit) << i;
        return bits;
#endif
    }

    // No branches: nothing could predict them. What a key is not is written where the next one will overwrite it.
    template <int P>
    static void sort(Rescore& r) {
        constexpr int group = P > lanes ? P : lanes;  // numbers looked at together: whole keys in whole vectors
        const Pattern<P, float> share(r.share);
        const float *fresh = r.fresh, *old = r.old;
        const uint32_t* index = r.index;
        int64_t n_exact = 0, n_coded = 0;
        Squares<P> squares;
        for (int64_t i = 0; i < r.m * P; i += group) {
            uint32_t exact = 0, coded = 0;
            for (int k = 0; k < group; k += lanes) {
                const F s = I::load(fresh + i + k) * I::load(share.at(i + k));
                exact |= above(s, r.exact_above) << k;
                coded |= above(s, r.coded_above) << k;
            }
            for (int k = 0; k < group / P; ++k) {
                const int64_t key = i / P + k;
                if (key >= r.m) break;
                const uint32_t mask = ((1u << P) - 1u) << (k * P);
                const bool is_exact = (exact & mask) != 0, is_coded = (coded & mask) != 0;
                const uint32_t at = index[key];
                I::prefetch_far(r.value_codes + (is_coded ? static_cast<int64_t>(at) * r.value_bytes : 0));
                place<P>(fresh + key * P, old + key * P, !is_coded, r.in_list + static_cast<int64_t>(at / list_size) * P, r.coded_weights + n_coded * P, squares);
                r.exact[n_exact] = r.coded[n_coded] = at;
                n_exact += is_exact;
                n_coded += is_coded && !is_exact;
            }
        }
        r.n_exact = n_exact;
        r.n_coded = n_coded;
        __builtin_memcpy(r.taken, squares.taken, P * sizeof(float));
        __builtin_memcpy(r.put, squares.put, P * sizeof(float));
    }

    // Sums of squares of the weights that leave lists and that come back.
    typedef float Four __attribute__((vector_size(16)));
    template <int P>
    struct Squares {
        Four taken[P / 4] = {}, put[P / 4] = {};
    };

    template <int P>
    static SAKUIN_INLINE void place(const float* fresh, const float* old, bool stays, float* list, float* coded, Squares<P>& squares) {
        const uint32_t kept = stays ? ~0u : 0u;
#pragma GCC unroll 4
        for (int g = 0; g < P; g += 4) {  // whole vectors: plain loops over heads would be guarded against aliasing, key by key
            typedef uint32_t Bits __attribute__((vector_size(16)));
            Four f, o, l;
            __builtin_memcpy(&f, fresh + g, 16);
            __builtin_memcpy(&o, old + g, 16);
            __builtin_memcpy(&l, list + g, 16);
            const Four back = reinterpret_cast<Four>(reinterpret_cast<Bits>(f) & kept);
            l += back - o;
            squares.taken[g / 4] += o * o;
            squares.put[g / 4] += back * back;
            __builtin_memcpy(list + g, &l, 16);
            __builtin_memcpy(coded + g, &f, 16);
        }
    }

private:
    template <class Fn>
    static SAKUIN_INLINE void by_width(int group, const Fn& fn) {
        switch (padded(group)) {
            case 4: fn.template operator()<4>(); break;
            case 8: fn.template operator()<8>(); break;
            default: fn.template operator()<16>(); break;
        }
    }
};

}  // namespace sakuin
