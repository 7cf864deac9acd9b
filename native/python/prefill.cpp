// Python entry points of prefill's attention: reads and checks the tensors, then calls attention/prefill.hpp without
// the GIL.
#include "attention/prefill.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels/prefill_dispatch.hpp"
#include "python/bindings.hpp"
#include "python/call.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

PrefillBlock read_block(nb::handle keys, nb::handle values, int64_t heads, int64_t head_dim, int64_t value_dim) {
    const Tensor k = read_tensor(keys, "keys", 3), v = read_tensor(values, "values", 3);
    for (int i = 0; i < 2; ++i)
        if (k.shape[i] != v.shape[i])
            throw std::invalid_argument("keys and values must be of the same heads and tokens, got " + shape_text(k) +
                                        " and " + shape_text(v));
    if (v.shape[2] != value_dim)
        throw std::invalid_argument("values must have out's head_dim " + std::to_string(value_dim) + ", got " +
                                    std::to_string(v.shape[2]));
    if (k.shape[2] != head_dim)
        throw std::invalid_argument("keys must have the query's head_dim " + std::to_string(head_dim) + ", got " +
                                    std::to_string(k.shape[2]));
    if (heads >= 0 && k.shape[0] != heads)
        throw std::invalid_argument("all keys must have the same number of KV heads, got " + std::to_string(heads) +
                                    " and " + std::to_string(k.shape[0]));
    return {k.data, v.data, k.dtype, v.dtype, k.shape[1], k.stride[0], k.stride[1], v.stride[0], v.stride[1]};
}

void read_out(PrefillCall& c, nb::handle out, const Tensor& q) {
    const Tensor o = read_tensor(out, "out", 3);
    if (o.dtype != DType::f32) throw std::invalid_argument("out must be float32");
    for (int i = 0; i < 2; ++i)
        if (o.shape[i] != q.shape[i])
            throw std::invalid_argument("out must have q's heads and positions, " + shape_text(q) + ", got " +
                                        shape_text(o));
    const int64_t d = o.shape[2];
    for (int i = 0; i < 2; ++i)
        if (o.shape[i] > 1 && o.stride[i] < d)
            throw std::invalid_argument("out must have rows of its own, its stride in dimension " + std::to_string(i) +
                                        " is " + std::to_string(o.stride[i]));
    c.out = o.f32();
    c.out_head_stride = o.stride[0];
    c.out_stride = o.stride[1];
}

void read_numbers(PrefillCall& c, double scaling, std::optional<double> softcap, int n_threads) {
    c.scaling = static_cast<float>(scaling);
    if (!std::isfinite(c.scaling))
        throw std::invalid_argument("scaling must be finite, got " + std::to_string(scaling));
    c.softcap = 0.0f;
    if (softcap.has_value()) {
        c.softcap = static_cast<float>(*softcap);
        if (!(c.softcap > 0.0f) || !std::isfinite(c.softcap))
            throw std::invalid_argument("softcap must be above 0 and finite, or None, got " + std::to_string(*softcap));
    }
    if (n_threads < 1) throw std::invalid_argument("n_threads must be at least 1, got " + std::to_string(n_threads));
    c.n_threads = n_threads;
}

void attention(nb::handle q, nb::handle keys, nb::handle values, nb::list past, nb::handle out, double scaling,
               int n_threads, std::optional<double> softcap, nb::object sinks, std::string_view isa) {
    const Tensor x = read_tensor(q, "q", 3);
    PrefillCall c{};
    c.kernels = prefill_kernels(isa);
    if (c.kernels == nullptr)
        throw std::invalid_argument("there are no kernels for prefill's attention here, see prefill_kernel()");
    c.q = x.data;
    c.q_dtype = x.dtype;
    c.q_head_stride = x.stride[0];
    c.q_stride = x.stride[1];
    c.t = x.shape[1];
    c.head_dim = x.shape[2];
    if (c.t < 1) throw std::invalid_argument("q must hold at least one position, got shape " + shape_text(x));
    c.value_dim = read_tensor(out, "out", 3).shape[2];
    for (const int64_t d : {c.head_dim, c.value_dim})
        if (d < 1 || d > prefill_most_dim)
            throw std::invalid_argument("head_dim must be from 1 to " + std::to_string(prefill_most_dim) + ", got " +
                                        std::to_string(d));
    const PrefillBlock chunk = read_block(keys, values, -1, c.head_dim, c.value_dim);
    c.n_kv_heads = read_tensor(keys, "keys", 3).shape[0];
    if (chunk.n != c.t)
        throw std::invalid_argument("keys must be those of the chunk, as many as q has positions, " +
                                    std::to_string(c.t) + ", got " + std::to_string(chunk.n));
    if (c.n_kv_heads < 1 || x.shape[0] < 1 || x.shape[0] % c.n_kv_heads != 0)
        throw std::invalid_argument("the number of query heads must be a multiple of the number of KV heads, got " +
                                    std::to_string(x.shape[0]) + " and " + std::to_string(c.n_kv_heads));
    c.group = x.shape[0] / c.n_kv_heads;
    for (nb::handle pair : past) {
        if (!(nb::isinstance<nb::tuple>(pair) || nb::isinstance<nb::list>(pair)) || nb::len(pair) != 2)
            throw nb::type_error("past must hold pairs (keys, values)");
        const PrefillBlock b = read_block(pair[0], pair[1], c.n_kv_heads, c.head_dim, c.value_dim);
        if (b.n > 0) c.blocks.push_back(b);
    }
    c.blocks.push_back(chunk);
    read_numbers(c, scaling, softcap, n_threads);
    if (!sinks.is_none()) c.sinks = read_f32(sinks, "sinks", {x.shape[0]}).f32();
    read_out(c, out, x);
    const Released release;
    prefill_attention(c);
}

std::string kernel(std::string_view dtype) {
    if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32")
        throw std::invalid_argument("dtype must be bfloat16, float16 or float32, got '" + std::string(dtype) + "'");
    const PrefillKernels* k = dtype == "bfloat16" ? prefill_kernels() : nullptr;
    return k == nullptr ? "" : k->name;
}

}  // namespace

void bind_prefill(nb::module_& m) {
    m.def(
        "prefill_kernel", &kernel, nb::arg("dtype") = "bfloat16",
        "Name of the kernels with which `prefill_attention` multiplies at the precision of `dtype` here; empty: there\n"
        "are none, torch's are as good.");
    m.def("prefill_kernels", &prefill_isas, "Names of the kernels that this machine can run, for the `isa` argument.");
    m.def("prefill_attention", &attention, nb::arg("q"), nb::arg("keys"), nb::arg("values"), nb::arg("past"),
          nb::arg("out"), nb::arg("scaling"), nb::arg("n_threads"), nb::kw_only(), nb::arg("softcap") = nb::none(),
          nb::arg("sinks") = nb::none(), nb::arg("isa") = "",
          "Exact attention of q (n_query_heads, t, head_dim) over `past`, pairs of keys and values\n"
          "(n_kv_heads, n, head_dim) of which every position sees all, and causally over the chunk's own keys and\n"
          "values (n_kv_heads, t, head_dim), to out, float32 (n_query_heads, t, _). The values' last dimension is\n"
          "out's, and may be another than the keys'. Any strides but in the last dimension, any float dtypes; numbers\n"
          "and weights are rounded to bf16, sums are fp32. sinks (n_query_heads,), float32, adds exp(sinks) to the\n"
          "softmax's sum with no value.");
}

}  // namespace sakuin
