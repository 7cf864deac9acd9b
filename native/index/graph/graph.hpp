// `graph`: links between the keys of one KV head, walked towards the keys with the largest inner product with a query.
// Keys are linked that answer the same sampled queries, and keys that lie close together as those queries see them.
// Plain C++: called by the bindings.
//
// A graph is a value: `graph_append` and `graph_crop` make another one and leave theirs as it is, so that forks and a
// search that is still running never meet a change. Keys and coordinates belong to the caller, which hands in the same
// ones (and more of them).
#pragma once

#include <cstdint>
#include <vector>

#include "index/rows.hpp"
#include "kernels/kernels.hpp"

namespace sakuin {

// Keys are compared with each other by whole numbers, the leading coordinates of the key as the queries weigh it. The
// square of a distance fits 32 bits where coordinates stay within +-8191, and does not depend on the instruction set.
constexpr int graph_coordinates = 16;
constexpr int64_t graph_most_tokens = int64_t{1} << 31;

// One KV head. Row i of `links` has room for `degree` keys, count[i] of which are set: first the children[i] that are
// i's children, then others. Every key but the first is the child of one earlier key and stays it, so that all are
// reached from key 0.
struct GraphLinks {
    int degree = 0;
    uint32_t entry = 0;  // the key that answers most of the sampled queries; a walk begins there and at key 0
    std::vector<uint32_t> links;
    std::vector<uint8_t> count, children;

    int64_t n() const { return static_cast<int64_t>(count.size()); }
    uint32_t* row(int64_t i) { return links.data() + i * degree; }
    const uint32_t* row(int64_t i) const { return links.data() + i * degree; }
};

struct Graph {
    int64_t head_dim = 0, n = 0;
    std::vector<GraphLinks> heads;

    int64_t nbytes() const;
};

// (n_kv_heads, n, head_dim), heads `head_stride` numbers apart, tokens head_dim; of values value_dim for head_dim.
struct GraphKeys {
    const void* keys;
    DType dtype;
    int64_t n, head_stride;

    const void* head(int64_t h) const { return static_cast<const char*>(keys) + h * head_stride * dtype_size(dtype); }
};

struct GraphAppend {
    GraphKeys keys;              // of all tokens; those from the graph's own n on are new
    const int16_t* coordinates;  // (n_kv_heads, n, graph_coordinates), heads `coordinate_stride` numbers apart
    int64_t coordinate_stride;
    const float* queries;  // (n_kv_heads, n_queries, head_dim), contiguous
    int64_t n_queries;
    bool renew;  // the old tokens' coordinates are others than before: their links are chosen again
    const Kernels* kernels;
    int n_threads;
};

// The graph with the new tokens linked. The same whatever the number of threads.
Graph graph_append(const Graph& graph, const GraphAppend& args);

// The graph of the first n tokens.
Graph graph_crop(const Graph& graph, int64_t n);

struct GraphSearch {
    GraphKeys keys;
    const float* q;  // (n_kv_heads * group, t, head_dim), contiguous
    int64_t group, t, k;
    int64_t ef;  // keys among which a walk looks for better ones; at least k
    const Kernels* kernels;
    int n_threads;

    float* scores;     // (n_kv_heads * group, t, k): inner products, the largest first
    int64_t* ids;      // (n_kv_heads * group, t, k)
    int64_t* scanned;  // (n_kv_heads * group, t): keys whose inner product was computed
    int64_t* walked;   // (n_kv_heads * group, t): keys whose links were read
};

// Throws std::invalid_argument unless 1 <= k <= n.
void graph_search(const Graph& graph, const GraphSearch& args);

// Tokens in a run, whose mean key and value stand for those that nobody attends.
constexpr int64_t graph_run = 64;
constexpr int64_t graph_runs(int64_t n) { return (n + graph_run - 1) / graph_run; }

// Of a graph's KV heads and tokens. touched_bytes are keys that walks scored (each once for a group), links that they
// read, values, means.
struct GraphAttend : RowCall {
    GraphKeys keys, values;  // of one dtype
    // (n_kv_heads, graph_runs(n), head_dim or value_dim) of the same dtype, contiguous: means of each run.
    const void *mean_keys, *mean_values;
    int64_t budget;  // tokens that each query head attends, the best that a walk finds; all, without one, from n on
    int64_t ef;      // as in a search; at least the budget
};

// What the query heads of a group find, all of them attend.
void graph_attend(const Graph& graph, GraphAttend& args);

}  // namespace sakuin
