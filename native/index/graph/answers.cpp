#include "index/graph/answers.hpp"

#include <algorithm>
#include <numeric>

#include "index/graph/walk.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

constexpr int64_t tile = 512;  // keys that stay in the cache while several groups of queries pass

// The best `length` keys so far, and room for as many that may be among them.
class Best {
public:
    explicit Best(int64_t length) : length_(static_cast<size_t>(length)) { kept_.reserve(2 * length_); }

    float least() const { return least_; }
    void add(float score, uint32_t id) {
        kept_.push_back(ranked(score, id));
        if (kept_.size() == 2 * length_) shrink();
    }
    void write(uint32_t* out) {
        std::sort(kept_.begin(), kept_.end(), std::greater<>());
        for (size_t i = 0; i < length_; ++i) out[i] = id_of(kept_[i]);
    }

private:
    void shrink() {
        const auto end = kept_.begin() + static_cast<ptrdiff_t>(length_);
        std::nth_element(kept_.begin(), end - 1, kept_.end(), std::greater<>());
        kept_.resize(length_);
        least_ = score_of(kept_.back());
    }

    size_t length_;
    float least_ = -__builtin_inff();
    std::vector<Ranked> kept_;
};

}  // namespace

uint32_t Answers::most_frequent_first() const {
    std::vector<uint32_t> first;
    for (int64_t l = 0; l < lists; ++l) first.push_back(ids[static_cast<size_t>(l * length)]);
    std::sort(first.begin(), first.end());
    uint32_t best = first.front();
    size_t most = 0;
    for (size_t i = 0; i < first.size();) {
        const size_t end = static_cast<size_t>(
            std::upper_bound(first.begin() + static_cast<ptrdiff_t>(i), first.end(), first[i]) - first.begin());
        if (end - i > most) {
            most = end - i;
            best = first[i];
        }
        i = end;
    }
    return best;
}

Answers answers_of(const Graph& graph, const GraphAppend& a, int64_t head) {
    const int64_t n = a.keys.n, d = graph.head_dim, groups_in_task = 4;
    Answers out;
    if (a.n_queries == 0 || n == 0) return out;
    out.lists = a.n_queries;
    out.length = std::min(n, answers_kept);
    out.ids.resize(static_cast<size_t>(out.lists * out.length));
    std::vector<uint32_t> ids(static_cast<size_t>(n));
    std::iota(ids.begin(), ids.end(), 0u);
    const int64_t in_task = groups_in_task * max_group, tasks = (a.n_queries + in_task - 1) / in_task;
    const float* queries = a.queries + head * a.n_queries * d;
    parallel_for(tasks, a.n_threads, [&](int64_t task) {
        const int64_t from = task * in_task, to = std::min(from + in_task, a.n_queries);
        std::vector<Best> best(static_cast<size_t>(to - from), Best(out.length));
        std::vector<float> scores(static_cast<size_t>(tile * max_group));
        for (int64_t first = 0; first < n; first += tile) {
            const int64_t here = std::min(tile, n - first);
            for (int64_t q = from; q < to; q += max_group) {
                const int group = static_cast<int>(std::min<int64_t>(max_group, to - q)), width = padded(group);
                a.kernels->sketch->score_rows(queries + q * d, a.keys.head(head), a.keys.dtype, static_cast<int>(d),
                                              ids.data() + first, here, group, scores.data());
                float least[max_group];
                for (int g = 0; g < width; ++g)
                    least[g] = g < group ? best[static_cast<size_t>(q - from + g)].least() : __builtin_inff();
                for (int64_t i = 0; i < here; ++i) {
                    const float* row = scores.data() + i * width;
                    // The first ones always, so that no list is short, whatever numbers come.
                    int above = first + i < out.length ? 1 : 0;
                    for (int g = 0; g < width; ++g) above |= row[g] > least[g] ? 1 : 0;
                    if (above == 0) continue;
                    for (int g = 0; g < group; ++g)
                        if (row[g] > least[g] || first + i < out.length) {
                            Best& b = best[static_cast<size_t>(q - from + g)];
                            b.add(row[g], static_cast<uint32_t>(first + i));
                            least[g] = b.least();
                        }
                }
            }
        }
        for (int64_t q = from; q < to; ++q) best[static_cast<size_t>(q - from)].write(out.ids.data() + q * out.length);
    });
    return out;
}

AnswersByKey::AnswersByKey(const Answers& answers, int64_t n) {
    std::vector<size_t> count(static_cast<size_t>(n) + 1);
    for (const uint32_t id : answers.ids) ++count[id];
    size_t at = 0;
    for (int64_t i = 0; i <= n; ++i) {
        const size_t here = count[static_cast<size_t>(i)];
        if (here > 0) {
            keys.push_back(static_cast<uint32_t>(i));
            starts.push_back(at);
        }
        count[static_cast<size_t>(i)] = at;
        at += here;
    }
    starts.push_back(at);
    lists.resize(at);
    // By rank first: then each key's entries come out in the order of their rank.
    for (int64_t rank = 0; rank < answers.length; ++rank)
        for (int64_t list = 0; list < answers.lists; ++list)
            lists[count[answers.ids[static_cast<size_t>(list * answers.length + rank)]]++] =
                static_cast<uint32_t>(list);
}

}  // namespace sakuin
