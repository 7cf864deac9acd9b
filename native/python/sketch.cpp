// Python entry points of `sketch`: checks what a segment is made of, seals one,
// and runs attention over a chain of them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "index/flat/flat.hpp"
#include "index/sketch/decode.hpp"
#include "index/sketch/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "python/bindings.hpp"
#include "python/call.hpp"
#include "python/sketch_segment.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

Sealed* seal(const nb::dict& fields, nb::handle y, nb::handle weight, nb::handle features, nb::handle keys,
             nb::handle values, nb::handle values_f32, int n_threads, std::string_view isa) {
    auto sealed = std::make_unique<Sealed>(fields, true);
    const SketchSegment& s = sealed->segment;
    const int64_t d = s.shape.head_dim, value_dim = s.shape.value_dim;
    const Fields::KeysValues from = read_keys_values(keys, values, true);
    if (from.heads != s.heads || from.n != s.n || from.head_dim != d || from.value_dim != value_dim ||
        from.dtype != s.dtype)
        throw std::invalid_argument("keys and values to be sealed must be of the segment's shape and dtype");
    const Tensor f = read_tensor(features, "features", 3);
    SealArgs a{};
    a.kernels = &kernels(isa);
    a.y = read_f32(y, "y", {s.heads, d, s.n}).f32();
    a.weight = read_f32(weight, "weight", {s.heads, d}).f32();
    a.n_features = f.shape[1];
    a.features = read_f32(features, "features", {s.heads, a.n_features, s.n}).f32();
    a.keys = from.keys;
    a.values = from.values;
    a.values_f32 = read_f32(values_f32, "values_f32", {s.heads, s.n, value_dim}).f32();
    {
        const Released release;
        seal_sketch(a, s, n_threads);
    }
    return sealed.release();
}

SketchSettings settings_of(float rescore, float coded, float exact, float reach, float cap, float target_error) {
    for (const float x : {rescore, coded, exact, reach, cap, target_error})
        if (!(x >= 0.0f)) throw std::invalid_argument("settings must be at least 0, got " + std::to_string(x));
    return {rescore, coded, exact, reach, std::min(cap, 1.0f), target_error};
}

// Arguments that `attend`, `decode` and `search` share.
class Call {
public:
    Call(nb::handle q, nb::handle list, double scaling, int n_threads, std::optional<double> softcap,
         const SketchSettings& settings, std::string_view isa)
        : segments_(list, "segments"), first_(checked(segments_.all)),
          step(q, first_.heads, first_.shape.head_dim, first_.shape.value_dim, tokens(segments_.all), scaling, softcap,
               n_threads, isa) {
        for (const Sealed* s : segments_.all) a.segments.push_back(&s->segment);
        a.kernels = step.kernels;
        a.q = step.q.data();
        a.heads = step.heads;
        a.group = step.group;
        a.t = step.t;
        a.scaling = step.scaling;
        a.softcap = step.softcap;
        a.n_threads = step.n_threads;
        a.settings = settings;
    }

private:
    const Objects<Sealed> segments_;
    const SketchSegment& first_;  // before the rest: nothing may look at segments that are not checked

public:
    StepCall step;
    SketchAttend a{};

private:
    static const SketchSegment& checked(const std::vector<const Sealed*>& segments) {
        if (segments.empty()) throw std::invalid_argument("segments must hold at least one segment, got none");
        for (const Sealed* s : segments)
            if (s == nullptr) throw std::invalid_argument("segments must be SketchSegment objects, got None");
        const SketchSegment& one = segments.front()->segment;
        for (const Sealed* s : segments)
            if (s->segment.heads != one.heads || s->segment.shape.head_dim != one.shape.head_dim ||
                s->segment.shape.value_dim != one.shape.value_dim)
                throw std::invalid_argument("all segments must have the same number of KV heads and head_dim");
        return one;
    }
    static int64_t tokens(const std::vector<const Sealed*>& segments) {
        int64_t n = 0;
        for (const Sealed* s : segments) n += s->segment.n;
        return n;
    }
};

