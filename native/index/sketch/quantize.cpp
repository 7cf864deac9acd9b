#include "index/sketch/quantize.hpp"

#include <array>
#include <cmath>
#include <numeric>

namespace sakuin {
namespace {

// Mean squared error of a good quantizer of 0, 2, 4 and 8 bits on a unit Gaussian: only decides where bits go.
constexpr float distortion_2 = 0.119f, distortion_4 = 0.0115f, distortion_8 = 0.00009f;

// Half-widths of a uniform quantizer in standard deviations, of which the best is taken:
// heavy tails need the wide ones.
constexpr std::array<float, 9> ranges_2{1.5f, 1.8f, 2.2f, 2.7f, 3.3f, 4.0f, 5.0f, 7.0f, 10.0f};
constexpr std::array<float, 9> ranges_4{1.8f, 2.2f, 2.6f, 3.2f, 4.0f, 5.0f, 7.0f, 10.0f, 14.0f};
constexpr std::array<float, 9> ranges_8{2.0f, 3.0f, 4.6f, 6.5f, 9.0f, 13.0f, 18.0f, 25.0f, 35.0f};

}  // namespace

std::vector<uint8_t> encode(const SealKernels& k, const Quantizer& q, std::span<float> x) {
    std::vector<uint8_t> codes(x.size());
    k.encode(x.data(), static_cast<int64_t>(x.size()), q.inverse(), q.step, q.most() * 0.5f, codes.data());
    return codes;
}

float mean_square(const SealKernels& k, std::span<const float> x) {
    return k.squares(x.data(), static_cast<int64_t>(x.size())) / static_cast<float>(x.size());
}

Quantizer best_quantizer(const SealKernels& k, std::span<const float> x, int bits) {
    const float deviation = std::sqrt(mean_square(k, x));
    if (!(deviation > 0.0f)) return {bits, 0.0f};
    Quantizer best{bits, 0.0f};
    float least = HUGE_VALF;
    for (const float range : bits == 2 ? ranges_2 : bits == 4 ? ranges_4 : ranges_8) {
        const Quantizer q{bits, 2.0f * range * deviation / static_cast<float>(1 << bits)};
        if (!(q.step > 1e-30f) || !std::isfinite(q.step)) continue;  // 1 / step must be a number
        // Inside the range errors are as if spread evenly over a step, beyond it they count from the outermost code.
        const float edge = 0.5f * (q.most() + 1.0f) * q.step, square = q.step * q.step;
        const float beyond = k.beyond(x.data(), static_cast<int64_t>(x.size()), edge, edge - 0.5f * q.step);
        const float error = square * square / 80.0f + beyond / static_cast<float>(x.size());
        if (error >= least) break;  // the first term only grows from here, the second only falls
        least = error;
        best = q;
    }
    return best;
}

// Reverse water-filling: two bits at a time to the coordinate where they remove most error. Gains fall along a
// coordinate, so the best `2 * subs` steps of all are what the greedy choice takes.
std::vector<int> sketch_bits(std::span<const float> energy, int64_t subs) {
    struct Step {
        float gain;
        size_t coordinate;
    };
    std::vector<Step> steps;
    for (size_t j = 0; j < energy.size(); ++j) {
        if (!(energy[j] > 0.0f)) continue;
        steps.push_back({energy[j] * (1.0f - distortion_2), j});
        steps.push_back({energy[j] * (distortion_2 - distortion_4), j});
    }
    std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.gain > b.gain; });
    std::vector<int> bits(energy.size(), 0);
    for (size_t i = 0; i < std::min(steps.size(), static_cast<size_t>(2 * subs)); ++i) bits[steps[i].coordinate] += 2;
    return bits;
}

CodePlan plan_codes(std::span<const float> energy, int64_t row_bytes) {
    const int chunks = static_cast<int>(energy.size() / 16);
    std::vector<double> before(static_cast<size_t>(chunks) + 1, 0.0);
    for (int c = 0; c < chunks; ++c)
        before[static_cast<size_t>(c) + 1] =
            std::accumulate(energy.begin() + c * 16, energy.begin() + (c + 1) * 16, before[static_cast<size_t>(c)]);
    const auto sum = [&](int from, int to) {
        return before[static_cast<size_t>(to)] - before[static_cast<size_t>(from)];
    };
    CodePlan best;
    double least = HUGE_VAL;
    for (int e = 0; e <= chunks && e * 16 <= row_bytes; ++e)
        for (int f = 0; e + f <= chunks && e * 16 + f * 8 <= row_bytes; ++f) {
            const int t = static_cast<int>(std::min<int64_t>(chunks - e - f, (row_bytes - e * 16 - f * 8) / 4));
            const double error = sum(0, e) * static_cast<double>(distortion_8) +
                                 sum(e, e + f) * static_cast<double>(distortion_4) +
                                 sum(e + f, e + f + t) * static_cast<double>(distortion_2) + sum(e + f + t, chunks);
            if (error < least) {
                least = error;
                best = {e, f, t};
            }
        }
    return best;
}

}  // namespace sakuin
