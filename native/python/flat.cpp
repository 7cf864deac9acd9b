// Python entry points of `flat`: reads and checks the tensors, then calls index/flat/flat.hpp without the GIL.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "index/flat/flat.hpp"
#include "python/bindings.hpp"
#include "python/call.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

// Keys and values of consecutive tokens, checked once. Holds the tensors.
struct Span {
    nb::object keys, values, key_scale, key_zero, value_scale;
    int64_t n_kv_heads, head_dim, value_dim;
    FlatSpan span;

    Span(nb::object k, nb::object v, nb::object ks = nb::none(), nb::object kz = nb::none(), nb::object vs = nb::none())
        : keys(std::move(k)), values(std::move(v)), key_scale(std::move(ks)), key_zero(std::move(kz)),
          value_scale(std::move(vs)) {
        const Tensor a = read_tensor(keys, "keys", 3, true), b = read_tensor(values, "values", 3, true);
        for (int i = 0; i < 2; ++i)
            if (a.shape[i] != b.shape[i])
                throw std::invalid_argument("keys and values must be of the same heads and tokens, got " +
                                            shape_text(a) + " and " + shape_text(b));
        if (a.dtype != b.dtype) throw std::invalid_argument("keys and values must have one dtype");
        n_kv_heads = a.shape[0];
        head_dim = a.shape[2];
        value_dim = b.shape[2];
        span = {a.data,      b.data,      a.dtype,
                a.shape[1],  a.stride[0], a.stride[1],
                b.stride[0], b.stride[1], read_scales(a, key_scale, key_zero, value_scale)};
    }
};

nb::tuple flat_attend(nb::handle q, nb::list spans, double scaling, int n_threads, bool causal, nb::object s_aux,
                      std::optional<double> softcap, nb::object mass, nb::object static_lse, std::string_view isa) {
    const Tensor tq = read_tensor(q, "q", 3);
    const nb::object held = nb::steal(PySequence_Tuple(spans.ptr()));  // whatever becomes of the list
    if (!held.is_valid()) throw nb::python_error();
    std::vector<Span> made;  // of the spans that came as pairs of tensors
    made.reserve(nb::len(spans));
    FlatArgs a{};
    int64_t n_kv_heads = -1, value_dim = -1, total = 0;
    a.spans.reserve(nb::len(spans));
    for (nb::handle item : held) {
        const Span* s = nullptr;
        if (nb::isinstance<nb::tuple>(item) && nb::len(item) == 2)
            s = &made.emplace_back(nb::borrow(item[0]), nb::borrow(item[1]));
        else if (!nb::try_cast(item, s) || s == nullptr)
            throw nb::type_error("spans must hold Span objects or pairs (keys, values)");
        if (s->head_dim != tq.shape[2])
            throw std::invalid_argument("keys must have the query's head_dim " + std::to_string(tq.shape[2]) +
                                        ", got " + std::to_string(s->head_dim));
        if (n_kv_heads >= 0 && s->n_kv_heads != n_kv_heads)
            throw std::invalid_argument("all spans must have the same number of KV heads, got " +
                                        std::to_string(n_kv_heads) + " and " + std::to_string(s->n_kv_heads));
        if (value_dim >= 0 && s->value_dim != value_dim)
            throw std::invalid_argument("values of all spans must have one head_dim, got " + std::to_string(value_dim) +
                                        " and " + std::to_string(s->value_dim));
        n_kv_heads = s->n_kv_heads;
        value_dim = s->value_dim;
        total += s->span.n;
        a.spans.push_back(s->span);
    }
    if (a.spans.empty()) throw std::invalid_argument("spans must hold at least one span, got none");
    if (n_kv_heads < 1 || tq.shape[0] < 1 || tq.shape[0] % n_kv_heads != 0)
        throw std::invalid_argument("the number of query heads must be a multiple of the number of KV heads, got " +
                                    std::to_string(tq.shape[0]) + " and " + std::to_string(n_kv_heads));
    const int64_t heads = tq.shape[0], t = tq.shape[1];
    a.q = tq.data;
    a.q_dtype = tq.dtype;
    a.q_head_stride = tq.stride[0];
    a.q_stride = tq.stride[1];
    a.n_kv_heads = n_kv_heads;
    a.group = heads / n_kv_heads;
    a.t = t;
    a.head_dim = tq.shape[2];
    a.value_dim = value_dim;
    a.causal = causal;
    a.scaling = static_cast<float>(scaling);
    if (softcap.has_value()) {
        if (!(*softcap > 0.0))
            throw std::invalid_argument("softcap must be above 0 or None, got " + std::to_string(*softcap));
        a.softcap = static_cast<float>(*softcap);
    }
    a.n_threads = n_threads;
    a.isa = isa;
    if (!s_aux.is_none()) a.s_aux = read_f32(s_aux, "s_aux", {heads}).f32();
    if (!mass.is_none()) {
        const Tensor m = read_tensor(mass, "mass", 2);
        if (m.dtype != DType::f32 || m.shape[0] != n_kv_heads || m.shape[1] != total ||
            (n_kv_heads > 1 && m.stride[0] < total))
            throw std::invalid_argument("mass must be float32 of shape (" + std::to_string(n_kv_heads) + ", " +
                                        std::to_string(total) + "), rows apart, got shape " + shape_text(m));
        a.mass = m.f32();
        a.mass_stride = m.stride[0];
    }
    if (!static_lse.is_none()) a.static_lse = read_f32(static_lse, "static_lse", {heads, t}).f32();

    const Fresh out = new_f32({heads, t, a.value_dim}), lse = new_f32({heads, t});
    a.out = out.data;
    a.lse = lse.data;
    {
        const Released release;
        flat_attend(a);
    }
    return nb::make_tuple(out.object, lse.object);
}

}  // namespace

