// Which keys of a `sketch` segment are scored again:
// those that may have a large share, and not more than the cap allows.
#include <algorithm>
#include <cmath>

#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

constexpr size_t reach_steps = 2048;

}  // namespace

Reach Step::reach(View& v, const float* lse, float least) {
    const SketchSegment& s = *v.segment;
    return {map(v),
            of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes()),
            s.shape.list_bytes(),
            v.sigma.data(),
            lse,
            least,
            s.n,
            v.index.data(),
            v.begin.data(),
            v.rows.data(),
            v.row_stride(),
            of_head(s.codes, v.head, s.n * s.shape.code_bytes),
            s.shape.code_bytes};
}

void Step::find(View& v, const float* lse, float least) {
    ensure_size(v.index, v.segment->n + 32);
    ensure_size(v.begin, v.lists() + 1);
    ensure_size(v.rows, v.row_stride() * (a_.group + 1));
    v.found = k_.find_reach(reach(v, lse, least));
    v.sifted = true;
}

// While the scores are in the cache, before the lse of everything is known: by what is known of it so far, which is
// less, and so finds some keys more. What it finds beyond the rest does not depend on the order of segments, since
// `sift` takes that out.
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

// In steps of 1/16 bit above the bar of `find`, the largest share that each found key may have for a query head; the
// last step is for a residue length past the scale.
std::vector<uint16_t> Step::reach_of(const View& v) {
    const size_t m = static_cast<size_t>(v.found);
    std::vector<uint16_t> reach(m);
    std::vector<float> best(m, nothing), length(m);
    for (size_t i = 0; i < m; ++i)
        length[i] = 0.25f * static_cast<float>(v.rows[groups() * static_cast<size_t>(v.row_stride()) + i]);
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

// Keeps the keys with the largest reach where there are more than the cap allows: a histogram finds the bar, since the
// order of what is kept does not matter. All heads at hand together, so that no thread waits for another's.
void Step::limit() {
    const int64_t most =
        std::max(static_cast<int64_t>(a_.settings.cap * static_cast<float>(n_)), std::min<int64_t>(n_, 256));
    std::vector<bool> over(heads_.size());
    const auto find_over = [&] {
        for (int64_t h = from_; h < to_; ++h) {
            int64_t found = 0;
            for (size_t s = 0; s < a_.segments.size(); ++s) found += view(h, s).found;
            over[static_cast<size_t>(h)] = found > most;
        }
        return std::any_of(over.begin(), over.end(), [](bool x) { return x; });
    };
    const auto each_over = [&](const auto& fn) {
        each([&](View& v) {
            if (over[static_cast<size_t>(v.head)]) fn(v);
        });
    };
    if (!find_over()) return;
    each_over([this](View& v) { sift(v); });
    if (!find_over()) return;

    std::vector<Ranked> ranked(views_.size());
    const auto of = [&](const View& v) -> Ranked& { return ranked[static_cast<size_t>(&v - views_.data())]; };
    each_over([&](View& v) {
        Ranked& r = of(v);
        r.reach = reach_of(v);
        r.count.assign(reach_steps, 0);
        for (const uint16_t step : r.reach) ++r.count[step];
    });
    for (int64_t h = from_; h < to_; ++h) {
        if (!over[static_cast<size_t>(h)]) continue;
        const auto in_all = [&](size_t step) {
            int64_t sum = 0;
            for (size_t s = 0; s < a_.segments.size(); ++s) sum += of(view(h, s)).count[step];
            return sum;
        };
        size_t bar = reach_steps - 1;
        int64_t left = most - in_all(bar);
        for (; bar > 0; --bar) {
            const int64_t more = in_all(bar - 1);
            if (more > left) break;
            left -= more;
        }
        for (size_t s = 0; s < a_.segments.size(); ++s) {  // what is left of the cap goes to the step below the bar
            Ranked& r = of(view(h, s));
            r.bar = bar;
            r.below = bar > 0 ? std::clamp<int64_t>(left, 0, r.count[bar - 1]) : 0;
            left -= r.below;
        }
    }
    each_over([&](View& v) { keep_best(v, of(v)); });
}

void Step::keep_best(View& v, Ranked& r) {
    std::vector<uint32_t> kept(r.reach.size() + 1);
    size_t n = 0;
    uint32_t from = v.begin[0];
    for (size_t l = 0; l < static_cast<size_t>(v.lists()); ++l) {
        const uint32_t to = v.begin[l + 1];
        v.begin[l] = static_cast<uint32_t>(n);
        for (uint32_t i = from; i < to; ++i) {  // without branches: which way a key goes is hard to foretell
            const size_t step = r.reach[i];
            const int64_t at_bar = static_cast<int64_t>(step + 1 == r.bar);
            kept[n] = i;
            n +=
                static_cast<size_t>(static_cast<int64_t>(step >= r.bar) | (at_bar & static_cast<int64_t>(r.below > 0)));
            r.below -= at_bar;
        }
        from = to;
    }
    v.begin[static_cast<size_t>(v.lists())] = static_cast<uint32_t>(n);
    const auto pack = [&](auto* row) {
        for (size_t k = 0; k < n; ++k) row[k] = row[kept[k]];
    };
    pack(v.index.data());
    for (int64_t g = 0; g <= a_.group; ++g) pack(v.rows.data() + g * v.row_stride());
    v.found = static_cast<int64_t>(n);
}

}  // namespace sakuin
