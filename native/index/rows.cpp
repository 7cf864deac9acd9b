#include "index/rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "parallel.hpp"

namespace sakuin {
namespace {

constexpr float log2e = 1.44269504f, ln2 = 0.693147181f;
constexpr float nothing = -std::numeric_limits<float>::infinity();
constexpr float largest = std::numeric_limits<float>::max();
// A task's keys, values and weights together should stay in the second-level cache.
constexpr int64_t most_rows = 1024, least_rows = 128;

size_t at(int64_t i) { return static_cast<size_t>(i); }

float log2_add(float a, float b) {
    const float most = std::max(a, b);
    return std::isinf(most) ? most : most + std::log2(std::exp2(a - most) + std::exp2(b - most));
}

const void* row_of(const void* rows, DType dtype, int64_t head_dim, int64_t row) {
    return static_cast<const char*>(rows) + row * head_dim * dtype_size(dtype);
}

// 0, 1, 2, ...: which rows a straight read takes.
const uint32_t* straight() {
    static const std::vector<uint32_t> all = [] {
        std::vector<uint32_t> x(at(most_rows));
        std::iota(x.begin(), x.end(), 0u);
        return x;
    }();
    return all.data();
}

void score(const Kernels& k, const float* q, int64_t head_dim, int64_t group, const RowPick& p, int64_t from, int64_t m, float* scores) {
    const RowStore& s = *p.store;
    const int d = static_cast<int>(head_dim), g = static_cast<int>(group);
    if (p.rows != nullptr)
        k.sketch->score_rows(q, s.keys, s.dtype, d, p.rows + from, m, g, scores);
    else
        k.sketch->score_rows(q, row_of(s.keys, s.dtype, head_dim, p.begin + from), s.dtype, d, straight(), m, g, scores);
}

// A part of a pick or of summaries, whichever is not null.
struct Piece {
    const RowPick* pick;
    const RowSummaries* rest;
    int64_t from, m;
};

// Pieces of one head, and what they come to relative to `top`. Arrays per query head are padded.
struct Task {
    int64_t head;
    std::vector<Piece> pieces;
    int64_t rows;
    std::vector<float> weights;  // (rows, padded) and room for a vector more
    float top[max_group], exact[max_group], rest[max_group];
    std::vector<float> out;  // (group, head_dim)
};

// Numbers per query head, of a width that the compiler knows: sums and maxima stay in registers.
template <int Width>
void raise(float* x, int64_t m, float* top) {
    float most[Width];
    std::copy_n(top, Width, most);
    for (int64_t i = 0; i < m; ++i)
        for (int g = 0; g < Width; ++g) {
            // Products beyond float32 would make the weights infinite minus infinite.
            const float v = x[i * Width + g] = std::min(std::max(x[i * Width + g], -largest), largest);
            most[g] = most[g] < v ? v : most[g];
        }
    std::copy_n(most, Width, top);
}

template <int Width>
void add_up(const float* x, int64_t m, float* sum) {
    float all[Width];
    std::copy_n(sum, Width, all);
    for (int64_t i = 0; i < m; ++i)
        for (int g = 0; g < Width; ++g) all[g] += x[i * Width + g];
    std::copy_n(all, Width, sum);
}

template <class Fn>
void by_width(int64_t width, const Fn& fn) {
    switch (width) {
        case 4: fn.template operator()<4>(); break;
        case 8: fn.template operator()<8>(); break;
        default: fn.template operator()<16>(); break;
    }
}

class Step {
public:
    Step(const RowAttend& a, const std::vector<RowChoice>& choices, std::vector<Task>& tasks)
        : a_(a), k_(*a.kernels->sketch), choices_(choices), width_(padded(static_cast<int>(a.group))), tasks_(tasks) {
        cut();
    }

    int64_t run() {
        const int threads = useful_threads();
        parallel_for(count_, threads, [this](int64_t i) { by_width(width_, [&]<int Width>() { attend<Width>(task(i)); }); });
        std::vector<float> share(at(a_.heads * width_), nothing);  // base 2: what a weight of top 0 is of the whole softmax
        for (int64_t h = 0, i = 0; h < a_.heads; ++h) {
            const int64_t begin = i;
            while (i < count_ && task(i).head == h) ++i;
            for (int64_t g = 0; g < a_.group; ++g) share[at(h * width_ + g)] = -merge(h, g, begin, i);
        }
        if (a_.mass != nullptr) parallel_for(count_, threads, [&](int64_t i) { add_mass(task(i), share.data() + task(i).head * width_); });
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
        const int64_t most = std::clamp(rows_ / (6 * std::max(a_.n_threads, 1)), least_rows, most_rows);
        for (int64_t h = 0; h < a_.heads; ++h) {
            Task* t = nullptr;
            const auto add = [&](Piece piece, int64_t m) {
                for (piece.from = 0; piece.from < m; piece.from += piece.m) {
                    if (t == nullptr || t->rows == most) t = &add_task(h);
                    piece.m = std::min(m - piece.from, most - t->rows);
                    t->pieces.push_back(piece);
                    t->rows += piece.m;
                }
            };
            for (const RowPick& p : choices_[at(h)].picks) add({&p, nullptr, 0, 0}, p.m);
            for (const RowSummaries& s : choices_[at(h)].rest) add({nullptr, &s, 0, 0}, s.n);
        }
    }

