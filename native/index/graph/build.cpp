// Linking new keys into a graph: batches of keys find those near them among the older ones by walks, then the answers
// of sampled queries are linked with each other. Every phase reads what an earlier one wrote and writes rows of its
// own, so that the result does not depend on the number of threads.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "index/arithmetic.hpp"
#include "index/graph/answers.hpp"
#include "index/graph/graph.hpp"
#include "index/graph/walk.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

constexpr int64_t batch = 512;     // new keys that are linked together; they see each other by comparing all pairs
constexpr int64_t near_keys = 96;  // keys near a new one among which its links are chosen
constexpr int64_t task_keys = 16;  // keys that one task works on
// Keys that answer the same queries as another one, most often, among which links are chosen.
constexpr size_t answer_pool = 64;
constexpr size_t answer_lists = 16;  // queries of a key whose answers are counted: those that rank it highest

// A link leads from `from` to `to`; sorted, all that one row gets stand together.
struct Link {
    uint32_t to, from;
    auto operator<=>(const Link&) const = default;
};

class Builder {
public:
    Builder(const GraphAppend& a, GraphLinks& g, int64_t head, int64_t first)
        : a_(a), g_(g), coordinates_(a.coordinates + head * a.coordinate_stride), first_(first) {}

    // Chooses the links of old keys again, from those they have and those of the keys that these lead to.
    void renew() {
        const GraphLinks before = g_;
        parallel_for(tasks(first_), a_.n_threads, [&](int64_t task) {
            std::vector<uint32_t> ids;
            std::vector<Ranked> pool;
            for (int64_t i = task * task_keys; i < std::min((task + 1) * task_keys, first_); ++i) {
                ids.clear();
                for (int j = 0; j < before.count[at(i)]; ++j) {
                    const uint32_t id = before.row(i)[j];
                    ids.insert(ids.end(), before.row(id), before.row(id) + before.count[id]);
                }
                std::sort(ids.begin(), ids.end());
                ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
                pool.clear();
                for (const uint32_t id : ids) pool.push_back(nearness(apart(static_cast<uint32_t>(i), id), id));
                keep_best(pool);
                choose(static_cast<uint32_t>(i), pool);
            }
        });
    }

    void link_new_keys() {
        for (int64_t at = first_; at < g_.n(); at += batch) link_batch(at, std::min(at + batch, g_.n()));
    }

    void link_answers(const Answers& answers) {
        if (answers.lists == 0) return;
        g_.entry = answers.most_frequent_first();
        const AnswersByKey by_key(answers, g_.n());
        std::vector<std::vector<uint32_t>> added(by_key.keys.size());
        parallel_for(tasks(by_key.size()), a_.n_threads, [&](int64_t task) {
            std::vector<Ranked> pool;
            std::vector<uint32_t> ids, before;
            for (int64_t i = task * task_keys; i < std::min((task + 1) * task_keys, by_key.size()); ++i) {
                const uint32_t key = by_key.keys[at(i)];
                co_answering(answers, by_key, i, ids, pool);
                before.assign(g_.row(key), g_.row(key) + g_.count[key]);
                choose(key, pool);
                std::sort(before.begin(), before.end());
                for (int j = 0; j < g_.count[key]; ++j)
                    if (!std::binary_search(before.begin(), before.end(), g_.row(key)[j]))
                        added[at(i)].push_back(g_.row(key)[j]);
            }
        });
        std::vector<Link> links;
        for (size_t i = 0; i < added.size(); ++i)
            for (const uint32_t to : added[i]) links.push_back({to, by_key.keys[i]});
        add_links(links);
    }

private:
    static int64_t tasks(int64_t n) { return (n + task_keys - 1) / task_keys; }
    const int16_t* place(int64_t i) const { return coordinates_ + i * graph_coordinates; }
    uint32_t apart(uint32_t x, uint32_t y) const { return distance(place(x), place(y)); }

