// One step of `ivf`: centroids are scored, each query head picks its lists, and rows.hpp attends what the group picked.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

#include "index/arithmetic.hpp"
#include "index/ivf/ivf.hpp"
#include "index/kept.hpp"
#include "index/parts.hpp"
#include "index/rows.hpp"
#include "kernels/limits.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

// The mean of an exponential is larger than the exponential of the mean, for a Gaussian by half the variance. Keys of a
// list spread less far than a Gaussian's: two thirds of that serve best on real keys, and never more than a factor of
// e, so that a few keys far away cannot lift all the others (docs/indexes.md).
constexpr float raise_share = 2.0f / 3.0f, most_raise = log2e;

// A list of the whole chain as one query head sees it.
struct Ranked {
    float score;
    uint32_t list;  // counted over all segments
    int32_t weight;
};

bool better(const Ranked& a, const Ranked& b) { return a.score != b.score ? a.score > b.score : a.list < b.list; }

// Chooses the lists with the best scores whose weights add up to `need`: without sorting them, by how their scores are
// spread over bins of equal width. Only the bin in which the sum is reached is looked at more closely.
class Chooser {
public:
    // Score of list i is scores[i * stride]; lists with no tokens are left out, each other weighs its tokens,
    // or 1 with `by_count`.
    const std::vector<uint32_t>& choose(const float* scores, int64_t stride, const std::vector<int32_t>& tokens,
                                        bool by_count, int64_t need) {
        constexpr int64_t bins = 256;
        const int64_t n = static_cast<int64_t>(tokens.size());
        chosen_.clear();
        float low = largest, high = -largest;
        for (int64_t i = 0; i < n; ++i) {
            const float x = finite(scores[i * stride]);
            low = tokens[at(i)] > 0 && x < low ? x : low;
            high = tokens[at(i)] > 0 && x > high ? x : high;
        }
        float per_bin = static_cast<float>(bins) / (high - low);
        if (!std::isfinite(per_bin)) per_bin = 0.0f;  // all scores are (nearly) equal, or there is no list at all
        int64_t held[bins] = {};
        bin_.resize(at(n));
        for (int64_t i = 0; i < n; ++i) {
            const auto bin =
                static_cast<uint8_t>(std::clamp((high - finite(scores[i * stride])) * per_bin, 0.0f, 255.0f));
            bin_[at(i)] = bin;
            held[bin] += by_count ? tokens[at(i)] > 0 : tokens[at(i)];
        }
        int64_t last = 0;
        while (last < bins - 1 && held[last] < need) need -= held[last++];
        near_.clear();
        for (int64_t i = 0; i < n; ++i)
            if (bin_[at(i)] <= last && tokens[at(i)] > 0) {
                if (bin_[at(i)] < last)
                    chosen_.push_back(static_cast<uint32_t>(i));
                else
                    near_.push_back(
                        {finite(scores[i * stride]), static_cast<uint32_t>(i), by_count ? 1 : tokens[at(i)]});
            }
        const size_t more = halve(need);
        for (size_t i = 0; i < more; ++i) chosen_.push_back(near_[i].list);
        return chosen_;
    }

private:
    static constexpr float largest = 1e37f;  // differences of two stay within float32

    // What is not a number has no place in an order.
    static float finite(float x) { return x > -largest ? std::min(x, largest) : -largest; }

    // Brings to the front of `near_` the best lists that weigh `need`, and returns how many.
    size_t halve(int64_t need) {
        auto first = near_.begin(), last = near_.end();
        while (last - first > 1) {
            const auto middle = first + (last - first) / 2;
            std::nth_element(first, middle, last, better);
            int64_t weight = 0;
            for (auto i = first; i != middle; ++i) weight += i->weight;
            if (weight >= need) {
                last = middle;
            } else {
                need -= weight;
                first = middle;
            }
        }
        return static_cast<size_t>(last - near_.begin());
    }

    std::vector<uint32_t> chosen_;
    std::vector<uint8_t> bin_;
    std::vector<Ranked> near_;
};

Chooser& chooser() {
    static thread_local Chooser c;
    return c;
}

// One KV head at one position. Kept between steps for its memory.
struct Head {
    std::vector<float> scores;  // (lists of the chain, padded): of the centroids, base 2
    // (segments, padded): what the scores of centroids gain as those of all their keys, base 2.
    std::vector<float> raise;
    std::vector<int32_t> tokens;   // (lists of the chain)
    std::vector<int32_t> left;     // (lists of the chain): the same, 0 for probed ones
    std::vector<RowStore> stores;  // a segment each
};