    // Waking a second thread costs some ten microseconds; it is worth it from about as much work on.
    int useful_threads() const {
        const int64_t work = 2 * rows_ * a_.head_dim;
        return static_cast<int>(std::clamp<int64_t>(std::max(work * a_.group >> 20, work >> 18), 1, std::max(a_.n_threads, 1)));
    }

    template <int Width>
    void attend(Task& t) {
        const int d = static_cast<int>(a_.head_dim), group = static_cast<int>(a_.group);
        if (t.weights.size() < at((t.rows + 4) * Width)) t.weights.resize(at((t.rows + 4) * Width));
        std::fill_n(t.top, Width, nothing);
        float* w = t.weights.data();
        for (const Piece& p : t.pieces) {
            if (p.pick != nullptr) {
                score(*a_.kernels, a_.q + t.head * a_.group * a_.head_dim, a_.head_dim, a_.group, *p.pick, p.from, p.m, w);
                raise<Width>(w, p.m, t.top);
            } else {
                std::copy_n(p.rest->scores + p.from * Width, p.m * Width, w);
                for (int64_t i = 0; i < p.m; ++i)
                    if (p.rest->left[p.from + i] > 0) raise<Width>(w + i * Width, 1, t.top);
            }
            w += p.m * Width;
        }
        // What fills a group up, and heads of summaries in which nothing is left, have no largest score.
        for (int g = 0; g < Width; ++g) {
            if (t.top[g] == nothing) t.top[g] = 0.0f;
            if (a_.softcap > 0.0f) t.top[g] = cap() * std::tanh(t.top[g] / cap());
        }
        k_.weights(t.weights.data(), t.rows, group, cap(), t.top);

        std::fill_n(t.exact, Width, 0.0f);
        std::fill_n(t.rest, Width, 0.0f);
        t.out.assign(at(a_.group * a_.head_dim), 0.0f);
        w = t.weights.data();
        for (const Piece& p : t.pieces) {
            if (p.pick != nullptr) {
                const RowStore& s = *p.pick->store;
                add_up<Width>(w, p.m, t.exact);
                if (p.pick->rows != nullptr)
                    k_.add_rows(s.values, s.dtype, d, p.pick->rows + p.from, p.m, w, group, t.out.data());
                else
                    k_.add_rows(row_of(s.values, s.dtype, a_.head_dim, p.pick->begin + p.from), s.dtype, d, nullptr, p.m, w, group, t.out.data());
            } else {
                for (int64_t i = 0; i < p.m; ++i) {
                    const int32_t left = p.rest->left[p.from + i];
                    for (int g = 0; g < Width; ++g) w[i * Width + g] = left > 0 ? w[i * Width + g] * static_cast<float>(left) : 0.0f;
                }
                add_up<Width>(w, p.m, t.rest);
                if (a_.add_rest)
                    k_.add_rows(row_of(p.rest->values, p.rest->dtype, a_.head_dim, p.from), p.rest->dtype, d, nullptr, p.m, w, group, t.out.data());
            }
            w += p.m * Width;
        }
    }

    // Puts a query head's tasks together; returns the lse of everything, static part included, in base 2.
    float merge(int64_t head, int64_t g, int64_t begin, int64_t end) {
        const int64_t d = a_.head_dim, row = (head * a_.group + g) * a_.t + a_.position;
        float* out = a_.out + row * d;
        std::fill_n(out, d, 0.0f);
        float top = nothing, exact = 0.0f, rest = 0.0f;
        for (int64_t i = begin; i < end; ++i)
            if (!(task(i).exact[g] + task(i).rest[g] == 0.0f)) top = std::max(top, task(i).top[g]);
        if (top == nothing) top = 0.0f;
        for (int64_t i = begin; i < end; ++i) {
            const Task& t = task(i);
            if (t.exact[g] + t.rest[g] == 0.0f) continue;
            const float scale = std::exp2(t.top[g] - top);
            exact += scale * t.exact[g];
            rest += scale * t.rest[g];
            for (int64_t j = 0; j < d; ++j) out[j] += scale * t.out[at(g * d + j)];
        }
        const float total = exact + (a_.add_rest ? rest : 0.0f);
        if (total != 0.0f)
            for (int64_t j = 0; j < d; ++j) out[j] /= total;
        const float lse = total == 0.0f ? nothing : top + std::log2(total);
        const float beside = a_.static_lse != nullptr ? a_.static_lse[row] * log2e : nothing, all = log2_add(lse, beside);
        const float known = log2_add(exact + rest == 0.0f ? nothing : top + std::log2(exact + rest), beside);
        a_.lse[row] = lse * ln2;
        const float near = exact == 0.0f ? nothing : top + std::log2(exact);
        a_.coverage[row] = std::isinf(known) ? 1.0f : std::min(std::exp2(near - known) + std::exp2(beside - known), 1.0f);
        return all;
    }

