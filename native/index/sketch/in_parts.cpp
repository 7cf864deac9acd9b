// A step for query groups of more heads than the kernels take at a time: part by part, each as a step of its own.
#include <algorithm>

#include "index/parts.hpp"
#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

// What `trace` has of the parts of a group: a token entered as in the part that looked at it most closely.
void add_trace(const SketchAttend& part, float share, const SketchAttend& all, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        all.trace_tier[i] = std::max(all.trace_tier[i], part.trace_tier[i]);
        all.trace_weight[i] += share * part.trace_weight[i];
    }
}

}  // namespace

void attend_sketch_in_parts(SketchAttend& a) {
    const GroupParts parts(a.heads, a.group, a.t);
    const int64_t d = a.segments.front()->shape.head_dim, width = a.segments.front()->shape.value_dim;
    int64_t n_trace = 0;
    if (a.trace_tier != nullptr) {
        for (const SketchSegment* s : a.segments) n_trace += a.heads * a.t * s->n;
        std::fill_n(a.trace_tier, n_trace, 0.0f);
        std::fill_n(a.trace_weight, n_trace, 0.0f);
    }
    for (float* x : {a.exact_share, a.coded_share}) std::fill_n(x, a.heads * a.t, 0.0f);
    a.touched_bytes = 0;
    for (int64_t i = 0; i < parts.count(); ++i) {
        SketchAttend part = a;
        const std::vector<float> q = parts.take(a.q, d, i), static_lse = parts.take(a.static_lse, 1, i),
                                 static_out = parts.take(a.static_out, width, i);
        const size_t rows = at(parts.rows(i));
        std::vector<float> out(rows * at(width)), lse(rows), coverage(rows), error(rows), exact(at(a.heads * a.t)),
            coded(exact), tier(at(n_trace)), weight(tier);
        part.q = q.data(), part.group = parts.size(i);
        part.static_lse = or_null(static_lse), part.static_out = or_null(static_out);
        part.out = out.data(), part.lse = lse.data(), part.coverage = coverage.data(), part.error = error.data();
        part.exact_share = exact.data(), part.coded_share = coded.data();
        if (n_trace > 0) part.trace_tier = tier.data(), part.trace_weight = weight.data();
        attend_sketch(part);
        parts.put(out, width, i, a.out);
        parts.put(lse, 1, i, a.lse);
        parts.put(coverage, 1, i, a.coverage);
        parts.put(error, 1, i, a.error);
        parts.add_share(exact, i, a.exact_share);
        parts.add_share(coded, i, a.coded_share);
        if (n_trace > 0) add_trace(part, parts.share(i), a, n_trace);
        a.touched_bytes += part.touched_bytes;
    }
}

}  // namespace sakuin
