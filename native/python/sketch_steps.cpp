// Python entry points of steps that are taken without Python between the layers (index/sketch/steps.hpp).
#include "index/sketch/steps.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "python/bindings.hpp"
#include "python/sketch_segment.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

std::vector<const SketchSegment*> chain(const std::vector<const Sealed*>& segments) {
    std::vector<const SketchSegment*> found;
    for (const Sealed* s : segments) {
        if (s == nullptr) throw std::invalid_argument("segments must be SketchSegment objects, got None");
        found.push_back(&s->segment);
    }
    return found;
}

// As Python holds it: keeps the segments and the memory of the tokens alive.
class PySteps : public SketchSteps {
public:
    PySteps(nb::list segments, nb::object sink_keys, nb::object sink_values, nb::object keys, nb::object values,
            int64_t start, int64_t group, const SketchSettings& settings, int n_threads)
        : SketchSteps(chain(Objects<Sealed>(segments, "segments").all), span(sink_keys, sink_values, keys, values),
                      unsealed(keys, values, start), group, settings, n_threads),
          held_(nb::make_tuple(nb::tuple(segments), sink_keys, sink_values, keys, values)), group_(group) {
        const Tensor k = read_tensor(keys, "keys", 3);
        heads_ = k.shape[0], head_dim_ = k.shape[2], dtype_ = k.dtype;
    }

    // kept: (n_query_heads, n, head_dim) or None. mass: float32 (n_kv_heads, n_tokens) or None.
    void next(int64_t end, nb::object kept, int64_t first, int64_t every, nb::object mass, float above) {
        NextStep n{};
        if (!kept.is_none()) {
            const Tensor k = read_tensor(kept, "kept", 3);
            if (k.shape[0] != heads_ * group_ || k.shape[2] != head_dim_ || k.dtype != dtype_ || !k.contiguous())
                throw std::invalid_argument(
                    "kept queries must be contiguous, of all query heads and of the tokens' "
                    "dtype, got shape " +
                    shape_text(k));
            n.kept = k.data;
            n.n_kept = k.shape[1];
        }
        n.first = first, n.every = every, n.above = above;
        if (!mass.is_none()) {
            const Tensor m = read_tensor(mass, "mass", 2);
            if (m.dtype != DType::f32 || m.shape[0] != heads_ || (heads_ > 1 && m.stride[0] < m.shape[1]))
                throw std::invalid_argument("mass must be float32 of all KV heads, rows apart, got shape " +
                                            shape_text(m));
            n.mass = m.f32();
            n.mass_stride = m.stride[0];
            n.mass_tokens = m.shape[1];
        }
        given_ = nb::make_tuple(kept, mass);
        prepare(end, n);
    }

    nb::tuple sums() {
        const StepSums s = take_sums();
        return nb::make_tuple(s.steps, s.positions, s.touched_bytes, s.offloaded_bytes, s.exact, s.coded, s.coverage,
                              s.error, s.seconds);
    }

private:
    // like_keys, like_values: the memory of the unsealed tokens.
    static FlatSpan span(nb::handle keys, nb::handle values, nb::handle like_keys, nb::handle like_values) {
        const Tensor k = read_tensor(keys, "sink_keys", 3), v = read_tensor(values, "sink_values", 3);
        check_sink(k, read_tensor(like_keys, "keys", 3), k);
        check_sink(v, read_tensor(like_values, "values", 3), k);
        return {k.data, v.data, k.dtype, k.shape[1], k.stride[0], k.stride[1], v.stride[0], v.stride[1]};
    }
    static void check_sink(const Tensor& x, const Tensor& like, const Tensor& keys) {
        if (x.shape[0] != like.shape[0] || x.shape[1] != keys.shape[1] || x.shape[2] != like.shape[2] ||
            x.dtype != keys.dtype)
            throw std::invalid_argument(
                "keys and values of the sink must be of the unsealed tokens' heads and head_dim, got shape " +
                shape_text(x));
    }
    static UnsealedTokens unsealed(nb::handle keys, nb::handle values, int64_t start) {
        const Tensor k = read_tensor(keys, "keys", 3), v = read_tensor(values, "values", 3);
        for (const Tensor* x : {&k, &v})
            if (x->shape[0] != k.shape[0] || x->shape[1] != k.shape[1] || x->dtype != k.dtype || !x->contiguous())
                throw std::invalid_argument(
                    "the memory of unsealed tokens must be contiguous, of one dtype and as long");
        return {k.data, v.data, k.dtype, k.shape[0], k.shape[1], k.shape[2], v.shape[2], start, start};
    }