void bind_flat(nb::module_& m) {
    nb::class_<Span>(
        m, "Span",
        "Keys (n_kv_heads, n, head_dim) and values (n_kv_heads, n, _) of consecutive tokens, checked once; keeps the\n"
        "tensors alive.\n\n"
        "In int8 a key is key_zero + key_scale * number (both (n_kv_heads, head_dim)), a value value_scale * number\n"
        "(value_scale (n_kv_heads, n)), all float32.")
        .def(nb::init<nb::object, nb::object, nb::object, nb::object, nb::object>(), nb::arg("keys"), nb::arg("values"),
             nb::arg("key_scale") = nb::none(), nb::arg("key_zero") = nb::none(), nb::arg("value_scale") = nb::none())
        .def_ro("keys", &Span::keys)
        .def_ro("values", &Span::values)
        .def_ro("key_scale", &Span::key_scale)
        .def_ro("key_zero", &Span::key_zero)
        .def_ro("value_scale", &Span::value_scale)
        .def("__len__", [](const Span& s) { return s.span.n; });
    m.def("flat_attend",
          nb::overload_cast<nb::handle, nb::list, double, int, bool, nb::object, std::optional<double>, nb::object,
                            nb::object, std::string_view>(&flat_attend),
          nb::arg("q"), nb::arg("spans"), nb::arg("scaling"), nb::arg("n_threads"), nb::kw_only(),
          nb::arg("causal") = false, nb::arg("s_aux") = nb::none(), nb::arg("softcap") = nb::none(),
          nb::arg("mass") = nb::none(), nb::arg("static_lse") = nb::none(), nb::arg("isa") = "",
          "Exact attention of q (n_query_heads, t, head_dim) over `spans`, in order of the sequence: out\n"
          "(n_query_heads, t, the values' last dimension) and lse, both float32.\n\n"
          "causal: position i does not see the last t - 1 - i tokens of the last span. s_aux (n_query_heads,) adds\n"
          "exp(s_aux) to the softmax's sum with no value. mass (n_kv_heads, n_tokens): each token's share of the\n"
          "softmax is added, static_lse included.");
}

}  // namespace sakuin
