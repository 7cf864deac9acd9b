// Heads whose estimate turns out wrong are attended exactly: a query unlike those the index was built for costs time,
// not the answer. Also what a step reports of single tokens: their attention mass, and a trace of how each entered.
#include <algorithm>

#include "index/sketch/exact.hpp"
#include "index/sketch/read_ahead.hpp"
#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

// Bits by which an estimate may be wrong: the lse of everything too high, so that tokens were judged by too strict a
// measure; or that of the index on either side, so that weights overflow or vanish.
constexpr float astray = 3.0f, lost = 20.0f;

}  // namespace

bool Step::strayed(int64_t h) {
    const Head& head = heads_[static_cast<size_t>(h)];
    for (size_t g = 0; g < groups(); ++g) {
        float total = 0.0f;
        for (size_t s = 0; s < a_.segments.size(); ++s) total += view(h, s).total[g];
        const float off = std::log2(total), all = log2_add(head.index_lse[g] + off, static_lse(h, g));
        if (!(std::abs(off) <= lost)) return true;  // not a number included
        if (head.lse[g] - all > astray) return true;
        if (std::isnan(head.error[g])) return true;  // what was read is damaged, or too large for an estimate
    }
    return false;
}

// Weights relative to the segment's largest score, which takes the place of v.top.
void Step::attend_exactly(View& v) {
    const SketchSegment& s = *v.segment;
    const size_t n = static_cast<size_t>(s.n);
    const SketchFiles::Reading reading(s.files);
    if (s.files != nullptr) s.files->ask_exact(v.head, nullptr, s.n);
    ensure_size(v.exact.index, s.n);
    for (size_t i = 0; i < n; ++i) v.exact.index[i] = static_cast<uint32_t>(i);
    v.exact.n = s.n;
    ensure_size(v.exact.weights, (s.n + 4) * static_cast<int64_t>(width_));
    v.coded.n = 0;
    float* w = v.exact.weights.data();
    score_exact(k_, s, v.head, head(v).q.data(), v.exact.index.data(), s.n, group(), w);
    v.top.assign(width_, -nothing);
    for (size_t g = 0; g < groups(); ++g) {
        float most = nothing;
        for (size_t i = 0; i < n; ++i) most = std::max(most, w[i * width_ + g]);
        v.top[g] = cap_of(most, softcap());
    }
    k_.weights(w, s.n, group(), softcap(), v.top.data());
    v.in_list.assign(v.in_list.size(), 0.0f);
    v.noise.assign(width_, 0.0f);
    v.tilt.assign(groups() * static_cast<size_t>(value_dim_), 0.0f);
    add_up(v);
    v.touched += exact_bytes(s, s.n);
}

// Brings the segments of a head that was attended exactly to one scale.
void Step::join_exact(int64_t h) {
    Head& head = heads_[static_cast<size_t>(h)];
    for (size_t g = 0; g < groups(); ++g) {
        float& most = head.index_lse[g];
        most = nothing;
        for (size_t s = 0; s < a_.segments.size(); ++s) most = std::max(most, view(h, s).top[g]);
        for (size_t s = 0; s < a_.segments.size(); ++s) {
            View& v = view(h, s);
            const float scale = std::exp2(v.top[g] - most);
            for (size_t i = 0; i < static_cast<size_t>(v.exact.n); ++i) v.exact.weights[i * width_ + g] *= scale;
            float* out = v.out.data() + static_cast<int64_t>(g) * value_dim_;
            for (int64_t j = 0; j < value_dim_; ++j) out[j] *= scale;
            v.total[g] *= scale;
            v.covered[g] = v.total[g];
        }
    }
}

// Whether a key that went by its codes may have enough for `mass`. By the estimate of the lse no query head gave it
// what is attended exactly, and where that is too high by more than `astray`, all is.
bool Step::codes_count(const Head& head) const {
    return exact_above(head) * std::exp2(astray) * static_cast<float>(a_.group) >= a_.mass_least;
}

// `share` (padded): what a weight is multiplied by to be a share of the whole softmax.
void Step::write_mass(const View& v, const Tier& tier, const std::vector<float>& share) {
    const uint16_t* order = of_head(v.segment->order, v.head, v.segment->n);
    float* mass = a_.mass + v.head * a_.mass_stride + v.first;
    for (size_t i = 0; i < static_cast<size_t>(tier.n); ++i) {
        float sum = 0.0f;
        for (size_t g = 0; g < groups(); ++g) sum += tier.weights[i * width_ + g] * share[g];
        if (!(sum <= a_.mass_least)) mass[order[tier.index[i]]] += sum - a_.mass_least;
    }
}

// Every key's share by its best score, and how it entered.
void Step::write_trace(View& v, const std::vector<float>& share) {
    const uint16_t* order = of_head(v.segment->order, v.head, v.segment->n);
    float* tier = a_.trace_tier + (v.head * a_.t + t_) * n_ + v.first;
    float* weight = a_.trace_weight + (v.head * a_.t + t_) * n_ + v.first;
    const std::vector<float>& lse = head(v).index_lse;
    const auto put = [&](size_t key, float how, const auto& weight_of) {
        float sum = 0.0f;
        for (size_t g = 0; g < groups(); ++g) sum += weight_of(g) * share[g];
        weight[order[key]] = sum / static_cast<float>(a_.group);
        tier[order[key]] = how;
    };
    for (size_t i = 0; i < static_cast<size_t>(v.segment->n); ++i)
        put(i, 0.0f, [&](size_t g) { return std::exp2(cap_of(score_of(v, i, g), softcap()) - lse[g]); });
    for (size_t i = 0; i < static_cast<size_t>(v.by_codes ? 0 : v.found); ++i)
        put(v.index[i], 1.0f, [&](size_t g) { return v.fresh[g * static_cast<size_t>(v.stride) + i]; });
    for (size_t i = 0; i < static_cast<size_t>(v.coded.n); ++i)
        put(v.coded.index[i], 2.0f, [&](size_t g) { return v.coded.weights[i * width_ + g]; });
    for (size_t i = 0; i < static_cast<size_t>(v.exact.n); ++i)
        put(v.exact.index[i], 3.0f, [&](size_t g) { return v.exact.weights[i * width_ + g]; });
}

}  // namespace sakuin
