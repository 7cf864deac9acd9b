// Python entry points of `ivf`: checks what a segment is made of, seals one, attends and searches a chain of them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "index/ivf/ivf.hpp"
#include "kernels/dispatch.hpp"
#include "python/bindings.hpp"
#include "python/call.hpp"

namespace sakuin {
namespace {

// A sealed segment as Python holds it: the tensors, and the pointers into them. Every such class needs a name of its
// own: nanobind knows types by their name, anonymous namespaces or not.
class IvfSealed {
public:
    // `trusted`: the contents are about to be written by the sealer; otherwise every number that leads somewhere is
    // copied and then checked, so that neither a damaged file nor one that is written to later leads out of the arrays.
    IvfSealed(const nb::dict& tensors, bool trusted) : fields_(tensors) {
        const Fields::KeysValues kv = fields_.keys_values();
        const int64_t lists = fields_.size<uint16_t>("centroid", 3, 1);
        if (lists < 1 || lists > kv.n)
            throw std::invalid_argument("a segment has 1 to as many lists as tokens, got " + std::to_string(lists) +
                                        " for " + std::to_string(kv.n));
        segment.heads = kv.heads;
        segment.n = kv.n;
        segment.lists = lists;
        segment.head_dim = kv.head_dim;
        segment.value_dim = kv.value_dim;
        segment.dtype = kv.dtype;
        segment.keys = kv.keys;
        segment.values = kv.values;
        if (!trusted)
            for (const char* name : {"order", "start"}) fields_.own(name);
        segment.order = fields_.array<int32_t>("order", {kv.heads, kv.n});
        segment.start = fields_.array<int32_t>("start", {kv.heads, lists + 1});
        segment.mean = fields_.array<float>("mean", {kv.heads, kv.head_dim});
        segment.centroid = fields_.array<uint16_t>("centroid", {kv.heads, lists, kv.head_dim});
        segment.mean_value = fields_.array<uint16_t>("mean_value", {kv.heads, lists, kv.value_dim});
        segment.spread = fields_.array<uint16_t>("spread", {kv.heads, kv.head_dim, kv.head_dim});
        if (!trusted) check_contents(segment);
    }

