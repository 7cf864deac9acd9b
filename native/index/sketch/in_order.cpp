// Segments of which so many keys would be scored again that picking their rows costs more than reading all of them:
// every key is scored from its code and attended by its value code, in order; only the largest are read exactly.
#include <algorithm>
#include <cmath>

#include "index/sketch/exact.hpp"
#include "index/sketch/read_ahead.hpp"
#include "index/sketch/step.hpp"

namespace sakuin {

void Step::attend_all(View& v) {
    const SketchSegment& s = *v.segment;
    const Head& head = this->head(v);
    const RescoreAll codes{v.scores, v.scale.data(), group(), s.n, codes_of(v)};
    const bool scored = v.by_codes;
    if (!scored) {
        if (s.files != nullptr) s.files->ask_codes(v.head, nullptr, s.n);
        v.touched += s.n * s.shape.code_bytes + d_ * 6;
        v.by_codes = true;
    }
    if (s.files != nullptr) s.files->ask_value_codes(v.head, nullptr, s.n);
    ensure_size(v.exact.index, s.n + 16);
    v.total.resize(width_);
    v.out.assign(groups() * static_cast<size_t>(value_dim_), 0.0f);
    v.tilt.assign(v.out.size(), 0.0f);
    AttendAll a{};
    a.codes = scored ? nullptr : &codes;
    a.map = map(v);
    a.n = s.n;
    a.sketch = of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes());
    a.list_bytes = s.shape.list_bytes();
    a.lse = head.index_lse.data();
    a.share = head.share.data();
    a.exact_above = exact_above(head);
    a.value_codes = of_head(s.value_codes, v.head, s.n * s.shape.value_bytes());
    a.value_bytes = s.shape.value_bytes();
    a.value_params = of_head(s.value_params, v.head, s.n * 2);
    a.value_dim = static_cast<int>(value_dim_);
    a.exact = v.exact.index.data();
    a.total = v.total.data();
    a.squares = v.squares.data();
    a.out = v.out.data();
    attend_all_(a);
    v.exact.n = a.n_exact;
    v.coded.n = s.n - a.n_exact;
    weigh_exact(v);
    for (size_t i = 0; i < static_cast<size_t>(v.exact.n) * width_; i += width_)
        for (size_t g = 0; g < width_; ++g) v.total[g] += v.exact.weights[i + g];
    v.covered = v.total;
    add_exact(k_, s, v.head, v.exact.index.data(), v.exact.n, v.exact.weights.data(), group(), v.out.data());
    expect_noise_of_codes(v);
    if ((a_.mass != nullptr && codes_count(head)) || a_.trace_tier != nullptr) list_coded(v);
    v.touched += s.n * (s.shape.value_bytes() + 4) + exact_bytes(s, v.exact.n);
}

// Names the keys that went by their value codes, and their weights, for those who ask about single keys.
void Step::list_coded(View& v) {
    ensure_size(v.coded.index, v.segment->n);
    ensure_size(v.coded.weights, (v.segment->n + 4) * static_cast<int64_t>(width_));
    const float* lse = head(v).index_lse.data();
    const uint32_t* exact = v.exact.index.data();
    size_t n = 0;
    for (uint32_t i = 0; i < static_cast<uint32_t>(v.segment->n); ++i) {
        if (exact != v.exact.index.data() + v.exact.n && *exact == i) {
            ++exact;
            continue;
        }
        v.coded.index[n] = i;
        for (size_t g = 0; g < width_; ++g)
            v.coded.weights[n * width_ + g] =
                g < groups() ? std::exp2(cap_of(score_of(v, i, g), softcap()) - lse[g]) : 0.0f;
        ++n;
    }
}

}  // namespace sakuin