class Step {
public:
    Step(const IvfAttend& a, std::vector<Head>& heads, int64_t position)
        : a_(a), k_(*a.kernels->sketch), d_(a.segments.front()->head_dim), width_(padded(static_cast<int>(a.group))),
          position_(position), heads_(heads) {
        for (const IvfSegment* s : a_.segments) {
            first_list_.push_back(lists_);
            lists_ += s->lists;
        }
        const int64_t work = a_.heads * lists_ * d_;
        // Fewer than there are for little work.
        threads_ = static_cast<int>(std::clamp<int64_t>(work >> 17, 1, a_.n_threads));
        if (heads_.size() < at(a_.heads)) heads_.resize(at(a_.heads));
        for (int64_t h = 0; h < a_.heads; ++h) {
            Head& head = heads_[at(h)];
            head.scores.resize(at(lists_ * width_));
            head.raise.resize(a_.segments.size() * at(width_));
            head.tokens.clear();
            head.stores.clear();
            int64_t token = 0;
            for (const IvfSegment* s : a_.segments) {
                const int64_t first = h * s->n * dtype_size(s->dtype);
                head.stores.push_back({static_cast<const char*>(s->keys) + first * d_,
                                       static_cast<const char*>(s->values) + first * s->value_dim, s->dtype, s->n,
                                       token, of_head(s->order, h, s->n)});
                token += s->n;
                const int32_t* start = of_head(s->start, h, s->lists + 1);
                for (int64_t l = 0; l < s->lists; ++l) head.tokens.push_back(start[l + 1] - start[l]);
            }
        }
    }

    int64_t attend() {
        const std::vector<float> q = scaled_queries(a_.q, a_.heads * a_.group, a_.t, position_, d_, a_.scaling);
        score(q, true);
        std::vector<RowChoice> choices(at(a_.heads));
        parallel_for(a_.heads, threads_, [&](int64_t h) { probe(h, choices[at(h)]); });
        // Beside what is attended: centroids, where lists begin, and of each segment the mean and the spread.
        const int64_t chain = static_cast<int64_t>(a_.segments.size());
        return attend_rows(a_, q.data(), position_, choices) +
               a_.heads * (lists_ * (d_ * 2 + 4) + chain * ((d_ + 1) * 4 + d_ * d_ * 2));
    }

    void search(int64_t k, float* scores, int64_t* tokens) {
        // Unscaled: inner products come out as they are.
        const int64_t rows = a_.heads * a_.group;
        std::vector<float> tame(at(rows * d_)), unit(at(rows));
        for (int64_t r = 0; r < rows; ++r)
            unit[at(r)] = tamed(a_.q + (r * a_.t + position_) * d_, d_, tame.data() + r * d_);
        const std::vector<float> q = scaled_queries(tame.data(), rows, 1, 0, d_, ln2);
        score(q, false);
        parallel_for(a_.heads * a_.group, a_.n_threads, [&](int64_t row) {
            const int64_t h = row / a_.group, g = row % a_.group;
            const Head& head = heads_[at(h)];
            const std::vector<uint32_t>* lists = &probes(head, g);
            int64_t held = 0;
            for (const uint32_t list : *lists) held += head.tokens[list];
            if (held < k) lists = &chooser().choose(head.scores.data() + g, width_, head.tokens, false, k);
            std::vector<RowPick> picks;
            for (const uint32_t list : *lists) pick(head, h, list, picks);
            float* const found = scores + (row * a_.t + position_) * k;
            search_rows(*a_.kernels, q.data() + row * d_, d_, picks, k, found, tokens + (row * a_.t + position_) * k);
            for (int64_t i = 0; i < k; ++i) found[i] = untamed(found[i], unit[at(row)]);
        });
    }

private:
    // Scores of all centroids for all query heads of their group, and with `raised` what they are raised by where they
    // stand for keys.
    void score(const std::vector<float>& q, bool raised) {
        const int64_t chain = static_cast<int64_t>(a_.segments.size());
        parallel_for(a_.heads * chain, threads_, [&](int64_t i) {
            const int64_t h = i / chain, group = a_.group;
            const IvfSegment& s = *a_.segments[at(i % chain)];
            const float* own = q.data() + h * group * d_;
            float* to = heads_[at(h)].scores.data() + first_list_[at(i % chain)] * width_;
            std::vector<uint32_t> rows(at(s.lists));
            std::iota(rows.begin(), rows.end(), 0u);
            k_.score_rows(own, of_head(s.centroid, h, s.lists * d_), DType::bf16, static_cast<int>(d_), rows.data(),
                          s.lists, static_cast<int>(group), to);
            float base[max_group] = {};
            for (int64_t g = 0; g < group; ++g)
                for (int64_t j = 0; j < d_; ++j) base[g] += own[g * d_ + j] * of_head(s.mean, h, d_)[j];
            for (int64_t l = 0; l < s.lists; ++l)
                for (int64_t g = 0; g < group; ++g) to[l * width_ + g] += base[g];
            if (raised) find_raise(s, h, own, heads_[at(h)].raise.data() + i % chain * width_);
        });
    }

