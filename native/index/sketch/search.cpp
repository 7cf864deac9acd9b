// The keys with the largest inner products by way of the `sketch` index: every key by its sketch, the best of these by
// their codes, the best of those exactly (docs/indexes.md). What is kept at each stage is everything above a bar, found
// without sorting: from a sample at the first stage, from the largest of small groups at the second.
#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "index/kept.hpp"
#include "index/parts.hpp"
#include "index/rows.hpp"
#include "index/sketch/exact.hpp"
#include "index/sketch/read_ahead.hpp"
#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

constexpr int64_t sample_size = 1024;  // of all tokens, for each query head
constexpr float least = std::numeric_limits<float>::lowest();

// A number that sorts, and whose distance to another is a number: sums of large products end at the largest and the
// least there are, and what is not a number is the least.
float sound(float x) { return x > least ? std::min(x, most_score) : least; }

// What one segment keeps for the search, beside its view.
struct Part {
    std::vector<float> sample;  // (taken, padded) raised scores
    std::vector<float> best;    // (groups of found keys, padded) the largest code score of each
};

class Search : public Step {
public:
    Search(const SketchAttend& args, const SketchSearch& search, std::vector<View>& views, std::vector<Head>& heads,
           std::vector<Part>& parts, int64_t t)
        : Step(args, views, heads, t), s_(search), parts_(parts) {
        searches_ = true;
        parts_.resize(views.size());
        bars_.resize(static_cast<size_t>(a_.heads * a_.group));
        for (int64_t h = 0; h < a_.heads; ++h) {
            Head& head = heads_[static_cast<size_t>(h)];
            // Not scaled: scores are to be inner products.
            for (int64_t g = 0; g < a_.group; ++g)
                units_.push_back(tamed(a_.q + ((h * a_.group + g) * a_.t + t_) * d_, d_, head.q.data() + g * d_));
            head.lse.assign(width_, -nothing);
        }
        int64_t lists = 0;
        for (const SketchSegment* segment : a_.segments) lists += lists_of(segment->n);
        while (per_list_ < list_size && lists * per_list_ < sample_size) per_list_ *= 2;
        every_ = std::max<int64_t>(1, lists / sample_size);
    }

    void run() {
        each([this](View& v) {
            uint16_t largest[max_group];
            score(v, largest);
            take_sample(v);
        });
        // The bar comes from a sample and may be too high, once in a long while. In the end all are candidates.
        int64_t candidates = std::min(std::max(s_.candidates, s_.k), n_);
        while (!find_above(candidates) && candidates < n_) candidates = std::min(candidates * 4, n_);
        each([this](View& v) { score_codes(v); });
        set_bars(s_.refined, [this](size_t i, size_t g, std::vector<float>& to) { gather(parts_[i].best, g, to); });
        each([this](View& v) { score_exactly(v); });
        // Estimates of damaged segments may be anything.
        std::vector<bool> few(heads_.size());
        for (int64_t h = 0; h < a_.heads; ++h) few[static_cast<size_t>(h)] = scored(h) < s_.k;
        each([&](View& v) {
            if (few[static_cast<size_t>(v.head)]) score_all(v);
        });
        parallel_for(a_.heads * a_.group, a_.n_threads, [this](int64_t row) { pick(row); });
    }

private:
    void gather(const std::vector<float>& from, size_t g, std::vector<float>& to) const {
        for (size_t i = g; i < from.size(); i += width_) to.push_back(from[i]);
    }

    // Sets each query head's bar to the `rank`-th largest of its numbers, so that at least as many are not below it; to
    // the least where there are fewer.
    template <class Fn>
    void set_bars(int64_t rank, const Fn& numbers) {
        parallel_for(a_.heads * a_.group, a_.n_threads, [&](int64_t row) {
            const size_t first = static_cast<size_t>(row / a_.group) * a_.segments.size();
            std::vector<float> x;
            for (size_t s = 0; s < a_.segments.size(); ++s) numbers(first + s, static_cast<size_t>(row % a_.group), x);
            float bar = least;
            if (rank <= static_cast<int64_t>(x.size())) {
                const auto at = x.begin() + static_cast<std::ptrdiff_t>(rank - 1);
                std::nth_element(x.begin(), at, x.end(), std::greater<>());
                bar = *at;
            }
            bars_[static_cast<size_t>(row)] = bar;
        });
    }
    float bar(int64_t head, size_t g) const { return bars_[static_cast<size_t>(head * a_.group) + g]; }

