// Python entry points of `graph`: checks arrays, then builds, crops and searches graphs without the GIL.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "index/graph/graph.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/limits.hpp"
#include "python/bindings.hpp"
#include "python/call.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

void check_threads(int n_threads) {
    if (n_threads < 1) throw std::invalid_argument("n_threads must be at least 1, got " + std::to_string(n_threads));
}

Graph* empty(int64_t n_kv_heads, int64_t head_dim, int64_t degree) {
    if (n_kv_heads < 1 || n_kv_heads > 4096)
        throw std::invalid_argument("n_kv_heads must be from 1 to 4096, got " + std::to_string(n_kv_heads));
    if (!is_head_dim(head_dim))
        throw std::invalid_argument("head_dim must be a multiple of 8 from 8 to " + std::to_string(most_head_dim) +
                                    ", got " + std::to_string(head_dim));
    if (degree < 4 || degree > 128)
        throw std::invalid_argument("degree must be from 4 to 128, got " + std::to_string(degree));
    auto graph = std::make_unique<Graph>();
    graph->head_dim = head_dim;
    graph->heads.resize(static_cast<size_t>(n_kv_heads));
    for (GraphLinks& head : graph->heads) head.degree = static_cast<int>(degree);
    return graph.release();
}

int64_t n_heads(const Graph& graph) { return static_cast<int64_t>(graph.heads.size()); }

void check_ef(int64_t ef) {
    if (ef < 1) throw std::invalid_argument("ef must be at least 1, got " + std::to_string(ef));
}

// Keys or values of all of the graph's tokens (n of them, or at least that many if n is -1),
// as the native code reads them.
GraphKeys read_rows(const Graph& graph, nb::handle rows, const char* name, int64_t width, int64_t n) {
    const Tensor t = read_tensor(rows, name, 3);
    if (t.shape[0] != n_heads(graph) || t.shape[2] != width || (n >= 0 ? t.shape[1] != n : t.shape[1] < graph.n))
        throw std::invalid_argument(std::string(name) + " must be those of all the graph's tokens, of shape (" +
                                    std::to_string(n_heads(graph)) + ", " + std::to_string(graph.n) +
                                    (n >= 0 ? ", " : " or more, ") + std::to_string(width) + "), got " + shape_text(t));
    if (t.shape[1] > 1 && t.stride[1] != width)
        throw std::invalid_argument(std::string(name) + " of one head must be contiguous");
    if (t.shape[1] > graph_most_tokens)
        throw std::invalid_argument("a graph holds at most 2^31 tokens, got " + std::to_string(t.shape[1]));
    return {t.data, t.dtype, t.shape[1], t.stride[0]};
}

Graph* append(const Graph& graph, nb::handle keys, nb::handle places, nb::object queries, int n_threads, bool renew,
              std::string_view isa) {
    GraphAppend a{};
    a.renew = renew;
    a.keys = read_rows(graph, keys, "keys", graph.head_dim, -1);
    Tensor coordinates;
    if (!read_plain(places, Element::i16, 3, coordinates))
        throw nb::type_error("coordinates must be a tensor of int16 on the CPU, of three dimensions");
    for (int i = 0; i < 3; ++i)
        if (coordinates.shape[i] != (i == 0 ? n_heads(graph) : i == 1 ? a.keys.n : graph_coordinates))
            throw std::invalid_argument("coordinates must have shape (" + std::to_string(n_heads(graph)) + ", " +
                                        std::to_string(a.keys.n) + ", " + std::to_string(graph_coordinates) +
                                        "), as many tokens as keys");
    if (a.keys.n > 0 && (coordinates.stride[2] != 1 || (a.keys.n > 1 && coordinates.stride[1] != graph_coordinates)))
        throw std::invalid_argument("coordinates of one head must be contiguous");
    a.coordinates = static_cast<const int16_t*>(coordinates.data);
    a.coordinate_stride = coordinates.stride[0];
    if (!queries.is_none()) {
        a.n_queries = read_tensor(queries, "queries", 3).shape[1];
        a.queries = read_f32(queries, "queries", {n_heads(graph), a.n_queries, graph.head_dim}).f32();
        if (a.n_queries > graph_most_tokens) throw std::invalid_argument("at most 2^31 queries may be given");
    }
    check_threads(n_threads);
    a.n_threads = n_threads;
    a.kernels = &kernels(isa);
    const Released release;
    return new Graph(graph_append(graph, a));
}

nb::tuple search(const Graph& graph, nb::handle q, nb::handle keys, int64_t k, int64_t ef, int n_threads,
                 std::string_view isa) {
    const StepCall c(q, n_heads(graph), graph.head_dim, graph.head_dim, graph.n, 1.0, std::nullopt, n_threads, isa);
    GraphSearch a{};
    a.keys = read_rows(graph, keys, "keys", graph.head_dim, graph.n);
    a.kernels = c.kernels;
    a.q = c.q.data();
    a.group = c.group;
    a.t = c.t;
    a.n_threads = c.n_threads;
    if (k < 1 || k > graph.n)
        throw std::invalid_argument("k must be from 1 to the index's " + std::to_string(graph.n) + " tokens, got " +
                                    std::to_string(k));
    check_ef(ef);
    a.k = k;
    a.ef = ef;
    const Fresh scores = new_f32({c.rows(), c.t, k});
    const FreshWhole ids = new_i64({c.rows(), c.t, k}), scanned = new_i64({c.rows(), c.t}),
                     walked = new_i64({c.rows(), c.t});
    a.scores = scores.data;
    a.ids = ids.data;
    a.scanned = scanned.data;
    a.walked = walked.data;
    {
        const Released release;
        graph_search(graph, a);
    }
    return nb::make_tuple(scores.object, ids.object, scanned.object, walked.object);
}

