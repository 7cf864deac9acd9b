// Query groups of more heads than the kernels take at a time (max_group) are attended in parts of nearly equal size:
// each part by itself, as if its heads were the group. Internal to native/index.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "index/arithmetic.hpp"
#include "kernels/sketch_args.hpp"

namespace sakuin {

// How the group of each KV head is cut. Arrays of all query heads are (heads * group, t, width), of a part
// (heads * size, t, width).
class GroupParts {
public:
    GroupParts(int64_t heads, int64_t group, int64_t t)
        : heads_(heads), group_(group), t_(t), count_((group + max_group - 1) / max_group) {}

    int64_t count() const { return count_; }
    int64_t size(int64_t part) const { return begin(part + 1) - begin(part); }
    int64_t rows(int64_t part) const { return heads_ * size(part) * t_; }
    // Of the group's query heads those of the part, as a share.
    float share(int64_t part) const { return static_cast<float>(size(part)) / static_cast<float>(group_); }

    // The part's rows of `all`, which may be null.
    template <class T>
    std::vector<T> take(const T* all, int64_t width, int64_t part) const {
        std::vector<T> taken;
        if (all == nullptr) return taken;
        taken.resize(at(rows(part) * width));
        const int64_t n = size(part) * t_ * width;
        for (int64_t h = 0; h < heads_; ++h) std::copy_n(all + offset(h, part) * width, n, taken.data() + h * n);
        return taken;
    }
    template <class T>
    void put(const std::vector<T>& from, int64_t width, int64_t part, T* all) const {
        const int64_t n = size(part) * t_ * width;
        for (int64_t h = 0; h < heads_; ++h) std::copy_n(from.data() + h * n, n, all + offset(h, part) * width);
    }

    // Adds a part's numbers of KV heads, (heads, t, width), by its share: so they become means over query heads.
    void add_share(const std::vector<float>& from, int64_t part, float* all) const {
        for (size_t i = 0; i < from.size(); ++i) all[i] += share(part) * from[i];
    }

private:
    int64_t begin(int64_t part) const { return group_ * part / count_; }
    int64_t offset(int64_t head, int64_t part) const { return (head * group_ + begin(part)) * t_; }

    int64_t heads_, group_, t_, count_;
};

inline const float* or_null(const std::vector<float>& x) { return x.empty() ? nullptr : x.data(); }

// `attend` for a call of many query heads (a RowCall with more to it).
template <class Call, class Attend>
void attend_in_parts(Call& a, const Attend& attend) {
    const GroupParts parts(a.heads, a.group, a.t);
    a.touched_bytes = 0;
    std::fill_n(a.exact_share, a.heads * a.t, 0.0f);
    for (int64_t i = 0; i < parts.count(); ++i) {
        Call part = a;
        const std::vector<float> q = parts.take(a.q, a.head_dim, i), static_lse = parts.take(a.static_lse, 1, i);
        const size_t rows = at(parts.rows(i));
        std::vector<float> out(rows * at(a.value_dim)), lse(rows), coverage(rows), exact(at(a.heads * a.t));
        part.q = q.data(), part.group = parts.size(i), part.static_lse = or_null(static_lse);
        part.out = out.data(), part.lse = lse.data(), part.coverage = coverage.data(), part.exact_share = exact.data();
        attend(part);
        parts.put(out, a.value_dim, i, a.out);
        parts.put(lse, 1, i, a.lse);
        parts.put(coverage, 1, i, a.coverage);
        parts.add_share(exact, i, a.exact_share);
        a.touched_bytes += part.touched_bytes;
    }
}

// `search` for a call of many query heads: search(part, scores, ids) fills (rows of the part, k) each.
template <class Call, class Search>
void search_in_parts(const Call& a, int64_t head_dim, int64_t k, float* scores, int64_t* ids, const Search& search) {
    const GroupParts parts(a.heads, a.group, a.t);
    for (int64_t i = 0; i < parts.count(); ++i) {
        Call part = a;
        const std::vector<float> q = parts.take(a.q, head_dim, i);
        std::vector<float> found(at(parts.rows(i) * k));
        std::vector<int64_t> which(found.size());
        part.q = q.data(), part.group = parts.size(i);
        search(part, found.data(), which.data());
        parts.put(found, k, i, scores);
        parts.put(which, k, i, ids);
    }
}

}  // namespace sakuin