    // The residue length of a key, in quarters of the usual one.
    static int length_of(const View& v, int64_t key) {
        const int64_t bytes = v.segment->shape.list_bytes();
        const uint8_t both =
            of_head(v.segment->sketch, v.head, v.lists() * bytes)[(key / list_size + 1) * bytes - 32 + key % 32];
        return key % list_size < 32 ? both & 15 : both >> 4;
    }

    // A few keys of every list, or one of every few lists:
    // lists hold alike keys, so a sample of all of them has little spread.
    void take_sample(const View& v) {
        std::vector<float>& to = parts_[index_of(v)].sample;
        to.clear();
        for (int64_t l = v.first / list_size % every_; l < v.lists(); l += every_)
            for (int64_t i = 0; i < per_list_; ++i) {
                const int64_t key = (l * 37 + i * (list_size / per_list_)) % list_size;  // another place in each list
                if (l * list_size + key >= v.segment->n) continue;
                const float length = 0.25f * static_cast<float>(length_of(v, l * list_size + key));
                const uint16_t* z = v.scores + (2 * l + key / 32) * a_.group * 32 + key % 32;
                for (size_t g = 0; g < width_; ++g)
                    to.push_back(g < groups() ? sound(static_cast<float>(z[g * 32]) * v.scale[g] + v.bias[g] +
                                                      length * v.sigma[g])
                                              : least);
            }
    }

    // Finds the keys above the bar that leaves about `candidates` for each query head; whether they are enough.
    bool find_above(int64_t candidates) {
        int64_t sampled = 0;
        for (size_t s = 0; s < a_.segments.size(); ++s)
            sampled += static_cast<int64_t>(parts_[s].sample.size() / width_);
        const bool all = candidates >= n_;
        const int64_t rank = all ? std::numeric_limits<int64_t>::max()
                                 : static_cast<int64_t>(static_cast<double>(candidates) * static_cast<double>(sampled) /
                                                        static_cast<double>(n_)) +
                                       1;
        set_bars(rank, [this](size_t i, size_t g, std::vector<float>& to) { gather(parts_[i].sample, g, to); });
        for (int64_t h = 0; h < a_.heads; ++h)
            for (size_t g = 0; g < groups(); ++g)
                heads_[static_cast<size_t>(h)].lse[g] = bar(h, g) > least ? bar(h, g) : nothing;
        each([this](View& v) { find(v, head(v).lse.data(), 1.0f); });
        for (int64_t h = 0; h < a_.heads; ++h) {
            int64_t found = 0;
            for (size_t s = 0; s < a_.segments.size(); ++s) found += view(h, s).found;
            if (found < s_.k) return false;
        }
        return true;
    }

    void score_codes(View& v) {
        SketchFiles* const files = v.segment->files;
        const SketchFiles::Reading reading(files);
        if (files != nullptr) files->ask_codes(v.head, v.index.data(), v.found);
        k_.score_codes(rescore_of(v));
        // Some four groups for each key that will be wanted: the bar that their largest numbers give is then a little
        // low at most.
        int64_t found = 0;
        for (size_t i = 0; i < a_.segments.size(); ++i) found += view(v.head, i).found;
        const int64_t together = std::max<int64_t>(1, found / s_.refined / 4);
        std::vector<float>& best = parts_[index_of(v)].best;
        best.assign(static_cast<size_t>((v.found + together - 1) / together) * width_, least);
        for (size_t g = 0; g < groups(); ++g) {
            float* x = v.fresh.data() + static_cast<int64_t>(g) * v.stride;
            for (int64_t i = 0; i < v.found; i += together) {
                float most = least;
                for (int64_t j = i; j < std::min(i + together, v.found); ++j) {
                    x[j] = sound(x[j]);
                    most = most > x[j] ? most : x[j];
                }
                best[static_cast<size_t>(i / together) * width_ + g] = most;
            }
        }
    }