    void link_batch(int64_t from, int64_t to) {
        std::vector<std::vector<Ranked>> near(at(to - from));
        parallel_for(tasks(to - from), a_.n_threads, [&](int64_t task) {
            Walk walk;
            for (int64_t i = from + task * task_keys; i < std::min(from + (task + 1) * task_keys, to); ++i)
                near[at(i - from)] = neighbours(i, from, to, walk);
        });
        for (int64_t i = from; i < to; ++i) adopt(static_cast<uint32_t>(i), near[at(i - from)]);
        parallel_for(tasks(to - from), a_.n_threads, [&](int64_t task) {
            for (int64_t i = from + task * task_keys; i < std::min(from + (task + 1) * task_keys, to); ++i)
                choose(static_cast<uint32_t>(i), near[at(i - from)]);
        });
        std::vector<Link> back;
        for (int64_t i = from; i < to; ++i)
            for (int j = 0; j < g_.count[at(i)]; ++j) back.push_back({g_.row(i)[j], static_cast<uint32_t>(i)});
        add_links(back);
    }

    // The keys nearest to key i, nearest first: of its batch by comparing all, of the older ones by a walk.
    std::vector<Ranked> neighbours(int64_t i, int64_t from, int64_t to, Walk& walk) const {
        const int16_t* own = place(i);
        std::vector<Ranked> near;
        near.reserve(at(to - from) + at(near_keys));
        if (from > 0) {
            const uint32_t entries[] = {static_cast<uint32_t>(from - 1), g_.entry, 0};
            walk.run(g_, from, entries, 3, near_keys, [&](const uint32_t* ids, int64_t m, Ranked* out) {
                for (int64_t j = 0; j < m; ++j) __builtin_prefetch(place(ids[j]));
                for (int64_t j = 0; j < m; ++j) out[j] = nearness(distance(own, place(ids[j])), ids[j]);
            });
            near = walk.found;
        }
        for (int64_t j = from; j < to; ++j)
            if (j != i) near.push_back(nearness(distance(own, place(j)), static_cast<uint32_t>(j)));
        keep_best(near);
        return near;
    }

    static void keep_best(std::vector<Ranked>& near) {
        const size_t kept = std::min(near.size(), at(near_keys));
        std::partial_sort(near.begin(), near.begin() + static_cast<ptrdiff_t>(kept), near.end(), std::greater<>());
        near.resize(kept);
    }

    // Makes key i the child of the nearest earlier key that has room for one.
    // The key just before it always has: nobody came between.
    void adopt(uint32_t i, const std::vector<Ranked>& near) {
        if (i == 0) return;
        uint32_t parent = i - 1;
        for (const Ranked r : near)
            if (id_of(r) < i && g_.children[id_of(r)] < g_.degree / 2) {
                parent = id_of(r);
                break;
            }
        uint32_t* row = g_.row(parent);
        uint8_t &count = g_.count[parent], &children = g_.children[parent];
        if (count < g_.degree) ++count;  // else the last link, a far one, makes room
        std::copy_backward(row + children, row + count - 1, row + count);
        row[children++] = i;
    }

    // Sets key i's links to the best of what it has and of `pool`, which holds keys by nearness and maybe some twice. A
    // key does without a link to one that lies clearly nearer to another linked one, from which it is reached; where
    // links are left over, the nearest of these get them after all. Children stay.
    void choose(uint32_t i, std::vector<Ranked>& pool) {
        uint32_t* row = g_.row(i);
        const int children = g_.children[i];
        for (int j = children; j < g_.count[i]; ++j) pool.push_back(nearness(apart(i, row[j]), row[j]));
        std::sort(pool.begin(), pool.end(), std::greater<>());
        pool.erase(std::unique(pool.begin(), pool.end()), pool.end());
        std::vector<uint32_t> chosen(row, row + children), spare;
        for (const Ranked r : pool) {
            if (static_cast<int>(chosen.size()) == g_.degree) break;
            const uint32_t id = id_of(r);
            if (id == i || std::find(row, row + children, id) != row + children) continue;
            const uint64_t limit = uint64_t{5} * distance_of(r);
            const bool hidden = std::any_of(chosen.begin(), chosen.end(),
                                            [&](uint32_t c) { return uint64_t{6} * apart(c, id) < limit; });
            (hidden ? spare : chosen).push_back(id);
        }
        for (const uint32_t id : spare) {
            if (static_cast<int>(chosen.size()) == g_.degree) break;
            chosen.push_back(id);
        }
        std::copy(chosen.begin(), chosen.end(), row);
        g_.count[i] = static_cast<uint8_t>(chosen.size());
    }