// The arrays that a step fills, as Python gets them: out, lse, coverage, exact, coded, error.
struct Results : StepResults {
    Fresh coded, error;
    explicit Results(Call& c)
        : StepResults(c.step), coded(new_f32({c.a.heads, c.a.t})), error(new_f32({c.step.rows(), c.a.t})) {
        c.a.out = out.data;
        c.a.lse = lse.data;
        c.a.coverage = coverage.data;
        c.a.exact_share = exact.data;
        c.a.coded_share = coded.data;
        c.a.error = error.data;
    }
    nb::tuple tuple(const Call& c) const {
        return nb::make_tuple(out.object, lse.object, coverage.object, exact.object, coded.object, error.object,
                              c.a.touched_bytes);
    }
};

nb::tuple attend(nb::handle q, nb::handle segments, double scaling, int n_threads, const SketchSettings& settings,
                 nb::object static_lse, std::optional<double> softcap, nb::object mass, bool trace,
                 std::string_view isa) {
    Call c(q, segments, scaling, n_threads, softcap, settings, isa);
    c.a.static_lse = c.step.static_lse(static_lse);
    c.a.mass = c.step.mass(mass, c.step.n_tokens, c.a.mass_stride);
    const Results r(c);
    Fresh tier, weight;
    if (trace) {
        tier = new_f32({c.a.heads, c.a.t, c.step.n_tokens});
        weight = new_f32({c.a.heads, c.a.t, c.step.n_tokens});
        c.a.trace_tier = tier.data;
        c.a.trace_weight = weight.data;
    }
    {
        const Released release;
        attend_sketch(c.a);
    }
    const nb::tuple results = r.tuple(c);
    return trace ? nb::tuple(results + nb::make_tuple(tier.object, weight.object)) : results;
}

FlatSpan span_of(const Tensor& k, const Tensor& v) {
    return {k.data, v.data, k.dtype, k.shape[1], k.stride[0], k.stride[1], v.stride[0], v.stride[1]};
}

nb::tuple decode(nb::handle q, nb::handle segments, nb::handle sink_keys, nb::handle sink_values,
                 nb::handle recent_keys, nb::handle recent_values, double scaling, int n_threads,
                 const SketchSettings& settings, nb::object s_aux, std::optional<double> softcap, nb::object mass,
                 std::string_view isa) {
    Call c(q, segments, scaling, n_threads, softcap, settings, isa);
    const Tensor sk = read_tensor(sink_keys, "sink_keys", 3), sv = read_tensor(sink_values, "sink_values", 3);
    const Tensor rk = read_tensor(recent_keys, "recent_keys", 3), rv = read_tensor(recent_values, "recent_values", 3);
    for (const auto& [k, v] : {std::pair{&sk, &sv}, std::pair{&rk, &rv}})
        if (k->shape[0] != c.a.heads || v->shape[0] != c.a.heads || k->shape[1] != v->shape[1] ||
            k->shape[2] != c.step.head_dim || v->shape[2] != c.step.value_dim || k->dtype != v->dtype)
            throw std::invalid_argument(
                "static keys and values must be of the segments' heads and head_dim, as many, and of one dtype, got " +
                shape_text(*k) + " and " + shape_text(*v));
    FlatArgs f{};
    const Tensor query = read_tensor(q, "q", 3);  // not widened: bf16 queries are multiplied twice as fast
    f.q = query.data;
    f.q_dtype = query.dtype;
    f.q_head_stride = query.stride[0];
    f.q_stride = query.stride[1];
    f.n_kv_heads = c.a.heads;
    f.group = c.a.group;
    f.t = c.a.t;
    f.head_dim = c.step.head_dim;
    f.value_dim = c.step.value_dim;
    f.spans = {span_of(sk, sv), span_of(rk, rv)};
    f.causal = true;
    f.scaling = c.a.scaling;
    f.softcap = c.a.softcap;
    if (!s_aux.is_none()) f.s_aux = read_f32(s_aux, "s_aux", {c.step.rows()}).f32();
    f.n_threads = c.a.n_threads;
    f.isa = isa;
    const int64_t n_sink = sk.shape[1], n_recent = rk.shape[1];
    float* const whole_mass = c.step.mass(mass, n_sink + c.step.n_tokens + n_recent, c.a.mass_stride);
    const Results r(c);
    {
        const Released release;
        decode_sketch(c.a, f, whole_mass);
    }
    return r.tuple(c);
}

