#include <algorithm>
#include <bit>
#include <vector>

#include "index/arithmetic.hpp"
#include "index/graph/graph.hpp"
#include "index/graph/walk.hpp"
#include "index/parts.hpp"
#include "index/rows.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

// One position of a call: walks for every query head, then what their groups attend.
class Step {
public:
    Step(const Graph& graph, const GraphAttend& a, std::vector<KeyWalk>& walks)
        : graph_(graph), a_(a), runs_(graph_runs(graph.n)), walks_(walks), found_(graph.heads.size()),
          left_(at(a.heads * runs_)), scores_(at(a.heads * runs_ * width())) {
        for (int64_t h = 0; h < a_.heads; ++h)
            stores_.push_back({a.keys.head(h), a.values.head(h), a.keys.dtype, graph.n, 0, nullptr});
    }

    int64_t run(int64_t position) {
        const int64_t d = graph_.head_dim;
        const std::vector<float> q = scaled_queries(a_.q, a_.heads * a_.group, a_.t, position, d, a_.scaling);
        const bool all = a_.budget >= graph_.n;
        if (!all)
            parallel_for(a_.heads * a_.group, a_.n_threads, [&](int64_t r) {
                const int64_t h = r / a_.group, ef = std::min(std::max(a_.ef, a_.budget), graph_.n);
                walks_[at(r)].run(graph_.heads[at(h)], a_.keys.head(h), a_.keys.dtype, graph_.n, d, q.data() + r * d,
                                  ef, *a_.kernels);
                walks_[at(r)].sort(a_.budget);
            });
        std::vector<RowChoice> choices(at(a_.heads));
        int64_t bytes = 0;
        for (int64_t h = 0; h < a_.heads; ++h) {
            if (all) {
                choices[at(h)].picks.push_back({&stores_[at(h)], nullptr, 0, graph_.n});
                continue;
            }
            gather(h);
            const std::vector<uint32_t>& rows = found_[at(h)];
            choices[at(h)].picks.push_back({&stores_[at(h)], rows.data(), 0, static_cast<int64_t>(rows.size())});
            // The rows found are counted when attended.
            bytes += walked_bytes(h) - static_cast<int64_t>(rows.size()) * d * dtype_size(a_.keys.dtype);
        }
        if (!all) {
            add_means(q, choices);
            if (a_.estimate_rest) bytes += a_.heads * runs_ * d * dtype_size(a_.keys.dtype);
        }
        return bytes + attend_rows(a_, q.data(), position, choices);
    }

private:
    int64_t width() const { return padded(static_cast<int>(a_.group)); }

    // What a KV head's group attends, in order of position, and how many tokens of each run that leaves.
    void gather(int64_t h) {
        std::vector<uint32_t>& rows = found_[at(h)];
        rows.clear();
        for (int64_t r = h * a_.group; r < (h + 1) * a_.group; ++r)
            for (int64_t i = 0; i < std::min<int64_t>(a_.budget, static_cast<int64_t>(walks_[at(r)].found.size())); ++i)
                rows.push_back(id_of(walks_[at(r)].found[at(i)]));
        std::sort(rows.begin(), rows.end());
        rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
        int32_t* left = left_.data() + h * runs_;
        for (int64_t run = 0; run < runs_; ++run)
            left[run] = static_cast<int32_t>(std::min(graph_run, graph_.n - run * graph_run));
        for (const uint32_t row : rows) --left[row / graph_run];
    }

    void add_means(const std::vector<float>& q, std::vector<RowChoice>& choices) {
        const int64_t d = graph_.head_dim, size = dtype_size(a_.keys.dtype);
        std::vector<uint32_t> all(at(runs_));
        for (int64_t run = 0; run < runs_; ++run) all[at(run)] = static_cast<uint32_t>(run);
        parallel_for(a_.heads, a_.n_threads, [&](int64_t h) {
            const char* keys = static_cast<const char*>(a_.mean_keys) + h * runs_ * d * size;
            a_.kernels->sketch->score_rows(q.data() + h * a_.group * d, keys, a_.keys.dtype, static_cast<int>(d),
                                           all.data(), runs_, static_cast<int>(a_.group),
                                           scores_.data() + h * runs_ * width());
        });
        for (int64_t h = 0; h < a_.heads; ++h)
            choices[at(h)].rest.push_back({runs_, scores_.data() + h * runs_ * width(),
                                           static_cast<const char*>(a_.mean_values) + h * runs_ * a_.value_dim * size,
                                           a_.keys.dtype, left_.data() + h * runs_});
    }

    // Keys scored by the walks of a KV head's group, and links read.
    int64_t walked_bytes(int64_t h) const {
        const GraphLinks& links = graph_.heads[at(h)];
        std::vector<uint64_t> seen = walks_[at(h * a_.group)].seen();
        int64_t rows = 0;
        for (int64_t r = h * a_.group; r < (h + 1) * a_.group; ++r) {
            rows += walks_[at(r)].walked;
            for (size_t i = 0; i < seen.size(); ++i) seen[i] |= walks_[at(r)].seen()[i];
        }
        int64_t keys = 0;
        for (const uint64_t word : seen) keys += std::popcount(word);
        return keys * graph_.head_dim * dtype_size(a_.keys.dtype) +
               rows * (links.degree * static_cast<int64_t>(sizeof(uint32_t)) + 1);
    }

    const Graph& graph_;
    const GraphAttend& a_;
    const int64_t runs_;
    std::vector<KeyWalk>& walks_;
    std::vector<std::vector<uint32_t>> found_;
    std::vector<int32_t> left_;
    std::vector<float> scores_;
    std::vector<RowStore> stores_;
};

}  // namespace

void graph_attend(const Graph& graph, GraphAttend& a) {
    if (a.group > max_group) return attend_in_parts(a, [&graph](GraphAttend& part) { graph_attend(graph, part); });
    std::vector<KeyWalk> walks(graph.heads.size() * at(a.group));
    Step step(graph, a, walks);
    a.touched_bytes = 0;
    for (int64_t position = 0; position < a.t; ++position) a.touched_bytes += step.run(position);
}

}  // namespace sakuin
