#include "index/rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "index/arithmetic.hpp"
#include "index/kept.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

// A task's keys and values should stay in the second-level cache; from so many rows on its fixed costs are small.
constexpr int64_t most_bytes = 1 << 17, least_rows = 128, most_rows = 1024;

const char* row_of(const void* rows, int64_t row_bytes, int64_t row) {
    return static_cast<const char*>(rows) + row * row_bytes;
}

// Memory on a cache line of its own, kept by each thread: fresh pages cost more than what is written to them.
class Scratch {
public:
    template <class T>
    T* buffer(size_t n) {
        if (memory_.size() < n * sizeof(T) + 64) memory_.resize(n * sizeof(T) + 64);
        return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_.data()) + 63) & ~uintptr_t{63});
    }

private:
    std::vector<std::byte> memory_;
};

// A part of a pick or of summaries, whichever is not null.
struct Piece {
    const RowPick* pick;
    const RowSummaries* rest;
    int64_t from, m;

    int64_t row(int64_t i) const { return pick->rows != nullptr ? pick->rows[from + i] : pick->begin + from + i; }
};

// Pieces of one head, all of picks in one dtype or one of summaries, and what they come to relative to `top`.
struct Task {
    int64_t head;
    std::vector<Piece> pieces;
    int64_t rows;
    std::vector<float> top, sum;  // padded
    std::vector<float> out;       // (group, value_dim)
    std::vector<float> logits;    // (group, rows), where they are kept for the mass

    bool of_picks() const { return pieces.front().pick != nullptr; }
    DType dtype() const { return pieces.front().pick->store->dtype; }
};

// A sum of weights, total * 2^top: apart, since where scores are large their
// logarithm has no room for that of the total.
struct Sum {
    float top = nothing, total = 0.0f;

    void add(float other_top, float other) {
        if (other == 0.0f) return;  // a sum that is not a number must show in the result
        const float most = std::max(top, other_top);
        total = (total == 0.0f ? 0.0f : total * std::exp2(top - most)) + other * std::exp2(other_top - most);
        top = most;
    }
    float lse() const { return total == 0.0f ? nothing : top + std::log2(total); }
};

// Keys and values of a task one after another.
struct Gathered {
    const void *keys, *values;
};

Gathered gather(const Task& t, int64_t key_bytes, int64_t value_bytes, Scratch& scratch) {
    const Piece& first = t.pieces.front();
    if (t.pieces.size() == 1 && first.pick->rows == nullptr)
        return {row_of(first.pick->store->keys, key_bytes, first.row(0)),
                row_of(first.pick->store->values, value_bytes, first.row(0))};
    char* const keys = scratch.buffer<char>(at(t.rows * (key_bytes + value_bytes)));
    char* const values = keys + t.rows * key_bytes;
    // Runs are short and lie anywhere: while one is copied, the next is on its way.
    const auto fetch = [&](const RowStore& s, int64_t row, int64_t rows) {
        const char *k = row_of(s.keys, key_bytes, row), *v = row_of(s.values, value_bytes, row);
        for (int64_t b = 0; b < rows * key_bytes; b += 64) __builtin_prefetch(k + b);
        for (int64_t b = 0; b < rows * value_bytes; b += 64) __builtin_prefetch(v + b);
    };
    constexpr int64_t ahead = 8, most_ahead = 32;
    int64_t to = 0;
    for (size_t p = 0; p < t.pieces.size(); ++p) {
        const Piece& piece = t.pieces[p];
        const RowStore& s = *piece.pick->store;
        if (p + 1 < t.pieces.size() && t.pieces[p + 1].pick->rows == nullptr)
            fetch(*t.pieces[p + 1].pick->store, t.pieces[p + 1].row(0), std::min(t.pieces[p + 1].m, most_ahead));
        if (piece.pick->rows == nullptr) {
            std::memcpy(keys + to * key_bytes, row_of(s.keys, key_bytes, piece.row(0)), at(piece.m * key_bytes));
            std::memcpy(values + to * value_bytes, row_of(s.values, value_bytes, piece.row(0)),
                        at(piece.m * value_bytes));
        } else {
            for (int64_t i = 0; i < piece.m; ++i) {
                if (i + ahead < piece.m) fetch(s, piece.row(i + ahead), 1);
                std::memcpy(keys + (to + i) * key_bytes, row_of(s.keys, key_bytes, piece.row(i)), at(key_bytes));
                std::memcpy(values + (to + i) * value_bytes, row_of(s.values, value_bytes, piece.row(i)),
                            at(value_bytes));
            }
        }
        to += piece.m;
    }
    return {keys, values};
}