    IvfSegment segment{};
    nb::dict fields() const { return fields_.copy(); }

private:
    Fields fields_;
};

IvfSealed* seal(const nb::dict& fields, nb::handle keys, nb::handle values, int iterations, int n_threads,
                const IvfSealed* base, std::string_view isa) {
    auto sealed = std::make_unique<IvfSealed>(fields, true);
    const IvfSegment& s = sealed->segment;
    const Fields::KeysValues from = read_keys_values(keys, values);
    int64_t base_n = 0, base_lists = 0;
    if (base != nullptr) {
        const IvfSegment& b = base->segment;
        if (b.heads != s.heads || b.head_dim != s.head_dim || b.value_dim != s.value_dim || b.dtype != s.dtype ||
            b.lists >= s.lists || b.n >= s.n)
            throw std::invalid_argument(
                "the base must have the segment's heads, head_dim and dtype, and fewer tokens and lists");
        base_n = b.n;
        base_lists = b.lists;
    }
    if (from.heads != s.heads || from.n != s.n - base_n || from.head_dim != s.head_dim ||
        from.value_dim != s.value_dim || from.dtype != s.dtype)
        throw std::invalid_argument(
            "keys and values to be sealed must have the segment's heads, head_dim, dtype and new tokens");
    if (s.lists - base_lists > from.n)
        throw std::invalid_argument("there may be as many new lists as new tokens, got " +
                                    std::to_string(s.lists - base_lists) + " for " + std::to_string(from.n));
    if (iterations < 0 || iterations > 1000)
        throw std::invalid_argument("iterations must be 0 to 1000, got " + std::to_string(iterations));
    if (n_threads < 1) throw std::invalid_argument("n_threads must be at least 1, got " + std::to_string(n_threads));
    const IvfSeal a{&kernels(isa), from.keys, from.values, base != nullptr ? &base->segment : nullptr,
                    iterations,    n_threads};
    {
        const Released release;
        seal_ivf(a, s);
    }
    return sealed.release();
}

// Segments of one chain, checked against each other and the call.
class Call {
public:
    Call(nb::handle q, nb::handle list, double scaling, std::optional<double> softcap, int64_t probes, int64_t budget,
         int n_threads, std::string_view isa)
        : segments_(list, "segments"), first_(checked(segments_.all)),
          step(q, first_.heads, first_.head_dim, first_.value_dim, tokens(segments_.all), scaling, softcap, n_threads,
               isa) {
        if (probes < 0)
            throw std::invalid_argument("probes must be at least 1, or 0 to go by the budget, got " +
                                        std::to_string(probes));
        if (probes == 0 && budget < 1)
            throw std::invalid_argument("the budget must be at least 1 token, got " + std::to_string(budget));
        fill(a, step);
        for (const IvfSealed* s : segments_.all) a.segments.push_back(&s->segment);
        a.probes = probes;
        a.budget = budget;
    }

private:
    const Objects<IvfSealed> segments_;
    const IvfSegment& first_;  // before the rest: nothing may look at segments that are not checked

public:
    StepCall step;
    IvfAttend a{};

private:
    static const IvfSegment& checked(const std::vector<const IvfSealed*>& segments) {
        if (segments.empty()) throw std::invalid_argument("segments must hold at least one segment, got none");
        for (const IvfSealed* s : segments)
            if (s == nullptr) throw std::invalid_argument("segments must be IvfSegment objects, got None");
        const IvfSegment& one = segments.front()->segment;
        for (const IvfSealed* s : segments)
            if (s->segment.heads != one.heads || s->segment.head_dim != one.head_dim ||
                s->segment.value_dim != one.value_dim)
                throw std::invalid_argument("all segments must have the same number of KV heads and head_dim");
        return one;
    }
    static int64_t tokens(const std::vector<const IvfSealed*>& segments) {
        int64_t n = 0, lists = 0;
        for (const IvfSealed* s : segments) {
            n += s->segment.n;
            lists += s->segment.lists;
        }
        if (lists > UINT32_MAX)
            throw std::invalid_argument("an index has at most 2^32 lists, got " + std::to_string(lists));
        return n;
    }
};

nb::tuple attend(nb::handle q, nb::handle segments, double scaling, int n_threads, int64_t probes, int64_t budget,
                 bool estimate_rest, nb::object static_lse, std::optional<double> softcap, nb::object mass,
                 std::string_view isa) {
    Call c(q, segments, scaling, softcap, probes, budget, n_threads, isa);
    const StepResults r(c.step);
    fill(c.a, c.step, r, static_lse, mass);
    c.a.estimate_rest = estimate_rest;
    {
        const Released release;
        attend_ivf(c.a);
    }
    return r.tuple(c.a.touched_bytes);
}

void search(nb::handle q, nb::handle segments, int n_threads, int64_t probes, int64_t budget, nb::handle scores,
            nb::handle ids, std::string_view isa) {
    Call c(q, segments, 1.0, std::nullopt, probes, budget, n_threads, isa);
    const Found found(c.step, scores, ids);
    const Released release;
    search_ivf(c.a, found.k, found.scores, found.ids);
}

}  // namespace

void bind_ivf(nb::module_& m) {
    nb::class_<IvfSealed>(m, "IvfSegment", "A sealed segment of the ivf index; keeps its tensors alive.")
        .def(
            "__init__", [](IvfSealed* self, const nb::dict& fields) { new (self) IvfSealed(fields, false); },
            nb::arg("fields"))
        .def_prop_ro("fields", &IvfSealed::fields)
        .def_prop_ro("lists", [](const IvfSealed& s) { return s.segment.lists; })
        .def("__len__", [](const IvfSealed& s) { return s.segment.n; });
    m.def("ivf_seal", &seal, nb::rv_policy::take_ownership, nb::arg("fields"), nb::arg("keys"), nb::arg("values"),
          nb::kw_only(), nb::arg("iterations"), nb::arg("n_threads"), nb::arg("base").none() = nb::none(),
          nb::arg("isa") = "",
          "Put keys and values (n_kv_heads, n, head_dim) into lists by k-means, after those of `base` if there is\n"
          "one: fills the tensors of `fields` and returns the segment.");
    m.def("ivf_attend", &attend, nb::arg("q"), nb::arg("segments"), nb::arg("scaling"), nb::arg("n_threads"),
          nb::kw_only(), nb::arg("probes"), nb::arg("budget"), nb::arg("estimate_rest"),
          nb::arg("static_lse") = nb::none(), nb::arg("softcap") = nb::none(), nb::arg("mass") = nb::none(),
          nb::arg("isa") = "",
          "Attention over a chain of segments: (out, lse, coverage, exact, touched_bytes). Each query head probes\n"
          "`probes` lists, or, where that is 0, as many as hold `budget` tokens.");
    m.def("ivf_search", &search, nb::arg("q"), nb::arg("segments"), nb::arg("n_threads"), nb::kw_only(),
          nb::arg("probes"), nb::arg("budget"), nb::arg("scores"), nb::arg("ids"), nb::arg("isa") = "",
          "The keys with the largest q.k in the probed lists: fills scores (float32) and ids (int64),\n"
          "(n_query_heads, t, k) each.");
}

}  // namespace sakuin