// Means of each run of tokens, (n_kv_heads, runs, head_dim).
const void* read_means(const Graph& graph, nb::handle means, const char* name, int64_t width, DType dtype) {
    const Tensor t = read_tensor(means, name, 3);
    if (t.shape[0] != n_heads(graph) || t.shape[1] != graph_runs(graph.n) || t.shape[2] != width || t.dtype != dtype ||
        !t.contiguous())
        throw std::invalid_argument(std::string(name) + " must be contiguous, of the keys' dtype and of shape (" +
                                    std::to_string(n_heads(graph)) + ", " + std::to_string(graph_runs(graph.n)) + ", " +
                                    std::to_string(width) + "), got shape " + shape_text(t));
    return t.data;
}

nb::tuple attend(const Graph& graph, nb::handle q, nb::handle keys, nb::handle values, nb::handle mean_keys,
                 nb::handle mean_values, double scaling, int64_t budget, int64_t ef, bool estimate_rest, int n_threads,
                 nb::object static_lse, std::optional<double> softcap, nb::object mass, std::string_view isa) {
    const int64_t d = graph.head_dim, width = read_tensor(values, "values", 3).shape[2];
    if (!is_head_dim(width))
        throw std::invalid_argument("the values' head_dim must be a multiple of 8 from 8 to " +
                                    std::to_string(most_head_dim) + ", got " + std::to_string(width));
    const StepCall c(q, n_heads(graph), d, width, graph.n, scaling, softcap, n_threads, isa);
    GraphAttend a{};
    a.keys = read_rows(graph, keys, "keys", d, graph.n);
    a.values = read_rows(graph, values, "values", width, graph.n);
    if (a.values.dtype != a.keys.dtype) throw std::invalid_argument("keys and values must have one dtype");
    a.mean_keys = read_means(graph, mean_keys, "mean_keys", d, a.keys.dtype);
    a.mean_values = read_means(graph, mean_values, "mean_values", width, a.keys.dtype);
    if (graph.n < 1) throw std::invalid_argument("a graph without tokens cannot be attended");
    if (budget < 1) throw std::invalid_argument("the budget must be at least 1 token, got " + std::to_string(budget));
    check_ef(ef);
    a.budget = budget;
    a.ef = ef;
    const StepResults r(c);
    fill(a, c, r, static_lse, mass);
    a.estimate_rest = estimate_rest;
    {
        const Released release;
        graph_attend(graph, a);
    }
    return r.tuple(a.touched_bytes);
}

nb::tuple links(const Graph& graph, int64_t head) {
    if (head < 0 || head >= n_heads(graph))
        throw std::invalid_argument("head must be from 0 to " + std::to_string(n_heads(graph) - 1) + ", got " +
                                    std::to_string(head));
    const GraphLinks& g = graph.heads[static_cast<size_t>(head)];
    const FreshWhole out = new_i64({graph.n, g.degree});
    int64_t* to = out.data;
    for (int64_t i = 0; i < graph.n; ++i)
        for (int j = 0; j < g.degree; ++j)
            *to++ = j < g.count[static_cast<size_t>(i)] ? static_cast<int64_t>(g.row(i)[j]) : -1;
    return nb::make_tuple(out.object, g.entry);
}

}  // namespace

void bind_graph(nb::module_& m) {
    nb::class_<Graph>(m, "Graph", "Links between the keys of each KV head. A value: append and crop make another one.")
        .def(nb::new_(&empty), nb::arg("n_kv_heads"), nb::arg("head_dim"), nb::arg("degree"))
        .def("__len__", [](const Graph& g) { return g.n; })
        .def_prop_ro("nbytes", &Graph::nbytes)
        .def(
            "append", &append, nb::rv_policy::take_ownership, nb::arg("keys"), nb::arg("coordinates"),
            nb::arg("queries").none(), nb::arg("n_threads"), nb::kw_only(), nb::arg("renew") = false,
            nb::arg("isa") = "",
            "The graph with further tokens: keys (n_kv_heads, n, head_dim) and coordinates (n_kv_heads, n, 16) of\n"
            "all tokens, old ones first; queries float32 (n_kv_heads, m, head_dim) whose answers are linked, or None.\n"
            "renew: the old tokens' coordinates are others than before.")
        .def("crop", &graph_crop, nb::arg("n"), "The graph of the first n tokens.")
        .def("search", &search, nb::arg("q"), nb::arg("keys"), nb::arg("k"), nb::kw_only(), nb::arg("ef"),
             nb::arg("n_threads"), nb::arg("isa") = "",
             "The k keys with the largest inner product that a walk with a queue of ef finds: scores float32 and ids\n"
             "int64 (n_query_heads, t, k); keys scored and keys whose links were read, int64 (n_query_heads, t) each.")
        .def("attend", &attend, nb::arg("q"), nb::arg("keys"), nb::arg("values"), nb::arg("mean_keys"),
             nb::arg("mean_values"), nb::kw_only(), nb::arg("scaling"), nb::arg("budget"), nb::arg("ef"),
             nb::arg("estimate_rest"), nb::arg("n_threads"), nb::arg("static_lse") = nb::none(),
             nb::arg("softcap") = nb::none(), nb::arg("mass") = nb::none(), nb::arg("isa") = "",
             "Attention over the `budget` best tokens that each query head finds, those of its group together:\n"
             "(out, lse, coverage, exact, touched_bytes). mean_keys and mean_values (n_kv_heads, runs of 64 tokens,\n"
             "the last dimension of keys and of values) stand for the others.")
        .def("links", &links, nb::arg("head"),
             "One KV head's links, int64 (n, degree), -1 where there is none, and the key where walks begin.");
}

}  // namespace sakuin
