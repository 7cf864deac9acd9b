// Which keys of a `sketch` segment are scored again: those that may have a large share, and not more than the cap allows.
#include <algorithm>
#include <cmath>

#include "index/sketch_step.hpp"

namespace sakuin {
namespace {

constexpr size_t reach_steps = 2048;

}  // namespace

Reach Step::reach(View& v, const float* lse, float least) {
    const SketchSegment& s = *v.segment;
    return {map(v), of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes()), s.shape.list_bytes(), v.sigma.data(), lse, least, s.n, v.index.data(), v.begin.data(),
            v.rows.data(), v.row_stride(), of_head(s.codes, v.head, s.n * s.shape.code_bytes), s.shape.code_bytes};
}

void Step::find(View& v, const float* lse, float least) {
    make_room(v.index, v.segment->n + 32);
    make_room(v.begin, v.lists() + 1);
    make_room(v.rows, v.row_stride() * (a_.group + 1));
    v.found = k_.find_reach(reach(v, lse, least));
    v.sifted = true;
}

// While the scores are in the cache, before the lse of everything is known: by what is known of it so far, which is less, and so
// finds some keys more. What it finds beyond the rest does not depend on the order of segments, since `sift` takes that out.
void Step::find_beforehand(View& v) {
    // More than rounding can make of sums of as many segments, in whatever order.
    const float margin = 0.01f, relative = static_cast<float>(a_.segments.size()) * 0x1p-23f;
    float lse[max_group];
    {
        Head& head = this->head(v);
        const std::lock_guard lock(head.mutex);
        for (size_t g = 0; g < groups(); ++g) head.so_far[g] = log2_add(head.so_far[g], v.top[g] + std::log2(v.sum[g]));
        for (size_t g = 0; g < width_; ++g) lse[g] = head.so_far[g] - margin - relative * std::abs(head.so_far[g]);
    }
    find(v, lse, rescored_above(head(v)));
    v.sifted = false;
}

void Step::sift(View& v) {
    if (!v.sifted) v.found = k_.filter_reach(reach(v, head(v).lse.data(), rescored_above(head(v))), v.found);
    v.sifted = true;
}

// In steps of 1/16 bit above the bar of `find`, the largest share that each found key may have for a query head; the last step is
// for a residue length past the scale.
std::vector<uint16_t> Step::reach_of(const View& v) {
    const size_t m = static_cast<size_t>(v.found);
    std::vector<uint16_t> reach(m);
    std::vector<float> best(m, nothing), length(m);
    for (size_t i = 0; i < m; ++i) length[i] = 0.25f * static_cast<float>(v.rows[groups() * static_cast<size_t>(v.row_stride()) + i]);
    const Head& head = heads_[static_cast<size_t>(v.head)];
    const float bar = std::log2(rescored_above(head)), cap = softcap();
    for (size_t g = 0; g < groups(); ++g) {
        const float below = head.lse[g] + bar;
        const uint16_t* row = v.rows.data() + static_cast<int64_t>(g) * v.row_stride();
        for (size_t i = 0; i < m; ++i) {
            float x = static_cast<float>(row[i]) * v.scale[g] + v.bias[g] + length[i] * v.sigma[g];
            if (cap > 0.0f) x = cap_of(x, cap);
            x -= below;
            best[i] = x > best[i] ? x : best[i];
        }
    }
    for (size_t i = 0; i < m; ++i) {
        const float step = std::min(std::max(best[i] * 16.0f, 0.0f), static_cast<float>(reach_steps - 2));
        reach[i] = static_cast<uint16_t>(length[i] == 3.75f ? static_cast<float>(reach_steps - 1) : step);
    }
    return reach;
}

// Keeps the keys with the largest reach where there are more than the cap allows.
void Step::limit(int64_t h) {
    const int64_t most = std::max(static_cast<int64_t>(a_.cap * static_cast<float>(n_)), std::min<int64_t>(n_, 256));
    int64_t found = 0;
    const auto count_found = [&] {
        found = 0;
        for (size_t s = 0; s < a_.segments.size(); ++s) found += view(h, s).found;
    };
    count_found();
    if (found <= most) return;
    parallel_for(static_cast<int64_t>(a_.segments.size()), a_.n_threads, [&](int64_t s) { sift(view(h, static_cast<size_t>(s))); });
    count_found();
    if (found <= most) return;
    // A histogram finds the bar: the order of what is kept does not matter.
    std::vector<std::vector<uint16_t>> reach(a_.segments.size());
    parallel_for(static_cast<int64_t>(reach.size()), a_.n_threads, [&](int64_t s) { reach[static_cast<size_t>(s)] = reach_of(view(h, static_cast<size_t>(s))); });
    std::vector<int64_t> count(reach_steps, 0);
    for (const auto& of_segment : reach)
        for (const uint16_t r : of_segment) ++count[r];
    size_t bar = reach_steps - 1;
    int64_t room = most - count[bar];  // what is left of the cap goes to the step below the bar
    for (; bar > 0 && count[bar - 1] <= room; --bar) room -= count[bar - 1];
    for (size_t s = 0; s < a_.segments.size(); ++s) {
        View& v = view(h, s);
        uint32_t kept = 0;
        int64_t list = 0;
        for (size_t i = 0; i < reach[s].size(); ++i) {
            for (; list < v.lists() && v.begin[static_cast<size_t>(list)] <= i; ++list) v.begin[static_cast<size_t>(list)] = kept;
            const size_t r = reach[s][i];
            if (r < bar && (r + 1 != bar || room-- <= 0)) continue;
            v.index[kept] = v.index[i];
            for (int64_t g = 0; g <= a_.group; ++g) v.rows[static_cast<size_t>(g * v.row_stride() + kept)] = v.rows[static_cast<size_t>(g * v.row_stride()) + i];
            ++kept;
        }
        for (; list <= v.lists(); ++list) v.begin[static_cast<size_t>(list)] = kept;
        v.found = kept;
    }
}

}  // namespace sakuin
