#include "index/sketch/decode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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
    f.n_kv_heads = f.n_threads = 1;
    return f;
}

int64_t tokens_of(const SketchAttend& a) {
    int64_t n = 0;
    for (const SketchSegment* s : a.segments) n += s->n;
    return n;
}

// The static tokens' shares, once it is known what the index takes.
void add_static_mass(const SketchAttend& a, const FlatArgs& f, float* mass) {
    const int64_t n_sink = f.spans[0].n, n_recent = f.spans[1].n, n = tokens_of(a);
    const auto rows = static_cast<size_t>(a.heads * a.group * a.t), d = static_cast<size_t>(f.value_dim);
    std::vector<float> again(static_cast<size_t>(a.heads * (n_sink + n_recent)), 0.0f), out(rows * d), lse(rows);
    FlatArgs g = f;
    g.out = out.data();
    g.lse = lse.data();
    g.mass = again.data();
    g.mass_stride = n_sink + n_recent;
    g.static_lse = a.segments.empty() ? nullptr : a.lse;
    flat_attend(g);
    for (int64_t h = 0; h < a.heads; ++h)
        for (int64_t i = 0; i < n_sink + n_recent; ++i)
            mass[h * a.mass_stride + i + (i < n_sink ? 0 : n)] +=
                again[static_cast<size_t>(h * (n_sink + n_recent) + i)];
}

}  // namespace

void decode_sketch(SketchAttend& a, FlatArgs& f, float* mass) {
    const auto rows = static_cast<size_t>(a.heads * a.group * a.t), d = static_cast<size_t>(f.value_dim);
    if (a.segments.empty()) {
        f.out = a.out;
        f.lse = a.lse;
        flat_attend(f);
        if (mass != nullptr) add_static_mass(a, f, mass);
        return;
    }
    std::vector<float> out(rows * d), lse(rows);
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
    if (mass != nullptr) add_static_mass(a, f, mass);
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