void search(nb::handle q, nb::handle segments, int n_threads, int64_t candidates, int64_t refined, double reach,
            nb::handle scores, nb::handle ids, std::string_view isa) {
    // Of the settings a search takes the reach alone.
    const SketchSettings settings = settings_of(0.0f, 0.0f, 0.0f, static_cast<float>(reach), 0.0f, 0.0f);
    const Call c(q, segments, 1.0, n_threads, std::nullopt, settings, isa);
    const Found found(c.step, scores, ids);
    const SketchSearch s{.kernels = c.a.kernels,
                         .segments = c.a.segments,
                         .q = c.a.q,
                         .heads = c.a.heads,
                         .group = c.a.group,
                         .t = c.a.t,
                         .k = found.k,
                         .candidates = std::max(candidates, found.k),
                         .refined = std::max(refined, found.k),
                         .reach = settings.reach,
                         .n_threads = n_threads,
                         .scores = found.scores,
                         .ids = found.ids};
    const Released release;
    search_sketch(s);
}

}  // namespace

void bind_sketch(nb::module_& m) {
    nb::class_<Sealed>(m, "SketchSegment", "A sealed segment of the sketch index; keeps its tensors alive.")
        .def(
            "__init__",
            [](Sealed* self, const nb::dict& fields, bool on_disk) { new (self) Sealed(fields, false, on_disk); },
            nb::arg("fields"), nb::arg("on_disk") = false)
        .def_prop_ro("fields", &Sealed::fields)
        .def("__len__", [](const Sealed& s) { return s.segment.n; });
    nb::class_<SketchSettings>(
        m, "SketchSettings",
        "How much a step reads: rescore, coded and exact in units of 1 / n; reach in standard deviations;\n"
        "cap as a share; target_error (0: none).")
        .def(nb::new_(&settings_of), nb::kw_only(), nb::arg("rescore"), nb::arg("coded"), nb::arg("exact"),
             nb::arg("reach"), nb::arg("cap"), nb::arg("target_error") = 0.0f)
        .def_ro("rescore", &SketchSettings::rescore)
        .def_ro("coded", &SketchSettings::coded)
        .def_ro("exact", &SketchSettings::exact)
        .def_ro("reach", &SketchSettings::reach)
        .def_ro("cap", &SketchSettings::cap)
        .def_ro("target_error", &SketchSettings::target_error);
    m.def("sketch_seal", &seal, nb::rv_policy::take_ownership, nb::arg("fields"), nb::kw_only(), nb::arg("y"),
          nb::arg("weight"), nb::arg("features"), nb::arg("keys"), nb::arg("values"), nb::arg("values_f32"),
          nb::arg("n_threads"), nb::arg("isa") = "",
          "Seal keys and values: fills the tensors of `fields` (all but mean and basis) and returns the segment.\n"
          "y is used up.");
    m.def("sketch_attend", &attend, nb::arg("q"), nb::arg("segments"), nb::arg("scaling"), nb::arg("n_threads"),
          nb::arg("settings"), nb::kw_only(), nb::arg("static_lse") = nb::none(), nb::arg("softcap") = nb::none(),
          nb::arg("mass") = nb::none(), nb::arg("trace") = false, nb::arg("isa") = "",
          "Attention over a chain of segments: (out, lse, coverage, exact, coded, error, touched_bytes), with trace\n"
          "also tier and weight.");
    m.def("sketch_decode", &decode, nb::arg("q"), nb::arg("segments"), nb::arg("sink_keys"), nb::arg("sink_values"),
          nb::arg("recent_keys"), nb::arg("recent_values"), nb::arg("scaling"), nb::arg("n_threads"),
          nb::arg("settings"), nb::kw_only(), nb::arg("s_aux") = nb::none(), nb::arg("softcap") = nb::none(),
          nb::arg("mass") = nb::none(), nb::arg("isa") = "",
          "One whole step: exact attention over the static tokens merged with the segments. Results as\n"
          "sketch_attend's, static part included.");
    m.def("sketch_search", &search, nb::arg("q"), nb::arg("segments"), nb::arg("n_threads"), nb::kw_only(),
          nb::arg("candidates"), nb::arg("refined"), nb::arg("reach"), nb::arg("scores"), nb::arg("ids"),
          nb::arg("isa") = "",
          "The keys with the largest q.k: fills scores (float32) and ids (int64, positions), (n_query_heads, t, k)\n"
          "each. About `candidates` keys a query head, by their estimate raised by `reach` standard deviations, are\n"
          "scored from codes, the best `refined` of them exactly.");
}

}  // namespace sakuin
