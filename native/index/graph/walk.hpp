// A best-first walk over a graph's links, whatever it looks for:
// the keys nearest to a key, or those with the largest inner product.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <vector>

#include "index/graph/graph.hpp"

namespace sakuin {

// How good a key is and which, in one number: larger is better, and of equals the one with the lower id.
// No two are the same.
using Ranked = uint64_t;
inline uint32_t id_of(Ranked r) { return ~static_cast<uint32_t>(r); }

inline Ranked ranked(float score, uint32_t id) {
    // NaN comes from a query that holds one: it is as bad as can be.
    const uint32_t bits = std::bit_cast<uint32_t>(score == score ? score : -__builtin_inff());
    return static_cast<Ranked>(bits & 0x80000000u ? ~bits : bits | 0x80000000u) << 32 | ~id;
}
inline float score_of(Ranked r) {
    const auto high = static_cast<uint32_t>(r >> 32);
    return std::bit_cast<float>(high & 0x80000000u ? high & 0x7fffffffu : ~high);
}

inline uint32_t distance(const int16_t* a, const int16_t* b) {
    uint32_t sum = 0;
    for (int j = 0; j < graph_coordinates; ++j) {
        const auto e = static_cast<int16_t>(a[j] - b[j]);
        sum += static_cast<uint32_t>(e * e);
    }
    return sum;
}
inline Ranked nearness(uint32_t squared, uint32_t id) { return static_cast<Ranked>(~squared) << 32 | ~id; }
inline uint32_t distance_of(Ranked r) { return ~static_cast<uint32_t>(r >> 32); }

// Keeps its memory from one walk to the next.
class Walk {
public:
    // Fills `found` with up to `ef` keys, in no order, from the first `n` keys.
    // `rank(ids, m, out)` sets out[i] to ids[i]'s rank.
    template <class Rank>
    void run(const GraphLinks& graph, int64_t n, const uint32_t* entries, int64_t n_entries, int64_t ef,
             const Rank& rank) {
        seen_.assign(static_cast<size_t>((n + 63) / 64), 0);
        found.clear();
        open_.clear();
        scanned = walked = 0;
        look(entries, n_entries, n, ef, rank);
        while (!open_.empty()) {
            std::pop_heap(open_.begin(), open_.end());
            const Ranked best = open_.back();
            open_.pop_back();
            if (static_cast<int64_t>(found.size()) >= ef && best < found.front()) break;
            const uint32_t at = id_of(best);
            ++walked;
            look(graph.row(at), graph.count[at], n, ef, rank);
        }
    }

    std::vector<Ranked> found;
    int64_t scanned = 0, walked = 0;

    // One bit for each key that was ranked.
    const std::vector<uint64_t>& seen() const { return seen_; }

private:
    template <class Rank>
    void look(const uint32_t* ids, int64_t m, int64_t n, int64_t ef, const Rank& rank) {
        fresh_.clear();
        for (int64_t i = 0; i < m; ++i) {
            const uint32_t id = ids[i];
            if (static_cast<int64_t>(id) >= n) continue;
            uint64_t& word = seen_[id / 64];
            const uint64_t bit = uint64_t{1} << id % 64;
            if ((word & bit) != 0) continue;
            word |= bit;
            fresh_.push_back(id);
        }
        if (fresh_.empty()) return;
        ranks_.resize(fresh_.size());
        rank(fresh_.data(), static_cast<int64_t>(fresh_.size()), ranks_.data());
        scanned += static_cast<int64_t>(fresh_.size());
        for (const Ranked r : ranks_) {
            if (static_cast<int64_t>(found.size()) >= ef) {
                if (r < found.front()) continue;
                std::pop_heap(found.begin(), found.end(), std::greater<>());
                found.pop_back();
            }
            found.push_back(r);
            std::push_heap(found.begin(), found.end(), std::greater<>());
            open_.push_back(r);
            std::push_heap(open_.begin(), open_.end());
        }
    }

    std::vector<uint64_t> seen_;
    std::vector<Ranked> open_, ranks_;
    std::vector<uint32_t> fresh_;
};

// Walks towards the largest inner products with q (head_dim).
class KeyWalk : public Walk {
public:
    void run(const GraphLinks& graph, const void* keys, DType dtype, int64_t n, int64_t head_dim, const float* q,
             int64_t ef, const Kernels& kernels) {
        const uint32_t entries[] = {graph.entry, 0};
        Walk::run(graph, n, entries, 2, ef, [&](const uint32_t* ids, int64_t m, Ranked* out) {
            constexpr int width = padded(1);
            scores_.resize(static_cast<size_t>(m * width));
            kernels.sketch->score_rows(q, keys, dtype, static_cast<int>(head_dim), ids, m, 1, scores_.data());
            for (int64_t i = 0; i < m; ++i) out[i] = ranked(scores_[static_cast<size_t>(i * width)], ids[i]);
        });
    }

    // Puts the best k of what was found first, in order; how many these are, k where the graph is sound.
    int64_t sort(int64_t k) {
        const int64_t there = std::min<int64_t>(k, static_cast<int64_t>(found.size()));
        std::partial_sort(found.begin(), found.begin() + there, found.end(), std::greater<>());
        return there;
    }

private:
    std::vector<float> scores_;
};

}  // namespace sakuin
