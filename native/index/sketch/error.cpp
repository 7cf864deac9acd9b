// What a step knows of its own error, and what it does where a target is set (docs/method.md).
#include <algorithm>
#include <cmath>
#include <limits>

#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

// What the tilt is off by, as a share of it; measured on traces (docs/indexes.md).
constexpr float tilt_doubt = 0.75f;
// A head's thresholds are lowered no further than to this share before it is attended exactly.
constexpr float least_tolerance = 1.0f / 64.0f;

}  // namespace

// The squared error to be expected of the segment's part of `out`, if every token's error is its own: values that
// differ from their list's mean, scores that differ from their estimate, and what codes leave.
void Step::expect_noise(View& v) {
    const SketchSpread& spread = v.segment->spread[v.head];
    float coded[max_group] = {}, code[max_group];
    noise_by_code(v, code);
    for (size_t i = 0; i < static_cast<size_t>(v.coded.n) * width_; i += width_)
        for (size_t g = 0; g < width_; ++g) coded[g] += v.coded.weights[i + g] * v.coded.weights[i + g];
    v.noise.assign(width_, 0.0f);
    for (size_t g = 0; g < groups(); ++g) {
        const float slope = v.slope[g] * v.slope[g];
        const float sketch = std::expm1(std::min(v.variance[g] * slope, most_variance));
        v.noise[g] = (v.squares[g] * (1.0f + 2.0f * sketch) + v.put[g]) * spread.value +
                     coded[g] * (spread.value_code + code[g] * spread.variance);
    }
}

// The same where all weights, but the exact ones, are by codes.
void Step::expect_noise_of_codes(View& v) {
    const SketchSpread& spread = v.segment->spread[v.head];
    float code[max_group];
    noise_by_code(v, code);
    v.noise.assign(width_, 0.0f);
    for (size_t g = 0; g < groups(); ++g) v.noise[g] = v.squares[g] * (spread.value_code + code[g] * spread.variance);
}

// The mean squared error of a weight by its key's code, as a share of its square.
void Step::noise_by_code(View& v, float* by_code) {
    float unused[max_group];
    k_.moments(head(v).q.data(), v.p.data(), of_head(v.segment->mean, v.head, d_),
               of_head(v.segment->code_residue, v.head, d_), group(), static_cast<int>(d_), unused, by_code);
    for (size_t g = 0; g < groups(); ++g)
        by_code[g] = std::expm1(std::min((by_code[g] + v.rounding[g]) * v.slope[g] * v.slope[g], most_variance));
}

// What the segments found together, and how far it may be off, as a share of the whole output's length; not a number
// where nothing can be said of it.
void Step::sum_up(int64_t h) {
    Head& head = heads_[static_cast<size_t>(h)];
    const size_t d = static_cast<size_t>(value_dim_);
    head.out.assign(groups() * d, 0.0f);
    for (std::vector<float>* x : {&head.total, &head.covered, &head.error}) x->assign(width_, 0.0f);
    std::vector<float> tilt(groups() * d, 0.0f), noise(width_, 0.0f);
    for (size_t s = 0; s < a_.segments.size(); ++s) {
        const View& v = view(h, s);
        for (size_t j = 0; j < groups() * d; ++j) {
            head.out[j] += v.out[j];
            tilt[j] += v.tilt[j];
        }
        for (size_t g = 0; g < width_; ++g) {
            head.total[g] += v.total[g];
            head.covered[g] += v.covered[g];
            noise[g] += v.noise[g];
        }
    }
    for (size_t g = 0; g < groups(); ++g) {
        const float lse = head.index_lse[g] + std::log2(head.total[g]), all = log2_add(lse, static_lse(h, g));
        const float share = std::isinf(all) ? 0.0f : std::exp2(lse - all), own = share / head.total[g];
        const float* beside = a_.static_out == nullptr
                                  ? nullptr
                                  : a_.static_out + ((h * a_.group + static_cast<int64_t>(g)) * a_.t + t_) * value_dim_;
        float whole = 0.0f, shift = 0.0f;
        bool known = true;
        for (size_t j = g * d; j < (g + 1) * d; ++j) {
            const float x = beside == nullptr ? head.out[j] / head.total[g]
                                              : head.out[j] * own + beside[j - g * d] * (1.0f - share);
            known = known && std::isfinite(x);
            whole += x * x;
            shift += tilt[j] * tilt[j];
        }
        const float error = own * std::sqrt(noise[g] + tilt_doubt * tilt_doubt * shift);
        head.error[g] = !(known && std::isfinite(error)) ? std::numeric_limits<float>::quiet_NaN()
                        : error > 0.0f                   ? std::min(error / std::sqrt(whole), 1.0f)
                                                         : 0.0f;
    }
}

// Lowers the thresholds of the heads whose error may be above the target and attends them again; false if there are
// none. A head that needs more than that is left to be attended exactly.
bool Step::refine() {
    std::vector<bool> again(heads_.size(), false);
    for (size_t h = 0; h < heads_.size(); ++h) {
        Head& one = heads_[h];
        if (one.strayed) continue;
        const float most = *std::max_element(one.error.begin(), one.error.end());
        const bool known = std::none_of(one.error.begin(), one.error.end(), [](float x) { return std::isnan(x); });
        if (known && most <= a_.settings.target_error) continue;
        if (!known || one.tolerance <= least_tolerance) {
            one.strayed = true;
            continue;
        }
        const float ratio = a_.settings.target_error / most;  // errors fall about as the tolerance's power of 2 / 3
        one.tolerance = std::max(one.tolerance * std::min(ratio * std::sqrt(ratio), 0.25f), least_tolerance);
        again[h] = true;
    }
    if (std::none_of(again.begin(), again.end(), [](bool x) { return x; })) return false;
    const auto each_again = [&](const auto& fn) {
        each([&](View& v) {
            if (again[static_cast<size_t>(v.head)]) fn(v);
        });
    };
    each_again([this](View& v) {
        if (!v.by_codes) sum_lists(v);
        attend(v);
    });
    for (size_t h = 0; h < heads_.size(); ++h)
        if (again[h]) sum_up(static_cast<int64_t>(h));
    return true;
}

}  // namespace sakuin
