// The mass that keys receive, by the logits that the `flat` kernel left.
#pragma once

#include "kernels/flat_args.hpp"
#include "kernels/simd.hpp"

namespace sakuin {

template <class I>
struct FlatMass {
    using F = typename I::F;
    static constexpr int L = I::lanes;
    static constexpr float no_logit = -__builtin_inff();

    static void kept_mass(const FlatRange& a) {
        // A sum above `least` has a share above its part of it: most keys are looked at and no more.
        const float part = a.least > 0.0f ? __builtin_log2f(a.least / static_cast<float>(a.rows)) : no_logit;
        for (int64_t k = 0; k < a.n; k += L) {
            const int m = a.n - k < L ? static_cast<int>(a.n - k) : L;
            const float* z = a.logits + k;
            bool counts = a.least <= 0.0f;
            for (int64_t r = 0; r < a.rows && !counts; ++r)
                counts = I::any_above(I::load(z + r * a.logit_stride, m), a.lse[r] + part);
            if (!counts) continue;
            F total{};
            for (int64_t r = 0; r < a.rows; ++r)
                if (a.lse[r] != no_logit) total += I::exp2(I::load(z + r * a.logit_stride, m) - a.lse[r]);
            // What is not a number stays so.
            I::store(a.mass + k, I::load(a.mass + k, m) + I::max(F{}, total - a.least), m);
        }
    }
};

}  // namespace sakuin
