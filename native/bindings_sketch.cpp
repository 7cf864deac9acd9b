// Python entry points of `sketch`: checks what a segment is made of, seals one, and runs attention over a chain of them.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings.hpp"
#include "index/flat.hpp"
#include "index/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "tensor.hpp"

namespace sakuin {
namespace {

// A sealed segment as Python holds it: the tensors, and the pointers into them.
class Sealed {
public:
    // `trusted`: the contents are about to be written by the sealer; otherwise every index in them is checked, so that a damaged
    // file cannot lead a kernel out of its arrays.
    Sealed(const nb::dict& fields, bool trusted) : fields_(copy(fields)) {
        const Tensor keys = read_tensor(get("keys"), "keys", 3, true), values = read_tensor(get("values"), "values", 3, true);
        segment.heads = keys.shape[0];
        segment.n = keys.shape[1];
        const int64_t d = keys.shape[2], h = segment.heads, n = segment.n;
        if (h < 1 || n < 1) throw std::invalid_argument("a segment needs at least one head and one token, got shape " + shape_text(keys));
        if (n > most_tokens) throw std::invalid_argument("a segment holds at most " + std::to_string(most_tokens) + " tokens, got " + std::to_string(n));
        if (d < 8 || d > 256 || d % 8 != 0) throw std::invalid_argument("head_dim must be a multiple of 8 from 8 to 256, got " + std::to_string(d));
        if (values.shape[0] != h || values.shape[1] != n || values.shape[2] != d || values.dtype != keys.dtype || !keys.contiguous() || !values.contiguous())
            throw std::invalid_argument("keys and values of a segment must be contiguous and of one shape and dtype");
        segment.dtype = keys.dtype;
        segment.keys = keys.data;
        segment.values = values.data;
        segment.scales = read_scales(keys, optional("key_scale"), optional("key_zero"), optional("value_scale"));
        segment.shape.head_dim = d;
        const int64_t lists = lists_of(n);
        const auto coordinates = array<int16_t>("sub_coordinate", 3);
        segment.shape.subs = static_cast<int64_t>(coordinates.shape(1));
        const auto codes = array<uint8_t>("codes", 3);
        segment.shape.code_bytes = static_cast<int64_t>(codes.shape(2));
        const int64_t subs = segment.shape.subs, width = segment.shape.chunks() * 16;
        if (subs < 2 || subs > 4 * d || subs % 2 != 0) throw std::invalid_argument("a sketch has an even number of sub-quantizers, got " + std::to_string(subs));
        segment.order = pointer<uint16_t>("order", {h, n});
        segment.mean = pointer<float>("mean", {h, d});
        segment.basis = pointer<uint16_t>("basis", {h, d, d});
        segment.sketch = pointer<uint8_t>("sketch", {h, lists, segment.shape.list_bytes()});
        segment.sub_coordinate = pointer<int16_t>("sub_coordinate", {h, subs, 2});
        segment.sub_step = pointer<float>("sub_step", {h, subs, 2});
        segment.residue = pointer<float>("residue", {h, d});
        segment.codes = pointer<uint8_t>("codes", {h, n, segment.shape.code_bytes});
        segment.code_plan = pointer<int32_t>("code_plan", {h, 3});
        segment.code_coordinate = pointer<int16_t>("code_coordinate", {h, width});
        segment.code_step = pointer<float>("code_step", {h, width});
        segment.value_codes = pointer<uint8_t>("value_codes", {h, n, segment.shape.value_bytes()});
        segment.value_params = pointer<uint16_t>("value_params", {h, n, 2});
        segment.list_codes = pointer<uint8_t>("list_codes", {h, lists, segment.shape.value_bytes()});
        segment.list_params = pointer<uint16_t>("list_params", {h, lists, 2});
        segment.within = pointer<float>("within", {h, d});
        segment.tilt = pointer<uint16_t>("tilt", {h, segment.shape.leading(), d});
        segment.code_residue = pointer<float>("code_residue", {h, d});
        segment.spread = reinterpret_cast<const SketchSpread*>(pointer<float>("spread", {h, 3}));
        if (!trusted) check_contents();
    }