struct Memory {
    Scratch rows, kernel, weights, mass;
};
Memory& memory() {
    static thread_local Memory m;
    return m;
}

class Step {
public:
    Step(const RowCall& a, const float* q, int64_t position, const std::vector<RowChoice>& choices,
         std::vector<Task>& tasks)
        : a_(a), q_(q), position_(position), choices_(choices), width_(padded(static_cast<int>(a.group))),
          tasks_(tasks) {
        cut();
    }

    int64_t run() {
        const int threads = useful_threads();
        parallel_for(count_, threads, [this](int64_t i) {
            Task& t = task(i);
            t.top.assign(at(width_), nothing);
            t.sum.assign(at(width_), 0.0f);
            t.out.assign(at(a_.group * a_.value_dim), 0.0f);
            if (t.of_picks())
                attend(t);
            else
                estimate(t);
        });
        std::vector<float> all(at(a_.heads * width_), nothing);
        for (int64_t h = 0, i = 0; h < a_.heads; ++h) {
            const int64_t begin = i;
            while (i < count_ && task(i).head == h) ++i;
            for (int64_t g = 0; g < a_.group; ++g) all[at(h * width_ + g)] = merge(h, g, begin, i);
        }
        if (a_.mass != nullptr)
            parallel_for(count_, threads, [&](int64_t i) {
                if (task(i).of_picks()) add_mass(task(i), all.data() + task(i).head * width_);
            });
        return touched();
    }

private:
    Task& task(int64_t i) { return tasks_[at(i)]; }

    Task& add_task(int64_t head) {
        if (count_ == static_cast<int64_t>(tasks_.size())) tasks_.emplace_back();
        Task& t = task(count_++);
        t.head = head;
        t.rows = 0;
        t.pieces.clear();
        return t;
    }

    // A few tasks for each thread, so that all finish at about the same time.
    void cut() {
        for (const RowChoice& c : choices_) {
            for (const RowPick& p : c.picks) rows_ += p.m;
            for (const RowSummaries& s : c.rest) rows_ += s.n;
        }
        const int64_t wanted = rows_ / (6 * std::max(a_.n_threads, 1));
        for (int64_t h = 0; h < a_.heads; ++h) {
            Task* t = nullptr;
            for (const RowPick& p : choices_[at(h)].picks) {
                const int64_t fit =
                    std::clamp(2 * most_bytes / ((a_.head_dim + a_.value_dim) * dtype_size(p.store->dtype)), least_rows,
                               most_rows);
                const int64_t most = std::clamp(wanted, least_rows, fit);
                for (int64_t from = 0, m = 0; from < p.m; from += m) {
                    if (t == nullptr || t->rows >= most || t->dtype() != p.store->dtype) t = &add_task(h);
                    m = std::min(p.m - from, most - t->rows);
                    t->pieces.push_back({&p, nullptr, from, m});
                    t->rows += m;
                }
            }
            const int64_t most = std::clamp(wanted, least_rows, most_rows);
            for (const RowSummaries& s : choices_[at(h)].rest)
                for (int64_t from = 0; from < s.n; from += most) {
                    Task& estimated = add_task(h);
                    estimated.rows = std::min(most, s.n - from);
                    estimated.pieces.push_back({nullptr, &s, from, estimated.rows});
                }
        }
    }