    // share (padded): minus the lse of everything, in base 2.
    void add_mass(const Task& t, const float* share) {
        float scale[max_group] = {};
        for (int64_t g = 0; g < a_.group; ++g) scale[g] = std::isinf(share[g]) ? 0.0f : std::exp2(t.top[g] + share[g]);
        const float* w = t.weights.data();
        for (const Piece& p : t.pieces) {
            if (p.pick != nullptr)
                for (int64_t i = 0; i < p.m; ++i) {
                    const int64_t row = p.pick->rows != nullptr ? p.pick->rows[p.from + i] : p.pick->begin + p.from + i;
                    float sum = 0.0f;
                    for (int64_t g = 0; g < a_.group; ++g) sum += w[i * width_ + g] * scale[g];
                    a_.mass[t.head * a_.mass_stride + p.pick->store->token(row)] += sum;
                }
            w += p.m * width_;
        }
    }

    int64_t touched() const {
        int64_t bytes = 0;
        for (int64_t h = 0; h < a_.heads; ++h) {
            int64_t picked = 0;
            for (const RowPick& p : choices_[at(h)].picks) {
                picked += p.m;
                bytes += p.m * 2 * a_.head_dim * dtype_size(p.store->dtype);
            }
            if (a_.add_rest)
                for (const RowSummaries& s : choices_[at(h)].rest) bytes += s.n * (a_.head_dim * dtype_size(s.dtype) + 4);
            a_.exact_share[h * a_.t + a_.position] = a_.n_tokens > 0 ? static_cast<float>(picked) / static_cast<float>(a_.n_tokens) : 0.0f;
        }
        return bytes;
    }

    float cap() const { return a_.softcap * log2e; }

    const RowAttend& a_;
    const SketchKernels& k_;
    const std::vector<RowChoice>& choices_;
    const int64_t width_;
    std::vector<Task>& tasks_;
    int64_t count_ = 0, rows_ = 0;
};

// Kept between steps: fresh pages for the weights would cost more than what is written to them.
std::vector<Task>& kept_tasks() {
    static thread_local std::vector<Task> tasks;
    return tasks;
}

}  // namespace

int64_t attend_rows(const RowAttend& a, const std::vector<RowChoice>& choices) { return Step(a, choices, kept_tasks()).run(); }

std::vector<float> scaled_queries(const float* q, int64_t rows, int64_t t, int64_t position, int64_t head_dim, float scaling) {
    std::vector<float> scaled(at(rows * head_dim));
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < head_dim; ++j) scaled[at(r * head_dim + j)] = q[(r * t + position) * head_dim + j] * scaling * log2e;
    return scaled;
}

void search_rows(const Kernels& kernels, const float* query, int64_t head_dim, const std::vector<RowPick>& picks, int64_t k, float* scores,
                 int64_t* tokens) {
    constexpr int64_t width = 4;  // padded(1)
    std::vector<std::pair<float, int64_t>> found;
    std::vector<float> block(at((most_rows + 4) * width));
    for (const RowPick& p : picks)
        for (int64_t from = 0; from < p.m; from += most_rows) {
            const int64_t m = std::min(most_rows, p.m - from);
            score(kernels, query, head_dim, 1, p, from, m, block.data());
            for (int64_t i = 0; i < m; ++i) {
                const int64_t row = p.rows != nullptr ? p.rows[from + i] : p.begin + from + i;
                const float s = block[at(i * width)];
                found.emplace_back(std::isnan(s) ? nothing : s, p.store->token(row));  // not a number has no place in an order
            }
        }
    const auto better = [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
    std::partial_sort(found.begin(), found.begin() + k, found.end(), better);
    for (int64_t i = 0; i < k; ++i) std::tie(scores[i], tokens[i]) = found[at(i)];
}

}  // namespace sakuin