    SketchSegment segment{};
    nb::dict fields() const { return copy(fields_); }

private:
    // Nobody else may hold the dictionary that keeps the memory alive.
    static nb::dict copy(const nb::dict& d) { return nb::steal<nb::dict>(PyDict_Copy(d.ptr())); }

    nb::object get(const char* name) const {
        if (!fields_.contains(name)) throw std::invalid_argument(std::string("a segment needs the tensor '") + name + "', which is missing");
        return nb::object(fields_[name]);
    }
    nb::object optional(const char* name) const { return fields_.contains(name) ? nb::object(fields_[name]) : nb::none(); }
    template <class T>
    nb::ndarray<const T, nb::c_contig, nb::device::cpu> array(const char* name, size_t ndim) const {
        nb::ndarray<const T, nb::c_contig, nb::device::cpu> a;
        if (!nb::try_cast(get(name), a, false) || a.ndim() != ndim)
            throw std::invalid_argument(std::string("the segment's tensor '") + name + "' has the wrong dtype, dimensions or layout");
        return a;
    }
    template <class T>
    const T* pointer(const char* name, std::initializer_list<int64_t> shape) const {
        const auto a = array<T>(name, shape.size());
        size_t i = 0;
        for (const int64_t want : shape)
            if (static_cast<int64_t>(a.shape(i++)) != want)
                throw std::invalid_argument(std::string("the segment's tensor '") + name + "' has size " + std::to_string(a.shape(i - 1)) +
                                            " in dimension " + std::to_string(i - 1) + " where " + std::to_string(want) + " is needed");
        return a.data();
    }

    void check_contents() const {
        const SketchSegment& s = segment;
        const auto need = [](bool ok, const char* what) {
            if (!ok) throw std::invalid_argument(std::string("the segment's tensor '") + what + "' holds a number out of range: the data is damaged");
        };
        for (int64_t i = 0; i < s.heads * s.n; ++i) need(s.order[i] < s.n, "order");
        for (int64_t i = 0; i < s.heads * s.shape.subs * 2; ++i)
            need(s.sub_coordinate[i] < s.shape.head_dim && s.sub_coordinate[i] >= (i % 2 == 0 ? 0 : -1), "sub_coordinate");
        for (int64_t i = 0; i < s.heads * s.shape.chunks() * 16; ++i)
            need(s.code_coordinate[i] >= -1 && s.code_coordinate[i] < s.shape.head_dim, "code_coordinate");
        for (int64_t h = 0; h < s.heads; ++h) {
            const int32_t* p = s.code_plan + h * 3;
            for (int i = 0; i < 3; ++i) need(p[i] >= 0 && p[i] <= s.shape.chunks(), "code_plan");
            need(p[0] + p[1] + p[2] <= s.shape.chunks() && p[0] * 16 + p[1] * 8 + p[2] * 4 <= s.shape.code_bytes, "code_plan");
        }
    }

    nb::dict fields_;
};

Sealed* seal(const nb::dict& fields, nb::handle y, nb::handle weight, nb::handle features, nb::handle keys, nb::handle values, nb::handle values_f32,
             int n_threads, const std::string& isa) {
    auto sealed = std::make_unique<Sealed>(fields, true);
    const SketchSegment& s = sealed->segment;
    const int64_t d = s.shape.head_dim;
    const Tensor k = read_tensor(keys, "keys", 3, true), v = read_tensor(values, "values", 3, true), f = read_tensor(features, "features", 3);
    for (const Tensor& x : {k, v})
        if (x.shape[0] != s.heads || x.shape[1] != s.n || x.shape[2] != d || x.dtype != s.dtype || !x.contiguous())
            throw std::invalid_argument("keys and values to be sealed must be contiguous and of the segment's shape and dtype");
    SealArgs a{};
    a.kernels = &kernels(isa);
    a.y = read_f32(y, "y", {s.heads, d, s.n}).f32();
    a.weight = read_f32(weight, "weight", {s.heads, d}).f32();
    a.n_features = f.shape[1];
    a.features = read_f32(features, "features", {s.heads, a.n_features, s.n}).f32();
    a.keys = k.data;
    a.values = v.data;
    a.values_f32 = read_f32(values_f32, "values_f32", {s.heads, s.n, d}).f32();
    {
        const nb::gil_scoped_release release;
        seal_sketch(a, s, n_threads);
    }
    return sealed.release();
}

// rescore, coded, exact, reach, cap, target_error
using Settings = std::tuple<float, float, float, float, float, float>;

// Arguments that `attend`, `decode` and `scores` share.
struct Call {
    SketchAttend a{};
    Tensor original;         // the query as it came; the caller holds it
    std::vector<float> q32;  // the same in float32, contiguous

