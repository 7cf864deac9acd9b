#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "index/graph/graph.hpp"
#include "index/graph/walk.hpp"
#include "parallel.hpp"

namespace sakuin {

int64_t Graph::nbytes() const {
    int64_t total = 0;
    for (const GraphLinks& g : heads)
        total += static_cast<int64_t>(g.links.size() * sizeof(uint32_t) + g.count.size() + g.children.size());
    return total;
}

Graph graph_crop(const Graph& graph, int64_t n) {
    if (n < 0 || n > graph.n)
        throw std::invalid_argument("a graph of " + std::to_string(graph.n) + " tokens cannot keep " +
                                    std::to_string(n));
    Graph out{graph.head_dim, n, {}};
    for (const GraphLinks& from : graph.heads) {
        GraphLinks to{from.degree, static_cast<int64_t>(from.entry) < n ? from.entry : 0, {}, {}, {}};
        to.links.resize(static_cast<size_t>(n * from.degree));
        to.count.resize(static_cast<size_t>(n));
        to.children.resize(static_cast<size_t>(n));
        for (int64_t i = 0; i < n; ++i) {
            const auto row = static_cast<size_t>(i);
            for (int j = 0; j < from.count[row]; ++j) {
                const uint32_t id = from.row(i)[j];
                if (static_cast<int64_t>(id) >= n) continue;
                to.row(i)[to.count[row]++] = id;
                to.children[row] = static_cast<uint8_t>(to.children[row] + (j < from.children[row] ? 1 : 0));
            }
        }
        out.heads.push_back(std::move(to));
    }
    return out;
}

void graph_search(const Graph& graph, const GraphSearch& a) {
    if (a.k < 1 || a.k > graph.n)
        throw std::invalid_argument("k must be from 1 to the index's " + std::to_string(graph.n) + " tokens, got " +
                                    std::to_string(a.k));
    const int64_t rows = static_cast<int64_t>(graph.heads.size()) * a.group * a.t, d = graph.head_dim;
    const int64_t ef = std::min(std::max(a.ef, a.k), graph.n);
    parallel_for(rows, a.n_threads, [&](int64_t r) {
        const int64_t head = r / (a.group * a.t);
        KeyWalk walk;
        std::vector<float> q(static_cast<size_t>(d));
        const float unit = tamed(a.q + r * d, d, q.data());
        walk.run(graph.heads[static_cast<size_t>(head)], a.keys.head(head), a.keys.dtype, graph.n, d, q.data(), ef,
                 *a.kernels);
        // Never fewer than k were found: a walk ends with ef keys, or when it has seen all,
        // which are reached from key 0.
        const int64_t there = walk.sort(a.k);
        for (int64_t i = 0; i < a.k; ++i) {
            const Ranked found = i < there ? walk.found[static_cast<size_t>(i)] : ranked(-__builtin_inff(), 0);
            a.scores[r * a.k + i] = untamed(score_of(found), unit);
            a.ids[r * a.k + i] = id_of(found);
        }
        a.scanned[r] = walk.scanned;
        a.walked[r] = walk.walked;
    });
}

}  // namespace sakuin
