#include "python/call.hpp"

#include <cmath>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/dispatch.hpp"
#include "kernels/limits.hpp"

namespace sakuin {
namespace {

void run_signal_handlers() {
    const nb::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

}  // namespace

// Python runs handlers in its main thread alone. Where that cannot be told at no cost every thread looks, in vain.
void (*Released::look())() {
#ifdef __linux__
    if (syscall(SYS_gettid) != getpid()) return nullptr;
#endif
    return &run_signal_handlers;
}

nb::object Fields::get(const char* name) const {
    if (!dict_.contains(name))
        throw std::invalid_argument(std::string("a segment needs the tensor '") + name + "', which is missing");
    return nb::object(dict_[name]);
}

nb::object Fields::find(const char* name) const { return dict_.contains(name) ? nb::object(dict_[name]) : nb::none(); }

void Fields::own(const char* name) {
    const nb::object held = get(name);
    // Others are refused where they are read.
    if (nb::hasattr(held, "clone") && nb::cast<bool>(held.attr("is_contiguous")())) dict_[name] = held.attr("clone")();
}

Tensor Fields::plain(const char* name, Element element, int ndim) const {
    Tensor t;
    if (!read_plain(get(name), element, ndim, t) || !t.contiguous())
        throw std::invalid_argument(std::string("the segment's tensor '") + name +
                                    "' has the wrong dtype, dimensions or layout");
    return t;
}

const void* Fields::array(const char* name, Element element, std::initializer_list<int64_t> shape) const {
    const Tensor t = plain(name, element, static_cast<int>(shape.size()));
    int i = 0;
    for (const int64_t want : shape) {
        if (t.shape[i] != want)
            throw std::invalid_argument(std::string("the segment's tensor '") + name + "' has size " +
                                        std::to_string(t.shape[i]) + " in dimension " + std::to_string(i) + " where " +
                                        std::to_string(want) + " is needed");
        ++i;
    }
    return t.data;
}

Fields::KeysValues Fields::keys_values(bool int8) const {
    KeysValues kv = read_keys_values(get("keys"), get("values"), int8);
    if (int8)
        kv.scales = read_scales(read_tensor(get("keys"), "keys", 3, true), find("key_scale"), find("key_zero"),
                                find("value_scale"));
    return kv;
}

Fields::KeysValues read_keys_values(nb::handle keys, nb::handle values, bool int8) {
    const Tensor k = read_tensor(keys, "keys", 3, int8), v = read_tensor(values, "values", 3, int8);
    const int64_t heads = k.shape[0], n = k.shape[1], d = k.shape[2];
    if (heads < 1 || n < 1)
        throw std::invalid_argument("a segment needs at least one head and one token, got keys of shape " +
                                    shape_text(k));
    if (n > (int64_t{1} << 30))
        throw std::invalid_argument("a segment holds at most 2^30 tokens, got " + std::to_string(n));
    for (const int64_t width : {d, v.shape[2]})
        if (!is_head_dim(width))
            throw std::invalid_argument("head_dim must be a multiple of 8 from 8 to " + std::to_string(most_head_dim) +
                                        ", got " + std::to_string(width));
    if (v.shape[0] != heads || v.shape[1] != n || v.dtype != k.dtype || !k.contiguous() || !v.contiguous())
        throw std::invalid_argument(
            "keys and values of a segment must be contiguous and of the same heads, tokens and dtype, got " +
            shape_text(k) + " and " + shape_text(v));
    return {k.data, v.data, k.dtype, heads, n, d, v.shape[2], {}};
}

StepCall::StepCall(nb::handle query, int64_t n_heads, int64_t dim, int64_t of_values, int64_t tokens, double scale,
                   std::optional<double> cap, int threads, std::string_view isa)
    : kernels(&sakuin::kernels(isa)), heads(n_heads), head_dim(dim), value_dim(of_values), n_tokens(tokens),
      n_threads(threads) {
    const Tensor x = read_tensor(query, "q", 3);
    if (x.shape[2] != dim)
        throw std::invalid_argument("q must have a head_dim of " + std::to_string(dim) + ", as the index has, got " +
                                    std::to_string(x.shape[2]));
    if (x.shape[0] % heads != 0 || x.shape[0] / heads < 1 || x.shape[0] / heads > most_group)
        throw std::invalid_argument("q must have 1 to " + std::to_string(most_group) + " query heads for each of the " +
                                    std::to_string(heads) + " KV heads, got " + std::to_string(x.shape[0]));
    group = x.shape[0] / heads;
    t = x.shape[1];
    scaling = static_cast<float>(scale);
    if (!std::isfinite(scaling)) throw std::invalid_argument("scaling must be finite, got " + std::to_string(scale));
    if (cap.has_value()) {
        softcap = static_cast<float>(*cap);
        if (!(softcap > 0.0f) || !std::isfinite(softcap))
            throw std::invalid_argument("softcap must be above 0 and finite, or None, got " + std::to_string(*cap));
    }
    if (n_threads < 1) throw std::invalid_argument("n_threads must be at least 1, got " + std::to_string(n_threads));
    const auto d = static_cast<size_t>(dim);
    q.resize(static_cast<size_t>(x.shape[0] * t) * d);
    float* to = q.data();
    for (int64_t h = 0; h < x.shape[0]; ++h)
        for (int64_t i = 0; i < t; ++i, to += d)
            widen(*kernels,
                  static_cast<const char*>(x.data) + (h * x.stride[0] + i * x.stride[1]) * dtype_size(x.dtype), x.dtype,
                  to, d);
}

const float* StepCall::static_lse(nb::handle given) const {
    return given.is_none() ? nullptr : read_f32(given, "static_lse", {rows(), t}).f32();
}

float* StepCall::mass(nb::handle given, int64_t n, int64_t& stride) const {
    if (given.is_none()) return nullptr;
    const Tensor m = read_tensor(given, "mass", 2);
    if (m.dtype != DType::f32 || m.shape[0] != heads || m.shape[1] != n || (heads > 1 && m.stride[0] < n))
        throw std::invalid_argument("mass must be float32 of shape (" + std::to_string(heads) + ", " +
                                    std::to_string(n) + "), rows apart, got shape " + shape_text(m));
    stride = m.stride[0];
    return m.f32();
}

StepResults::StepResults(const StepCall& c)
    : out(new_f32({c.rows(), c.t, c.value_dim})), lse(new_f32({c.rows(), c.t})), coverage(new_f32({c.rows(), c.t})),
      exact(new_f32({c.heads, c.t})) {}

void fill(RowCall& a, const StepCall& c) {
    a.kernels = c.kernels;
    a.q = c.q.data();
    a.heads = c.heads;
    a.group = c.group;
    a.t = c.t;
    a.head_dim = c.head_dim;
    a.value_dim = c.value_dim;
    a.n_tokens = c.n_tokens;
    a.scaling = c.scaling;
    a.softcap = c.softcap;
    a.n_threads = c.n_threads;
}

void fill(RowCall& a, const StepCall& c, const StepResults& r, nb::handle static_lse, nb::handle mass) {
    fill(a, c);
    a.static_lse = c.static_lse(static_lse);
    a.mass = c.mass(mass, c.n_tokens, a.mass_stride);
    a.out = r.out.data;
    a.lse = r.lse.data;
    a.coverage = r.coverage.data;
    a.exact_share = r.exact.data;
}

Found::Found(const StepCall& c, nb::handle scores_, nb::handle ids_) {
    const Tensor s = read_tensor(scores_, "scores", 3);
    k = s.shape[2];
    if (k < 1 || k > c.n_tokens)
        throw std::invalid_argument("scores must have room for 1 to " + std::to_string(c.n_tokens) +
                                    " keys, the index's tokens, got " + std::to_string(k));
    scores = read_f32(scores_, "scores", {c.rows(), c.t, k}).f32();
    Tensor tokens;
    if (!read_plain(ids_, Element::i64, 3, tokens) || !tokens.contiguous() || tokens.shape[0] != c.rows() ||
        tokens.shape[1] != c.t || tokens.shape[2] != k)
        throw std::invalid_argument("ids must be contiguous, int64, on the CPU and of the scores' shape " +
                                    shape_text(s));
    ids = static_cast<int64_t*>(tokens.data);
}

}  // namespace sakuin