    Call(nb::handle q, const std::vector<const Sealed*>& segments, double scaling, int n_threads, std::optional<double> softcap,
         const Settings& settings, const std::string& isa) {
        for (const Sealed* s : segments)
            if (s == nullptr) throw std::invalid_argument("segments must be SketchSegment objects, got None");
        if (segments.empty()) throw std::invalid_argument("segments must hold at least one segment, got none");
        const SketchSegment& first = segments.front()->segment;
        int64_t n = 0;
        for (const Sealed* s : segments) {
            if (s->segment.heads != first.heads || s->segment.shape.head_dim != first.shape.head_dim)
                throw std::invalid_argument("all segments must have the same number of KV heads and head_dim");
            a.segments.push_back(&s->segment);
            n += s->segment.n;
        }
        const Tensor t = original = read_tensor(q, "q", 3);
        if (t.shape[2] != first.shape.head_dim)
            throw std::invalid_argument("q must have a head_dim of " + std::to_string(first.shape.head_dim) + ", as the index has, got " + std::to_string(t.shape[2]));
        a.heads = first.heads;
        if (t.shape[0] % a.heads != 0 || t.shape[0] / a.heads < 1 || t.shape[0] / a.heads > max_group)
            throw std::invalid_argument("q must have 1 to 16 query heads for each of the " + std::to_string(a.heads) + " KV heads, got " + std::to_string(t.shape[0]));
        a.group = t.shape[0] / a.heads;
        a.t = t.shape[1];
        if (!std::isfinite(scaling)) throw std::invalid_argument("scaling must be finite");
        a.scaling = static_cast<float>(scaling);
        if (softcap.has_value()) {
            if (!(*softcap > 0.0)) throw std::invalid_argument("softcap must be above 0 or None, got " + std::to_string(*softcap));
            a.softcap = static_cast<float>(*softcap);
        }
        if (n_threads < 1) throw std::invalid_argument("n_threads must be at least 1, got " + std::to_string(n_threads));
        a.n_threads = n_threads;
        std::tie(a.rescore, a.coded, a.exact, a.reach, a.cap, a.target_error) = settings;
        for (const float x : {a.rescore, a.coded, a.exact, a.reach, a.cap, a.target_error})
            if (!(x >= 0.0f)) throw std::invalid_argument("settings must be at least 0, got " + std::to_string(x));
        a.cap = std::min(a.cap, 1.0f);
        a.kernels = &kernels(isa);
        n_tokens = n;
        widen_queries();
    }
    void widen_queries() {
        const Tensor& t = original;
        const auto d = static_cast<size_t>(t.shape[2]);
        q32.resize(static_cast<size_t>(t.shape[0] * t.shape[1]) * d);
        float* to = q32.data();
        for (int64_t h = 0; h < t.shape[0]; ++h)
            for (int64_t i = 0; i < t.shape[1]; ++i, to += d)
                widen(*a.kernels, static_cast<const char*>(t.data) + (h * t.stride[0] + i * t.stride[1]) * dtype_size(t.dtype), t.dtype, to, d);
        a.q = q32.data();
    }
    int64_t rows() const { return a.heads * a.group; }
    int64_t d() const { return a.segments.front()->shape.head_dim; }
    int64_t n_tokens = 0;
};

// The arrays that a step fills, as Python gets them: out, lse, coverage, exact, coded, error.
struct Results {
    Fresh out, lse, coverage, exact, coded, error;
    explicit Results(Call& c)
        : out(new_f32({c.rows(), c.a.t, c.d()})), lse(new_f32({c.rows(), c.a.t})), coverage(new_f32({c.rows(), c.a.t})),
          exact(new_f32({c.a.heads, c.a.t})), coded(new_f32({c.a.heads, c.a.t})), error(new_f32({c.rows(), c.a.t})) {
        c.a.out = out.data;
        c.a.lse = lse.data;
        c.a.coverage = coverage.data;
        c.a.exact_share = exact.data;
        c.a.coded_share = coded.data;
        c.a.error = error.data;
    }
    nb::tuple tuple(const Call& c) const { return nb::make_tuple(out.object, lse.object, coverage.object, exact.object, coded.object, error.object, c.a.touched_bytes); }
};

// mass (n_kv_heads, n_tokens) in float32, rows maybe apart.
Tensor read_mass(nb::handle mass, int64_t heads, int64_t n) {
    const Tensor m = read_tensor(mass, "mass", 2);
    if (m.dtype != DType::f32 || m.shape[0] != heads || m.shape[1] != n || (heads > 1 && m.stride[0] < n))
        throw std::invalid_argument("mass must be float32 of shape (" + std::to_string(heads) + ", " + std::to_string(n) + "), got shape " + shape_text(m));
    return m;
}

nb::tuple attend(nb::handle q, const std::vector<const Sealed*>& segments, double scaling, int n_threads, const Settings& settings, nb::object static_lse,
                 std::optional<double> softcap, nb::object mass, bool trace, const std::string& isa) {
    Call c(q, segments, scaling, n_threads, softcap, settings, isa);
    if (!static_lse.is_none()) c.a.static_lse = read_f32(static_lse, "static_lse", {c.rows(), c.a.t}).f32();
    if (!mass.is_none()) {
        const Tensor m = read_mass(mass, c.a.heads, c.n_tokens);
        c.a.mass = m.f32();
        c.a.mass_stride = m.stride[0];
    }
    const Results r(c);
    Fresh tier, weight;
    if (trace) {
        tier = new_f32({c.a.heads, c.a.t, c.n_tokens});
        weight = new_f32({c.a.heads, c.a.t, c.n_tokens});
        c.a.trace_tier = tier.data;
        c.a.trace_weight = weight.data;
    }
    {
        const nb::gil_scoped_release release;
        attend_sketch(c.a);
    }
    const nb::tuple results = r.tuple(c);
    return trace ? nb::tuple(results + nb::make_tuple(tier.object, weight.object)) : results;
}

FlatSpan span_of(const Tensor& k, const Tensor& v) {
    return {k.data, v.data, k.dtype, k.shape[1], k.stride[0], k.stride[1], v.stride[0], v.stride[1]};
}

// One KV head's part of a call for one position, on one thread.
FlatArgs one_head(FlatArgs f, int64_t head) {
    const int64_t first = head * f.group;
    f.q = static_cast<const char*>(f.q) + first * f.q_head_stride * dtype_size(f.q_dtype);
    for (FlatSpan& s : f.spans) {
        s.keys = static_cast<const char*>(s.keys) + head * s.key_head_stride * dtype_size(s.dtype);
        s.values = static_cast<const char*>(s.values) + head * s.value_head_stride * dtype_size(s.dtype);
    }
    if (f.s_aux != nullptr) f.s_aux += first;
    f.out += first * f.head_dim;
    f.lse += first;
    f.n_kv_heads = f.n_threads = 1;
    return f;
}

nb::tuple decode(nb::handle q, const std::vector<const Sealed*>& segments, nb::handle sink_keys, nb::handle sink_values, nb::handle recent_keys,
                 nb::handle recent_values, double scaling, int n_threads, const Settings& settings, nb::object s_aux, std::optional<double> softcap,
                 nb::object mass, const std::string& isa) {
    Call c(q, segments, scaling, n_threads, softcap, settings, isa);
    const Tensor sk = read_tensor(sink_keys, "sink_keys", 3), sv = read_tensor(sink_values, "sink_values", 3);
    const Tensor rk = read_tensor(recent_keys, "recent_keys", 3), rv = read_tensor(recent_values, "recent_values", 3);
    for (const auto& [k, v] : {std::pair{&sk, &sv}, std::pair{&rk, &rv}})
        if (k->shape[0] != c.a.heads || v->shape[0] != c.a.heads || k->shape[1] != v->shape[1] || k->shape[2] != c.d() || v->shape[2] != c.d() || k->dtype != v->dtype)
            throw std::invalid_argument("static keys and values must be of one shape (n_kv_heads, n, head_dim) and dtype, got " + shape_text(*k) + " and " + shape_text(*v));
    FlatArgs f{};
    f.q = c.original.data;  // not widened: bf16 queries are multiplied twice as fast
    f.q_dtype = c.original.dtype;
    f.q_head_stride = c.original.stride[0];
    f.q_stride = c.original.stride[1];
    f.n_kv_heads = c.a.heads;
    f.group = c.a.group;
    f.t = c.a.t;
    f.head_dim = c.d();
    f.spans = {span_of(sk, sv), span_of(rk, rv)};
    f.causal = true;
    f.scaling = c.a.scaling;
    f.softcap = c.a.softcap;
    if (!s_aux.is_none()) f.s_aux = read_f32(s_aux, "s_aux", {c.rows()}).f32();
    f.n_threads = c.a.n_threads;
    f.isa = isa;
    const int64_t n_sink = sk.shape[1], n_recent = rk.shape[1];
    Tensor m{};
    if (!mass.is_none()) {
        m = read_mass(mass, c.a.heads, n_sink + c.n_tokens + n_recent);
        c.a.mass = m.f32() + n_sink;
        c.a.mass_stride = m.stride[0];
    }
    const Results r(c);
    {
        const nb::gil_scoped_release release;
        const size_t rows = static_cast<size_t>(c.rows() * c.a.t), d = static_cast<size_t>(c.d());
        std::vector<float> out(rows * d), lse(rows);
        f.out = out.data();
        f.lse = lse.data();
        c.a.static_lse = lse.data();
        c.a.static_out = out.data();
        if (c.a.t == 1)
            c.a.beside = [&](int64_t head) { flat_attend(one_head(f, head)); };
        else
            flat_attend(f);
        attend_sketch(c.a);
        if (c.a.mass != nullptr) {
            // The static tokens' shares, once it is known what the index takes.
            std::vector<float> again(static_cast<size_t>(c.a.heads * (n_sink + n_recent)), 0.0f), scrap(rows * d), scrap_lse(rows);
            FlatArgs g = f;
            g.out = scrap.data();
            g.lse = scrap_lse.data();
            g.mass = again.data();
            g.mass_stride = n_sink + n_recent;
            g.other_lse = c.a.lse;
            flat_attend(g);
            for (int64_t h = 0; h < c.a.heads; ++h)
                for (int64_t i = 0; i < n_sink + n_recent; ++i)
                    m.f32()[h * m.stride[0] + i + (i < n_sink ? 0 : c.n_tokens)] += again[static_cast<size_t>(h * (n_sink + n_recent) + i)];
        }
        for (size_t i = 0; i < rows; ++i) {
            const float a = c.a.lse[i], b = lse[i], most = std::max(a, b);
            const float both = most == -std::numeric_limits<float>::infinity() ? most : most + std::log(std::exp(a - most) + std::exp(b - most));
            const float x = std::exp(a - both), y = std::exp(b - both);
            for (size_t j = 0; j < d; ++j) c.a.out[i * d + j] = x * c.a.out[i * d + j] + y * out[i * d + j];
            c.a.lse[i] = both;
        }
    }
    return r.tuple(c);
}

nb::object scores(nb::handle q, const std::vector<const Sealed*>& segments, int n_threads, const std::string& isa) {
    // log2(e) is what the scores would be multiplied by on top of the scaling: inner products come out as they are.
    Call c(q, segments, 0.693147181, n_threads, std::nullopt, {1.0f, 1.0f, 1.0f, 0.0f, 1.0f, 0.0f}, isa);
    const Fresh out = new_f32({c.rows(), c.a.t, c.n_tokens});
    {
        const nb::gil_scoped_release release;
        score_sketch(c.a, out.data);
    }
    return out.object;
}

void search(nb::handle q, const std::vector<const Sealed*>& segments, int n_threads, int64_t candidates, int64_t refined, double reach, nb::handle scores,
            nb::handle ids, const std::string& isa) {
    const Call c(q, segments, 1.0, n_threads, std::nullopt, {1.0f, 1.0f, 1.0f, static_cast<float>(reach), 1.0f, 0.0f}, isa);
    const Tensor to = read_tensor(scores, "scores", 3);
    const int64_t k = to.shape[2];
    if (k < 1 || k > c.n_tokens)
        throw std::invalid_argument("scores must have room for 1 to " + std::to_string(c.n_tokens) + " keys, the index's tokens, got " + std::to_string(k));
    SketchSearch s{c.a.kernels, c.a.segments, c.a.q, c.a.heads, c.a.group, c.a.t, k, std::max(candidates, k), std::max(refined, k), c.a.reach, n_threads,
                   read_f32(scores, "scores", {c.rows(), c.a.t, k}).f32(), nullptr};
    nb::ndarray<int64_t, nb::c_contig, nb::device::cpu> tokens;
    if (!nb::try_cast(nb::borrow(ids), tokens, false) || tokens.ndim() != 3 || static_cast<int64_t>(tokens.shape(0)) != c.rows() ||
        static_cast<int64_t>(tokens.shape(1)) != c.a.t || static_cast<int64_t>(tokens.shape(2)) != k)
        throw std::invalid_argument("ids must be contiguous, int64, on the CPU and of the scores' shape " + shape_text(to));
    s.ids = tokens.data();
    const nb::gil_scoped_release release;
    search_sketch(s);
}

}  // namespace

void bind_sketch(nb::module_& m) {
    nb::class_<Sealed>(m, "SketchSegment", "A sealed segment of the sketch index; keeps its tensors alive.")
        .def("__init__", [](Sealed* self, const nb::dict& fields) { new (self) Sealed(fields, false); }, nb::arg("fields"))
        .def_prop_ro("fields", &Sealed::fields)
        .def("__len__", [](const Sealed& s) { return s.segment.n; });
    m.def("sketch_seal", &seal, nb::rv_policy::take_ownership, nb::arg("fields"), nb::arg("y"), nb::arg("weight"), nb::arg("features"), nb::arg("keys"),
          nb::arg("values"), nb::arg("values_f32"), nb::arg("n_threads"), nb::arg("isa") = "",
          "Seal keys and values: fills the tensors of `fields` (all but mean and basis) and returns the segment.");
    m.def("sketch_attend", &attend, nb::arg("q"), nb::arg("segments"), nb::arg("scaling"), nb::arg("n_threads"), nb::arg("settings"),
          nb::arg("static_lse") = nb::none(), nb::arg("softcap") = nb::none(), nb::arg("mass") = nb::none(), nb::arg("trace") = false, nb::arg("isa") = "",
          "Attention over a chain of segments: (out, lse, coverage, exact, coded, error, touched_bytes), with trace also tier and weight. settings: rescore, coded, exact\n"
          "in units of 1 / n; reach in standard deviations; cap as a share; target_error (0: none).");
    m.def("sketch_decode", &decode, nb::arg("q"), nb::arg("segments"), nb::arg("sink_keys"), nb::arg("sink_values"), nb::arg("recent_keys"),
          nb::arg("recent_values"), nb::arg("scaling"), nb::arg("n_threads"), nb::arg("settings"), nb::arg("s_aux") = nb::none(),
          nb::arg("softcap") = nb::none(), nb::arg("mass") = nb::none(), nb::arg("isa") = "",
          "One whole step: exact attention over the static tokens merged with the segments. Results as sketch_attend's, static part included.");
    m.def("sketch_scores", &scores, nb::arg("q"), nb::arg("segments"), nb::arg("n_threads"), nb::arg("isa") = "",
          "The sketch's estimate of q.k: float32 (n_query_heads, t, n_tokens), tokens in the order in which the segments hold them.");
    m.def("sketch_search", &search, nb::arg("q"), nb::arg("segments"), nb::arg("n_threads"), nb::arg("candidates"), nb::arg("refined"), nb::arg("reach"),
          nb::arg("scores"), nb::arg("ids"), nb::arg("isa") = "",
          "The keys with the largest q.k: fills scores (float32) and ids (int64, positions), (n_query_heads, t, k) each. About `candidates` keys a\n"
          "query head, by their estimate raised by `reach` standard deviations, are scored from codes, the best `refined` of them exactly.");
}

}  // namespace sakuin