    nb::tuple held_, given_;
    int64_t heads_ = 0, head_dim_ = 0, group_;
    DType dtype_ = DType::f32;
};

// In blocks, so that what is 0 nearly everywhere is read as fast as memory is.
nb::tuple take_mass(nb::handle sums, int64_t n_tokens) {
    const Tensor s = read_tensor(sums, "sums", 2);
    const int64_t heads = s.shape[0];
    if (s.dtype != DType::f32 || n_tokens < 0 || s.shape[1] < n_tokens || (heads > 1 && s.stride[0] < s.shape[1]))
        throw std::invalid_argument("sums must be float32, rows apart, of " + std::to_string(n_tokens) +
                                    " tokens at least, got shape " + shape_text(s));
    constexpr int64_t block = 256;
    std::vector<int64_t> tokens;
    std::vector<float> shares;
    for (int64_t first = 0; first < n_tokens; first += block) {
        const int64_t n = std::min(block, n_tokens - first);
        float all[block] = {};
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t i = 0; i < n; ++i) all[i] += s.f32()[h * s.stride[0] + first + i];
        const size_t before = tokens.size();
        for (int64_t i = 0; i < n; ++i)
            if (all[i] != 0.0f) {
                tokens.push_back(first + i);
                shares.push_back(all[i]);
            }
        if (tokens.size() == before) continue;
        for (int64_t h = 0; h < heads; ++h) std::fill_n(s.f32() + h * s.stride[0] + first, n, 0.0f);
    }
    for (int64_t h = 0; h < heads; ++h) std::fill_n(s.f32() + h * s.stride[0] + n_tokens, s.shape[1] - n_tokens, 0.0f);
    const FreshWhole which = new_i64({static_cast<int64_t>(tokens.size())});
    const Fresh taken = new_f32({static_cast<int64_t>(tokens.size())});
    std::copy(tokens.begin(), tokens.end(), which.data);
    std::copy(shares.begin(), shares.end(), taken.data);
    return nb::make_tuple(which.object, taken.object);
}

}  // namespace

void bind_sketch_steps(nb::module_& m) {
    m.def(
        "take_mass", &take_mass, nb::arg("sums"), nb::arg("n_tokens"),
        "The tokens (m,) in int64 of the first n_tokens of which some row of the sums (n_kv_heads, n), none below 0,\n"
        "has more than 0, and how much all rows have, float32 (m,); all sums become 0.");
    nb::class_<Steps>(m, "Steps", "Steps of one sequence in one layer that need no Python.");
    nb::class_<PySteps, Steps>(m, "SketchSteps", "Steps behind a `sketch` index, or while nothing is sealed yet.")
        .def(nb::init<nb::list, nb::object, nb::object, nb::object, nb::object, int64_t, int64_t, const SketchSettings&,
                      int>(),
             nb::arg("segments"), nb::arg("sink_keys"), nb::arg("sink_values"), nb::arg("keys"), nb::arg("values"),
             nb::arg("start"), nb::arg("group"), nb::arg("settings"), nb::arg("n_threads"))
        .def("prepare", &PySteps::next, nb::arg("end"), nb::arg("kept").none(), nb::arg("first"), nb::arg("every"),
             nb::arg("mass").none(), nb::arg("above"),
             "What the next step finds and leaves: where the unsealed tokens end, where kept queries and mass go.")
        .def("sums", &PySteps::sums,
             "Since the last call: (steps, positions, touched bytes, offloaded bytes, exact, coded, coverage, error,\n"
             "seconds), the shares summed over positions.");
}

}  // namespace sakuin