    // Waking a second thread costs some ten microseconds; it is worth it from about as much work on.
    int useful_threads() const {
        const int64_t numbers = rows_ * (a_.head_dim + a_.value_dim);
        return static_cast<int>(
            std::clamp<int64_t>(std::max(numbers * a_.group >> 20, numbers >> 19), 1, std::max(a_.n_threads, 1)));
    }

    // The task's rows as `flat` attends to them.
    FlatRange range(const Task& t) const {
        const int64_t size = dtype_size(t.dtype());
        const Gathered rows = gather(t, a_.head_dim * size, a_.value_dim * size, memory().rows);
        FlatRange r{};
        r.q = q_ + t.head * a_.group * a_.head_dim;
        r.scale = a_.softcap > 0.0f ? 1.0f / cap() : 1.0f;
        r.rows = a_.group;
        r.head_dim = a_.head_dim;
        r.value_dim = a_.value_dim;
        r.dtype = t.dtype();
        r.keys = rows.keys;
        r.values = rows.values;
        r.key_stride = a_.head_dim;
        r.value_stride = a_.value_dim;
        r.n = t.rows;
        r.softcap = a_.softcap;
        r.scratch = memory().kernel.buffer<float>(a_.kernels->flat_scratch(r));
        return r;
    }

    void attend(Task& t) const {
        FlatRange r = range(t);
        r.out = t.out.data();
        r.max = t.top.data();
        r.sum = t.sum.data();
        if (a_.mass != nullptr) {
            t.logits.resize(at(a_.group * t.rows));
            r.logits = t.logits.data();
            r.logit_stride = t.rows;
        }
        a_.kernels->flat_range(r);
    }

    void estimate(Task& t) const {
        const RowSummaries& s = *t.pieces.front().rest;
        const int64_t from = t.pieces.front().from;
        const int group = static_cast<int>(a_.group);
        float* const w = memory().weights.buffer<float>(at((t.rows + 4) * width_));
        std::copy_n(s.scores + from * width_, t.rows * width_, w);
        for (int64_t i = 0; i < t.rows; ++i)
            if (s.left[from + i] > 0)
                for (int64_t g = 0; g < width_; ++g) t.top[at(g)] = std::max(t.top[at(g)], w[i * width_ + g]);
        for (float& top : t.top) {
            if (top == nothing) top = 0.0f;
            if (a_.softcap > 0.0f) top = cap() * std::tanh(top / cap());
        }
        a_.kernels->sketch->weights(w, t.rows, group, a_.softcap > 0.0f ? cap() : 0.0f, t.top.data());
        float sum[max_group] = {};  // in memory of the task every addition would wait for the last
        for (int64_t i = 0; i < t.rows; ++i) {
            const int32_t left = s.left[from + i];
            for (int64_t g = 0; g < width_; ++g) {
                float& weight = w[i * width_ + g];
                weight = left > 0 ? weight * static_cast<float>(left) : 0.0f;
                sum[g] += weight;
            }
        }
        std::copy_n(sum, width_, t.sum.data());
        if (a_.estimate_rest)
            a_.kernels->sketch->add_rows(row_of(s.values, a_.value_dim * dtype_size(s.dtype), from), s.dtype,
                                         static_cast<int>(a_.value_dim), nullptr, t.rows, w, group, t.out.data());
    }

