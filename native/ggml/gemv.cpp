#include "ggml/gemv.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace sakuin::ggml {
namespace {

constexpr int64_t task_bytes = 32 << 10;   // of a weight, at least, where there are more
constexpr int64_t few_tasks = 16;          // of a thread
constexpr int64_t unit = 16;               // rows of a weight that kernels take together
constexpr int64_t round_alone = 16 << 10;  // numbers: waking threads would take as long

}  // namespace

bool Gemv::has(int type, int64_t depth) const {
    const int64_t block = type >= 10 ? 256 : 32;
    return depth > 0 && depth % block == 0 && kernels_.offset(type) >= 0;
}

void Gemv::multiply(const std::vector<GemvJob>& jobs, bool same, int n_threads) {
    if (jobs.empty()) return;
    plan(jobs, n_threads);
    const int type = jobs.front().weight.format.type;
    const int offset = kernels_.offset(type), from = kernels_.arranged_from(type);
    const bool one = jobs.size() == 1;
    if (!same || !one || offset != offset_ || from != from_) round(n_threads);
    offset_ = one ? offset : -1, from_ = from;
    parallel_for(static_cast<int64_t>(tasks_.size()), n_threads, [&](int64_t i) {
        const Task& task = tasks_[static_cast<size_t>(i)];
        run(jobs[task.job], task);
    });
}

void Gemv::plan(const std::vector<GemvJob>& jobs, int n_threads) {
    groups_.clear(), first_group_.clear(), tasks_.clear();
    int64_t chunks = 0, sums = 0, lines = 0;
    for (size_t i = 0; i < jobs.size(); ++i) {
        const GemvJob& job = jobs[i];
        const Weight& w = job.weight;
        first_group_.push_back(groups_.size());
        const auto n = static_cast<int64_t>(job.x.size());
        for (int64_t first = 0; first < n; first += groups_.back().n) {
            const bool arranged = n - first >= kernels_.arranged_from(w.format.type);
            const int64_t some = std::min<int64_t>(arranged ? kernels_.most_arranged : gemv_most_rows, n - first);
            groups_.push_back({&job, first, some, chunks, sums, arranged ? lines : -1});
            if (arranged) lines += (kernels_.arranged_bytes(w.format.type, w.depth, static_cast<int>(some)) + 63) / 64;
            chunks += some * gemv_chunks(w.depth), sums += some * 2 * gemv_chunks(w.depth);
        }
        // As many for each thread; smaller ones where several rows make them longer, so that threads end together.
        const int64_t each = task_bytes * n_threads, least = n > 1 ? few_tasks * n_threads : 1;
        const int64_t wanted = std::max((w.width * w.row_bytes + each - 1) / each * n_threads, least);
        const int64_t units = (w.width + unit - 1) / unit, count = std::min(wanted, units);
        for (int64_t t = 0; t < count; ++t)
            tasks_.push_back({i, units * t / count * unit, std::min(units * (t + 1) / count * unit, w.width)});
    }
    first_group_.push_back(groups_.size());
    if (static_cast<int64_t>(chunks_.size()) < chunks) chunks_.resize(static_cast<size_t>(chunks));
    if (static_cast<int64_t>(arranged_.size()) < lines) arranged_.resize(static_cast<size_t>(lines));
    if (static_cast<int64_t>(sums_.size()) < sums) sums_.resize(static_cast<size_t>(sums));
}

void Gemv::round(int n_threads) {
    int64_t numbers = 0, most = 0;
    for (const Group& g : groups_) numbers += g.n * g.job->weight.depth, most = std::max(most, g.n);
    const auto one = [&](int64_t i) {
        const Group& g = groups_[static_cast<size_t>(i / most)];
        const int64_t row = i % most, depth = g.job->weight.depth;
        if (row >= g.n) return;
        kernels_.round({g.job->x[static_cast<size_t>(g.first + row)], depth, g.n,
                        kernels_.offset(g.job->weight.format.type), chunks_.data() + g.chunk + row,
                        sums_.data() + g.sum + row * 2 * gemv_chunks(depth)});
        if (g.arranged >= 0) kernels_.arrange(range(g), static_cast<int>(row), arranged_.data() + g.arranged);
    };
    parallel_for(static_cast<int64_t>(groups_.size()) * most, numbers < round_alone ? 1 : n_threads, one);
}

GemvRange Gemv::range(const Group& g) const {
    const Weight& w = g.job->weight;
    return {
        w.format.type,         w.data, w.row_bytes, w.width, w.depth, chunks_.data() + g.chunk, sums_.data() + g.sum,
        static_cast<int>(g.n), nullptr};
}

void Gemv::run(const GemvJob& job, const Task& task) const {
    for (size_t i = first_group_[task.job]; i < first_group_[task.job + 1]; ++i) {
        const Group& g = groups_[i];
        float* out[gemv_most_arranged];
        for (int64_t r = 0; r < g.n; ++r) out[r] = job.out[static_cast<size_t>(g.first + r)] + task.begin;
        GemvRange p = range(g);
        p.weight += task.begin * p.row_bytes, p.n = task.end - task.begin, p.out = out;
        if (g.arranged >= 0)
            kernels_.multiply_arranged(p, arranged_.data() + g.arranged);
        else
            kernels_.multiply(p);
    }
}

}  // namespace sakuin::ggml