    void add_links(std::vector<Link>& links) {
        std::sort(links.begin(), links.end());
        std::vector<size_t> starts;
        for (size_t i = 0; i < links.size(); ++i)
            if (i == 0 || links[i].to != links[i - 1].to) starts.push_back(i);
        starts.push_back(links.size());
        const auto rows = static_cast<int64_t>(starts.size()) - 1;
        parallel_for(tasks(rows), a_.n_threads, [&](int64_t task) {
            std::vector<Ranked> pool;
            for (int64_t r = task * task_keys; r < std::min((task + 1) * task_keys, rows); ++r) {
                const uint32_t key = links[starts[at(r)]].to;
                uint32_t* row = g_.row(key);
                pool.clear();
                for (size_t l = starts[at(r)]; l < starts[at(r) + 1]; ++l) {
                    const uint32_t from = links[l].from;
                    if (std::find(row, row + g_.count[key], from) != row + g_.count[key]) continue;
                    if (pool.empty() && g_.count[key] < g_.degree)
                        row[g_.count[key]++] = from;
                    else
                        pool.push_back(nearness(apart(key, from), from));
                }
                if (!pool.empty()) choose(key, pool);
            }
        });
    }

    // Fills `pool` with the keys that most often answer the same queries as the i-th key of `by_key`.
    void co_answering(const Answers& answers, const AnswersByKey& by_key, int64_t i, std::vector<uint32_t>& ids,
                      std::vector<Ranked>& pool) const {
        const uint32_t key = by_key.keys[at(i)];
        ids.clear();
        pool.clear();
        const size_t begin = by_key.starts[at(i)], lists = std::min(by_key.starts[at(i) + 1] - begin, answer_lists);
        for (size_t l = begin; l < begin + lists; ++l) {
            const uint32_t* list = answers.ids.data() + by_key.lists[l] * at(answers.length);
            ids.insert(ids.end(), list, list + answers.length);
        }
        std::sort(ids.begin(), ids.end());
        std::vector<std::pair<uint32_t, Ranked>> counted;  // how often, then how near
        for (size_t j = 0; j < ids.size();) {
            size_t next = j + 1;
            while (next < ids.size() && ids[next] == ids[j]) ++next;
            if (ids[j] != key)
                counted.emplace_back(static_cast<uint32_t>(next - j), nearness(apart(key, ids[j]), ids[j]));
            j = next;
        }
        const size_t kept = std::min(counted.size(), answer_pool);
        std::partial_sort(counted.begin(), counted.begin() + static_cast<ptrdiff_t>(kept), counted.end(),
                          std::greater<>());
        for (size_t j = 0; j < kept; ++j) pool.push_back(counted[j].second);
    }

    const GraphAppend& a_;
    GraphLinks& g_;
    const int16_t* coordinates_;
    int64_t first_;
};

}  // namespace

Graph graph_append(const Graph& graph, const GraphAppend& a) {
    if (a.keys.n < graph.n || a.keys.n > graph_most_tokens)
        throw std::invalid_argument("a graph of " + std::to_string(graph.n) + " tokens cannot grow to " +
                                    std::to_string(a.keys.n));
    Graph out{graph.head_dim, a.keys.n, {}};
    for (size_t h = 0; h < graph.heads.size(); ++h) {
        const GraphLinks& from = graph.heads[h];
        GraphLinks& to = out.heads.emplace_back(GraphLinks{from.degree, from.entry, {}, {}, {}});
        to.links.resize(static_cast<size_t>(a.keys.n * from.degree));
        std::copy(from.links.begin(), from.links.end(), to.links.begin());
        to.count = from.count;
        to.children = from.children;
        to.count.resize(static_cast<size_t>(a.keys.n));
        to.children.resize(static_cast<size_t>(a.keys.n));
        Builder builder(a, to, static_cast<int64_t>(h), graph.n);
        if (a.renew) builder.renew();
        builder.link_new_keys();
        builder.link_answers(answers_of(graph, a, static_cast<int64_t>(h)));
    }
    return out;
}

}  // namespace sakuin