    // Puts a query head's tasks together; returns the lse of everything, static part included, in base 2.
    float merge(int64_t head, int64_t g, int64_t begin, int64_t end) {
        const int64_t d = a_.value_dim, row = (head * a_.group + g) * a_.t + position_;
        float* out = a_.out + row * d;
        std::fill_n(out, d, 0.0f);
        Sum exact, rest;
        for (int64_t i = begin; i < end; ++i)
            (task(i).of_picks() ? exact : rest).add(task(i).top[at(g)], task(i).sum[at(g)]);
        Sum both = exact;
        both.add(rest.top, rest.total);
        // What was picked may be next to nothing beside the rest, and is the whole result without it.
        const Sum& result = a_.estimate_rest ? both : exact;
        for (int64_t i = begin; i < end; ++i) {
            const Task& t = task(i);
            if (t.sum[at(g)] == 0.0f || !(t.of_picks() || a_.estimate_rest)) continue;
            const float scale = std::exp2(t.top[at(g)] - result.top) / result.total;
            for (int64_t j = 0; j < d; ++j) out[j] += scale * t.out[at(g * d + j)];
        }
        const float beside = a_.static_lse != nullptr ? a_.static_lse[row] * log2e : nothing;
        const float known = log2_add(both.lse(), beside);
        a_.lse[row] = result.lse() * ln2;
        const float picked = exact.total == 0.0f ? 0.0f
                                                 : exact.total * std::exp2(exact.top - both.top) / both.total *
                                                       std::exp2(both.lse() - known);
        a_.coverage[row] = std::isinf(known) ? 1.0f : std::min(picked + std::exp2(beside - known), 1.0f);
        return log2_add(result.lse(), beside);
    }

    // lse (padded): of everything, in base 2.
    void add_mass(Task& t, const float* lse) const {
        FlatRange r{};
        r.rows = a_.group;
        r.n = t.rows;
        r.logits = t.logits.data();
        r.logit_stride = t.rows;
        r.lse = lse;
        r.mass = memory().mass.buffer<float>(at(t.rows));
        std::fill_n(r.mass, t.rows, 0.0f);
        a_.kernels->flat_kept_mass(r);
        const float* shares = r.mass;
        for (const Piece& p : t.pieces)
            for (int64_t i = 0; i < p.m; ++i)
                a_.mass[t.head * a_.mass_stride + p.pick->store->token(p.row(i))] += *shares++;
    }

    int64_t touched() const {
        int64_t bytes = 0;
        for (int64_t h = 0; h < a_.heads; ++h) {
            int64_t picked = 0;
            for (const RowPick& p : choices_[at(h)].picks) {
                picked += p.m;
                bytes += p.m * (a_.head_dim + a_.value_dim) * dtype_size(p.store->dtype);
            }
            if (a_.estimate_rest)
                for (const RowSummaries& s : choices_[at(h)].rest)
                    bytes += s.n * (a_.value_dim * dtype_size(s.dtype) + 4);
            a_.exact_share[h * a_.t + position_] =
                a_.n_tokens > 0 ? static_cast<float>(picked) / static_cast<float>(a_.n_tokens) : 0.0f;
        }
        return bytes;
    }

    float cap() const { return a_.softcap * log2e; }

    const RowCall& a_;
    const float* q_;
    const int64_t position_;
    const std::vector<RowChoice>& choices_;
    const int64_t width_;
    std::vector<Task>& tasks_;
    int64_t count_ = 0, rows_ = 0;
};

std::vector<Task>& kept_tasks() {
    static thread_local std::vector<Task> tasks;
    return tasks;
}

}  // namespace

int64_t attend_rows(const RowCall& a, const float* q, int64_t position, const std::vector<RowChoice>& choices) {
    Kept tasks(kept_tasks());
    return Step(a, q, position, choices, *tasks).run();
}

std::vector<float> scaled_queries(const float* q, int64_t rows, int64_t t, int64_t position, int64_t head_dim,
                                  float scaling) {
    std::vector<float> scaled(at(rows * head_dim));
    // A product with a key may not go beyond float32: infinite minus infinite is no weight.
    constexpr float most = 1e18f;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < head_dim; ++j)
            scaled[at(r * head_dim + j)] =
                std::min(std::max(q[(r * t + position) * head_dim + j] * scaling * log2e, -most), most);
    return scaled;
}

}  // namespace sakuin