    // The variance of a score within its list is q^T spread q; in base 2 half of it counts times ln 2.
    void find_raise(const IvfSegment& s, int64_t h, const float* q, float* raise) const {
        float product[most_head_dim * max_group];
        uint32_t rows[most_head_dim];
        std::iota(rows, rows + d_, 0u);
        k_.score_rows(q, of_head(s.spread, h, d_ * d_), DType::bf16, static_cast<int>(d_), rows, d_,
                      static_cast<int>(a_.group), product);
        for (int64_t g = 0; g < a_.group; ++g) {
            float variance = 0.0f;
            for (int64_t j = 0; j < d_; ++j) variance += q[g * d_ + j] * product[j * width_ + g];
            // Rounding may leave it below 0, and numbers beyond float32 may leave none.
            raise[g] = variance > 0.0f ? std::min(raise_share * 0.5f * ln2 * variance, most_raise) : 0.0f;
        }
    }

    // The lists that a query head probes.
    const std::vector<uint32_t>& probes(const Head& head, int64_t g) const {
        return chooser().choose(head.scores.data() + g, width_, head.tokens, a_.probes > 0,
                                a_.probes > 0 ? a_.probes : a_.budget);
    }

    // Adds a list; the next one of the same segment makes the read longer.
    void pick(const Head& head, int64_t h, int64_t list, std::vector<RowPick>& picks) const {
        const size_t number =
            static_cast<size_t>(std::upper_bound(first_list_.begin(), first_list_.end(), list) - first_list_.begin()) -
            1;
        const IvfSegment& s = *a_.segments[number];
        const int32_t* start = of_head(s.start, h, s.lists + 1) + (list - first_list_[number]);
        const RowStore* store = &head.stores[number];
        if (!picks.empty() && picks.back().store == store && picks.back().begin + picks.back().m == start[0])
            picks.back().m += start[1] - start[0];
        else
            picks.push_back({store, nullptr, start[0], start[1] - start[0]});
    }

    void probe(int64_t h, RowChoice& choice) {
        Head& head = heads_[at(h)];
        head.left = head.tokens;
        for (int64_t g = 0; g < a_.group; ++g)
            for (const uint32_t list : probes(head, g)) head.left[list] = 0;
        for (size_t s = 0; s < a_.segments.size(); ++s) {
            const IvfSegment& segment = *a_.segments[s];
            const int64_t first = first_list_[s];
            for (int64_t list = first; list < first + segment.lists; ++list) {
                if (head.left[at(list)] == 0 && head.tokens[at(list)] > 0) pick(head, h, list, choice.picks);
                for (int64_t g = 0; g < a_.group; ++g)
                    head.scores[at(list * width_ + g)] += head.raise[s * at(width_) + at(g)];
            }
            choice.rest.push_back({segment.lists, head.scores.data() + first * width_,
                                   of_head(segment.mean_value, h, segment.lists * segment.value_dim), DType::bf16,
                                   head.left.data() + first});
        }
    }

    const IvfAttend& a_;
    const SketchKernels& k_;
    const int64_t d_, width_, position_;
    std::vector<Head>& heads_;
    std::vector<int64_t> first_list_;
    int64_t lists_ = 0;
    int threads_ = 1;
};

std::vector<Head>& kept_heads() {
    static thread_local std::vector<Head> heads;
    return heads;
}

}  // namespace

void attend_ivf(IvfAttend& a) {
    if (a.group > max_group) return attend_in_parts(a, attend_ivf);
    a.touched_bytes = 0;
    Kept heads(kept_heads());
    for (int64_t position = 0; position < a.t; ++position) a.touched_bytes += Step(a, *heads, position).attend();
}

void search_ivf(const IvfAttend& a, int64_t k, float* scores, int64_t* tokens) {
    if (a.group > max_group)
        return search_in_parts(a, a.head_dim, k, scores, tokens,
                               [k](const IvfAttend& part, float* s, int64_t* i) { search_ivf(part, k, s, i); });
    Kept heads(kept_heads());
    for (int64_t position = 0; position < a.t; ++position) Step(a, *heads, position).search(k, scores, tokens);
}

}  // namespace sakuin
