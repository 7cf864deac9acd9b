#include "index/sketch/decode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "index/kept.hpp"

namespace sakuin {
namespace {

// One KV head's part of a call for one position, on one thread.
FlatArgs one_head(FlatArgs f, int64_t head) {
    const int64_t first = head * f.group;
    f.q = static_cast<const char*>(f.q) + first * f.q_head_stride * dtype_size(f.q_dtype);
    for (FlatSpan& s : f.spans) {
        s.keys = static_cast<const char*>(s.keys) + head * s.key_head_stride * dtype_size(s.dtype);
        s.values = static_cast<const char*>(s.values) + head * s.value_head_stride * dtype_size(s.dtype);
    }
    if (f.s_aux != nullptr) f.s_aux += first;
    f.out += first * f.value_dim;
    f.lse += first;
    if (f.logits != nullptr) f.logits += first * (f.spans[0].n + f.spans[1].n);
    f.n_kv_heads = f.n_threads = 1;
    return f;
}

// What the sink and the unsealed tokens give.
struct Static {
    std::vector<float> out, lse;
};

Static& kept_static() {
    static thread_local Static one;
    return one;
}

int64_t tokens_of(const SketchAttend& a) {
    int64_t n = 0;
    for (const SketchSegment* s : a.segments) n += s->n;
    return n;
}

}  // namespace

void decode_sketch(SketchAttend& a, FlatArgs& f, float* mass) {
    const auto rows = static_cast<size_t>(a.heads * a.group * a.t), d = static_cast<size_t>(f.value_dim);
    if (a.mass_least != 0.0f && (a.t != 1 || a.group > max_group))
        throw std::invalid_argument("what of a mass counts is known of one position and few query heads alone");
    std::unique_ptr<float[]> logits;
    if (mass != nullptr && a.t == 1) {
        logits = std::make_unique_for_overwrite<float[]>(rows * static_cast<size_t>(f.spans[0].n + f.spans[1].n));
        f.logits = logits.get();
        f.mass_least = a.mass_least;
    }
    f.mass_stride = a.mass_stride;
    f.spans[1].after = tokens_of(a);
    if (a.segments.empty()) {
        f.out = a.out;
        f.lse = a.lse;
        f.mass = mass;
        flat_attend(f);
        return;
    }
    Kept beside(kept_static());
    std::vector<float>&out = (*beside).out, &lse = (*beside).lse;
    out.resize(std::max(out.size(), rows * d)), lse.resize(std::max(lse.size(), rows));
    f.out = out.data();
    f.lse = lse.data();
    a.static_lse = lse.data();
    a.static_out = out.data();
    a.mass = mass == nullptr ? nullptr : mass + f.spans[0].n;
    if (a.t == 1 && a.group <= max_group)
        a.beside = [&](int64_t head) { flat_attend(one_head(f, head)); };
    else
        flat_attend(f);
    attend_sketch(a);
    if (mass != nullptr) {
        f.mass = mass;
        f.static_lse = a.lse;
        flat_mass(f);
    }
    for (size_t i = 0; i < rows; ++i) {
        const float x = a.lse[i], y = lse[i], most = std::max(x, y);
        const float both = most == -std::numeric_limits<float>::infinity()
                               ? most
                               : most + std::log(std::exp(x - most) + std::exp(y - most));
        const float of_index = std::exp(x - both), of_static = std::exp(y - both);
        for (size_t j = 0; j < d; ++j) a.out[i * d + j] = of_index * a.out[i * d + j] + of_static * out[i * d + j];
        a.lse[i] = both;
    }
}

}  // namespace sakuin