    // Scores by the keys themselves what is above the bar for any query head, for all of them.
    void score_exactly(View& v) {
        ensure_size(v.exact.index, v.found + 1);
        ensure_size(scratch().best, v.found);
        float* over = scratch().best.data();  // by how much a key is above a bar at most
        std::fill_n(over, v.found, nothing);
        for (size_t g = 0; g < groups(); ++g) {
            const float above = bar(v.head, g), *x = v.fresh.data() + static_cast<int64_t>(g) * v.stride;
            for (int64_t i = 0; i < v.found; ++i) over[i] = x[i] - above > over[i] ? x[i] - above : over[i];
        }
        int64_t kept = 0;
        for (int64_t i = 0; i < v.found; ++i) {
            // Without a branch: nothing could predict it.
            v.exact.index[static_cast<size_t>(kept)] = v.index[static_cast<size_t>(i)];
            kept += over[i] >= 0.0f;
        }
        v.exact.n = kept;
        score_kept(v);
    }

    void score_all(View& v) {
        ensure_size(v.exact.index, v.segment->n);
        for (int64_t i = 0; i < v.segment->n; ++i) v.exact.index[static_cast<size_t>(i)] = static_cast<uint32_t>(i);
        v.exact.n = v.segment->n;
        score_kept(v);
    }

    void score_kept(View& v) {
        SketchFiles* const files = v.segment->files;
        const SketchFiles::Reading reading(files);
        const int64_t kept = v.exact.n;
        if (files != nullptr) files->ask_keys(v.head, v.exact.index.data(), kept);
        ensure_size(v.exact.weights, (kept + 4) * static_cast<int64_t>(width_));
        score_exact(k_, *v.segment, v.head, head(v).q.data(), v.exact.index.data(), kept, group(),
                    v.exact.weights.data());
    }

    // Keys of a KV head that are scored exactly.
    int64_t scored(int64_t h) {
        int64_t n = 0;
        for (size_t i = 0; i < a_.segments.size(); ++i) n += view(h, i).exact.n;
        return n;
    }

    // The k largest of what was scored exactly; of equal ones the older token comes first.
    void pick(int64_t row) {
        const int64_t h = row / a_.group;
        const size_t g = static_cast<size_t>(row % a_.group);
        std::vector<std::pair<float, int64_t>> best;
        best.reserve(static_cast<size_t>(scored(h)));
        for (size_t i = 0; i < a_.segments.size(); ++i) {
            const View& v = view(h, i);
            const auto* order = of_head(v.segment->order, h, v.segment->n);
            for (size_t j = 0; j < static_cast<size_t>(v.exact.n); ++j) {
                const float x = v.exact.weights[j * width_ + g];
                best.emplace_back(x == x ? x : nothing, v.first + order[v.exact.index[j]]);
            }
        }
        const auto larger = [](const auto& a, const auto& b) {
            return a.first != b.first ? a.first > b.first : a.second < b.second;
        };
        const auto end = best.begin() + static_cast<std::ptrdiff_t>(s_.k);
        if (end != best.end()) std::nth_element(best.begin(), end, best.end(), larger);
        std::sort(best.begin(), end, larger);
        const int64_t first = (row * a_.t + t_) * s_.k;
        for (int64_t i = 0; i < s_.k; ++i) {
            s_.scores[first + i] = untamed(best[static_cast<size_t>(i)].first, units_[static_cast<size_t>(row)]);
            s_.ids[first + i] = best[static_cast<size_t>(i)].second;
        }
    }

    const SketchSearch& s_;
    std::vector<Part>& parts_;
    std::vector<float> bars_;   // (heads * group,)
    std::vector<float> units_;  // (heads * group,): times which scores are inner products
    int64_t per_list_ = 1, every_ = 1;
};

}  // namespace

void search_sketch(const SketchSearch& search) {
    if (search.group > max_group)
        return search_in_parts(search, search.segments.front()->shape.head_dim, search.k, search.scores, search.ids,
                               [](SketchSearch& part, float* scores, int64_t* ids) {
                                   part.scores = scores, part.ids = ids;
                                   search_sketch(part);
                               });
    SketchAttend args{};
    args.kernels = search.kernels;
    args.segments = search.segments;
    args.q = search.q;
    args.heads = search.heads;
    args.group = search.group;
    args.t = search.t;
    args.scaling = 1.0f;
    args.settings.reach = search.reach;
    args.n_threads = search.n_threads;
    static thread_local std::vector<View> kept_views;
    static thread_local std::vector<Part> kept_parts;
    Kept views(kept_views);
    Kept parts(kept_parts);
    std::vector<Head> heads;
    for (int64_t t = 0; t < search.t; ++t) Search(args, search, *views, heads, *parts, t).run();
}

}  // namespace sakuin
