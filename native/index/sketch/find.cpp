// Which keys of a `sketch` segment are scored again: those that may have a large share, one by one; or, where these are
// many, all of them in order.
#include <algorithm>

#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

// Of a segment's lists, every so many-th is looked at to foretell how many keys would be found; but at least so many.
constexpr int64_t looked_at_every = 8, least_looked_at = 8;

}  // namespace

// Of the keys from list `first` on, `n` of them.
Reach Step::reach(View& v, const float* lse, float least, int64_t first, int64_t n) {
    const SketchSegment& s = *v.segment;
    ScoreMap part = map(v);
    part.z += first * list_size * a_.group;
    return {part,
            of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes()) + first * s.shape.list_bytes(),
            s.shape.list_bytes(),
            v.sigma.data(),
            lse,
            least,
            n,
            v.index.data(),
            v.begin.data(),
            v.rows.data(),
            v.row_stride(),
            of_head(s.codes, v.head, s.n * s.shape.code_bytes) + first * list_size * s.shape.code_bytes,
            s.shape.code_bytes};
}

void Step::find(View& v, const float* lse, float least) {
    ensure_size(v.index, v.segment->n + 32);
    ensure_size(v.begin, v.lists() + 1);
    ensure_size(v.rows, v.row_stride() * (a_.group + 1));
    v.found = k_.find_reach(reach(v, lse, least, 0, v.segment->n));
}

// By the keys of some lists, whether more would be found than are worth picking. They depend on the segment and the lse
// alone, so that no number of threads decides.
template <class Many>
bool Step::looks_crowded(View& v, const float* lse, float least, const Many& many) {
    const int64_t lists = v.lists(), every = std::clamp<int64_t>(lists / least_looked_at, 1, looked_at_every);
    if (every == 1) return false;  // as quickly found
    int64_t found = 0, of = 0;
    for (int64_t l = every / 2; l < lists; l += every) {
        const int64_t n = std::min<int64_t>(v.segment->n - l * list_size, list_size);
        found += k_.find_reach(reach(v, lse, least, l, n));
        of += n;
    }
    return many(found, of);
}

// Finds the keys that are to be scored again; false if they are so many that all are better read in order.
bool Step::find(View& v) {
    if (v.by_codes) return false;
    const float *lse = head(v).lse.data(), least = a_.settings.rescore * head(v).tolerance / static_cast<float>(n_);
    const auto many = [this](int64_t found, int64_t of) {
        return static_cast<float>(found) > a_.settings.cap * static_cast<float>(of);
    };
    ensure_size(v.index, list_size + 32);
    ensure_size(v.begin, 2);
    ensure_size(v.rows, v.row_stride() * (a_.group + 1));
    if (looks_crowded(v, lse, least, many)) return false;
    find(v, lse, least);
    return !many(v.found, v.segment->n);
}

}  // namespace sakuin
