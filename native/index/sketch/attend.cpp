// One attention step over a chain of `sketch` segments: scan everything, score again what may be large, spend precision
// where the weight is, estimate the rest by list (docs/method.md). Two parallel phases; what joins them is a few
// numbers per query head.
#include <algorithm>
#include <limits>
#include <utility>

#include "index/kept.hpp"
#include "index/sketch/exact.hpp"
#include "index/sketch/read_ahead.hpp"
#include "index/sketch/step.hpp"

namespace sakuin {
namespace {

// Nats by which keys of one list that stay in it may weigh more than their mean at most, about:
// larger ones have left it.
constexpr float tilt_limit = 10.0f;

// Of the heads taken at once, so that threads end at about the same time.
constexpr int64_t tasks_per_thread = 8;

// Thresholds fall to a quarter at least each time, and no further than error.cpp allows.
constexpr int most_refinements = 8;

// Within float32, where it is a number.
float held(float x) {
    return std::min(std::max(x, -std::numeric_limits<float>::max()), std::numeric_limits<float>::max());
}

}  // namespace

Scratch& scratch() {
    static thread_local Scratch one;
    return one;
}

Step::Step(const SketchAttend& args, std::vector<View>& views, std::vector<Head>& heads, int64_t t)
    : a_(args), k_(*args.kernels->sketch), attend_all_(attend_all_of(k_)), t_(t),
      d_(args.segments.front()->shape.head_dim), value_dim_(args.segments.front()->shape.value_dim),
      width_(static_cast<size_t>(padded(static_cast<int>(args.group)))), to_(args.heads), heads_(heads), views_(views) {
    heads_.resize(static_cast<size_t>(a_.heads));
    for (const SketchSegment* s : a_.segments) n_ += s->n;
    views_.resize(static_cast<size_t>(a_.heads) * a_.segments.size());
    for (int64_t h = 0; h < a_.heads; ++h) {
        Head& head = heads_[static_cast<size_t>(h)];
        head.strayed = false, head.tolerance = 1.0f;
        head.q.resize(static_cast<size_t>(a_.group * d_));
        for (int64_t g = 0; g < a_.group; ++g)
            for (int64_t j = 0; j < d_; ++j)
                head.q[static_cast<size_t>(g * d_ + j)] =
                    held(a_.q[((h * a_.group + g) * a_.t + t_) * d_ + j] * a_.scaling * log2e);
        int64_t first = 0;
        for (size_t s = 0; s < a_.segments.size(); ++s) {
            View& v = view(h, s);
            v.segment = a_.segments[s];
            v.head = h;
            v.first = first;
            first += v.segment->n;
        }
    }
}

int64_t Step::run() {
    const int64_t at_once = heads_at_once();
    for (from_ = 0; from_ < a_.heads; from_ = to_) {
        to_ = std::min(from_ + at_once, a_.heads);
        attend_heads();
    }
    from_ = 0;
    if (a_.settings.target_error > 0.0f)
        for (int times = 0; times < most_refinements && refine(); ++times) {
        }
    if (std::any_of(heads_.begin(), heads_.end(), [](const Head& head) { return head.strayed; })) {
        each([this](View& v) {
            if (head(v).strayed) attend_exactly(v);
        });
        for (int64_t h = 0; h < a_.heads; ++h)
            if (heads_[static_cast<size_t>(h)].strayed) {
                join_exact(h);
                sum_up(h);
            }
    }
    int64_t touched = 0;
    for (int64_t h = 0; h < a_.heads; ++h) touched += finish(h);
    return touched;
}

// Scores are still in the cache when keys are found by them only if not too many segments lie between. So few heads are
// taken at a time, yet enough segments for all threads.
int64_t Step::heads_at_once() const {
    const int64_t segments = static_cast<int64_t>(a_.segments.size()), wanted = tasks_per_thread * a_.n_threads;
    return std::clamp<int64_t>((wanted + segments - 1) / segments, 1, a_.heads);
}

void Step::attend_heads() {
    each([this](View& v) {
        if (v.first == 0 && a_.beside) a_.beside(v.head);
        scan(v);
    });
    for (int64_t h = from_; h < to_; ++h) estimate_lse(h);
    each([this](View& v) { attend(v); });
    for (int64_t h = from_; h < to_; ++h) {
        sum_up(h);
        heads_[static_cast<size_t>(h)].strayed = strayed(h);
    }
}

// --- phase 1: the scan -----------------------------------------------------------------------------------------------
void Step::score(View& v, uint16_t* largest) {
    const SketchSegment& s = *v.segment;
    const std::vector<float>& q = head(v).q;
    v.p.resize(groups() * static_cast<size_t>(d_));
    for (std::vector<float>* x : {&v.scale, &v.bias, &v.sigma, &v.top, &v.sum, &v.variance, &v.slope, &v.squares})
        x->assign(width_, 0.0f);
    k_.project(q.data(), of_head(s.basis, v.head, d_ * d_), group(), static_cast<int>(d_), v.p.data());
    k_.moments(q.data(), v.p.data(), of_head(s.mean, v.head, d_), of_head(s.residue, v.head, d_), group(),
               static_cast<int>(d_), v.bias.data(), v.variance.data());
    v.rounding = v.variance;
    const int subs = static_cast<int>(s.shape.subs);
    v.masks.resize(static_cast<size_t>(subs) / 2);
    v.words.resize(v.masks.size() * groups());
    v.start.resize(groups());
    k_.prepare_scan({v.p.data(), of_head(s.sub_coordinate, v.head, subs * 2), of_head(s.sub_step, v.head, subs * 2),
                     group(), static_cast<int>(d_), subs, v.masks.data(), v.words.data(), v.start.data(),
                     v.scale.data(), v.bias.data(), v.variance.data()});
    for (size_t g = 0; g < groups(); ++g) {
        v.rounding[g] = v.variance[g] - v.rounding[g];
        const float deviation = std::sqrt(v.variance[g]);
        v.sigma[g] = (searches_ ? a_.settings.reach : std::max(a_.settings.reach, 0.5f + deviation * ln2)) * deviation;
    }
    std::vector<uint16_t>& z = keeps() ? v.z : views_[index_of(v) - index_of(view(from_, 0))].z;
    ensure_size(z, v.lists() * list_size * a_.group);
    v.scores = z.data();
    k_.scan({of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes()), v.lists(), s.shape.list_bytes(), subs,
             group(), v.masks.data(), v.words.data(), v.start.data(), v.scores, largest});
}

void Step::scan(View& v) {
    const SketchSegment& s = *v.segment;
    uint16_t largest[max_group];
    score(v, largest);
    v.by_codes = false;
    for (size_t g = 0; g < groups(); ++g)
        v.top[g] = cap_of(static_cast<float>(largest[g]) * v.scale[g] + v.bias[g], softcap());
    for (size_t g = 0; g < groups(); ++g) {
        const float part = softcap() > 0.0f ? v.top[g] / softcap() : 0.0f;
        v.slope[g] = ln2 * (1.0f - part * part);
    }
    choose_quick(v, largest);
    sum_lists(v);
    float sum[max_group] = {};
    for (size_t i = 0; i < v.in_list.size(); i += width_)
        for (size_t g = 0; g < width_; ++g) sum[g] += v.in_list[i + g];
    std::copy_n(sum, width_, v.sum.data());
    v.touched =
        v.lists() * (s.shape.list_bytes() + s.shape.value_bytes() + 4) + d_ * d_ * 2 + d_ * 8 + s.shape.subs * 12;
}

void Step::sum_lists(View& v) {
    v.in_list.resize(static_cast<size_t>(v.lists()) * width_);
    k_.list_sums(map(v), v.top.data(), v.segment->n, v.in_list.data(), v.squares.data());
}

// The upper half of a float is its exponent and seven bits: adding 128 to it doubles the number, and what lies between
// is off by at most 6 %, on average by 4 %, which the 7 takes away. A score's unit is a whole number of 128ths.
void Step::choose_quick(View& v, const uint16_t* largest) {
    constexpr int32_t one = 127 * 128 - 7;
    for (std::vector<uint16_t>* x : {&v.floor, &v.rate, &v.plus}) x->assign(width_, 0);
    v.quick = a_.softcap == 0.0f && std::all_of(v.scale.begin(), v.scale.end(), [](float x) { return x <= 1.0f; });
    if (!v.quick) return;
    for (size_t g = 0; g < groups(); ++g) {
        const float rate = v.scale[g] * 128.0f;
        const int32_t whole = static_cast<int32_t>(rate), below = one / whole, most = largest[g];
        const int32_t floor = std::max(most - below, 0), plus = one - (most - floor) * whole;
        v.rate[g] = static_cast<uint16_t>(whole);
        v.floor[g] = static_cast<uint16_t>(floor);
        // What is left over where there is a floor goes to the top: whatever is below the floor weighs nothing.
        v.plus[g] = static_cast<uint16_t>(floor > 0 ? 0 : plus);
        if (floor > 0) v.top[g] += static_cast<float>(plus) * (1.0f / 128.0f);
    }
}

void Step::estimate_lse(int64_t h) {
    Head& head = heads_[static_cast<size_t>(h)];
    head.index_lse.assign(width_, -nothing);
    head.lse.assign(width_, -nothing);
    head.share.assign(width_, 0.0f);
    for (size_t g = 0; g < groups(); ++g) {
        head.index_lse[g] = nothing;
        for (size_t s = 0; s < a_.segments.size(); ++s)
            head.index_lse[g] = log2_add(head.index_lse[g], view(h, s).top[g] + std::log2(view(h, s).sum[g]));
        head.lse[g] = log2_add(head.index_lse[g], static_lse(h, g));
        head.share[g] = std::exp2(head.index_lse[g] - head.lse[g]);
    }
}

// --- phase 2: attend -------------------------------------------------------------------------------------------------
CodeRows Step::codes_of(const View& v) const {
    const SketchSegment& s = *v.segment;
    const int32_t* plan = of_head(s.code_plan, v.head, 3);
    return {of_head(s.codes, v.head, s.n * s.shape.code_bytes),
            s.shape.code_bytes,
            plan[0],
            plan[1],
            plan[2],
            v.p.data(),
            static_cast<int>(d_),
            of_head(s.code_coordinate, v.head, s.shape.chunks() * 16),
            of_head(s.code_step, v.head, s.shape.chunks() * 16)};
}

Rescore Step::rescore_of(View& v) {
    v.stride = v.found + 16;
    std::vector<float>& fresh = keeps() ? v.fresh : scratch().fresh;
    ensure_size(fresh, v.stride * a_.group);
    Rescore r{};
    r.map = map(v);
    r.index = v.index.data();
    r.begin = v.begin.data();
    r.rows = v.rows.data();
    r.row_stride = v.row_stride();
    r.m = v.found;
    r.lists = v.lists();
    r.codes = codes_of(v);
    r.fresh = fresh.data();
    r.stride = v.stride;
    return r;
}

void Step::attend(View& v) {
    const SketchSegment& s = *v.segment;
    const Head& head = this->head(v);
    const SketchFiles::Reading reading(s.files);
    if (!find(v)) {
        attend_all(v);
        return;
    }
    if (s.files != nullptr) s.files->ask_codes(v.head, v.index.data(), v.found);
    Rescore r = rescore_of(v);
    float fold[max_group] = {};
    std::copy_n(v.top.data(), groups(), fold);
    k_.weights(fold, 1, group(), 0.0f, head.index_lse.data());
    // The exponential of an uncertain score is larger on average than that of its estimate.
    for (size_t g = 0; g < groups(); ++g)
        fold[g] *= std::exp(0.5f * std::min(v.variance[g] * v.slope[g] * v.slope[g], most_variance));
    for (size_t i = 0; i < v.in_list.size(); i += width_)
        for (size_t g = 0; g < width_; ++g) v.in_list[i + g] *= fold[g];

    ensure_size(scratch().old, v.stride * a_.group);
    ensure_size(scratch().best, v.stride);
    ensure_size(v.exact.index, v.found + 16);
    ensure_size(v.coded.index, v.found + 16);
    ensure_size(v.coded.weights, (v.found + 4) * static_cast<int64_t>(width_));
    v.taken.resize(width_);
    v.put.resize(width_);
    r.top = v.top.data();
    r.lse = head.index_lse.data();
    r.fold = fold;
    r.share = head.share.data();
    // What is attended exactly leaves its list.
    r.coded_above = std::min(a_.settings.coded, a_.settings.exact) * head.tolerance / static_cast<float>(n_);
    r.exact_above = exact_above(head);
    r.value_codes = of_head(s.value_codes, v.head, s.n * s.shape.value_bytes());
    r.value_bytes = s.shape.value_bytes();
    r.old = scratch().old.data();
    r.best = scratch().best.data();
    r.in_list = v.in_list.data();
    r.exact = v.exact.index.data();
    r.coded = v.coded.index.data();
    r.coded_weights = v.coded.weights.data();
    r.taken = v.taken.data();
    r.put = v.put.data();
    k_.rescore(r);
    v.exact.n = r.n_exact;
    v.coded.n = r.n_coded;
    if (s.files != nullptr) s.files->ask_value_codes(v.head, v.coded.index.data(), v.coded.n);
    weigh_exact(v);
    add_up(v);
    add_tilt(v);
    for (size_t g = 0; g < width_; ++g) v.squares[g] = std::max(v.squares[g] * fold[g] * fold[g] - v.taken[g], 0.0f);
    expect_noise(v);
    v.touched += v.found * s.shape.code_bytes + (v.found > 0 ? d_ * 6 : 0) + v.coded.n * (s.shape.value_bytes() + 4) +
                 exact_bytes(s, v.exact.n) + s.shape.leading() * value_dim_ * 2 + d_ * 8 +
                 static_cast<int64_t>(sizeof(SketchSpread));
}

// The weights of the keys that are attended exactly, by themselves.
void Step::weigh_exact(View& v) {
    const SketchSegment& s = *v.segment;
    if (s.files != nullptr) s.files->ask_exact(v.head, v.exact.index.data(), v.exact.n);
    ensure_size(v.exact.weights, (v.exact.n + 4) * static_cast<int64_t>(width_));
    float* w = v.exact.weights.data();
    score_exact(k_, s, v.head, head(v).q.data(), v.exact.index.data(), v.exact.n, group(), w);
    k_.weights(w, v.exact.n, group(), softcap(), head(v).index_lse.data());
}

void Step::add_up(View& v) {
    const SketchSegment& s = *v.segment;
    // In variables of its own: sums in memory would wait for their own last store, row by row.
    float covered[max_group] = {}, total[max_group] = {};
    for (const Tier* tier : {&v.exact, &v.coded})
        for (size_t i = 0; i < static_cast<size_t>(tier->n) * width_; i += width_)
            for (size_t g = 0; g < width_; ++g) covered[g] += tier->weights[i + g];
    for (size_t i = 0; i < v.in_list.size(); i += width_)
        for (size_t g = 0; g < width_; ++g) {
            // Rounding may leave a list that lost its keys below nothing.
            v.in_list[i + g] = std::max(v.in_list[i + g], 0.0f);
            total[g] += v.in_list[i + g];
        }
    v.covered.assign(covered, covered + width_);
    v.total.resize(width_);
    for (size_t g = 0; g < width_; ++g) v.total[g] = covered[g] + total[g];
    v.out.assign(groups() * static_cast<size_t>(value_dim_), 0.0f);
    add_exact(k_, s, v.head, v.exact.index.data(), v.exact.n, v.exact.weights.data(), group(), v.out.data());
    k_.add_value_codes(of_head(s.value_codes, v.head, s.n * s.shape.value_bytes()), s.shape.value_bytes(),
                       of_head(s.value_params, v.head, s.n * 2), static_cast<int>(value_dim_), v.coded.index.data(),
                       v.coded.n, v.coded.weights.data(), group(), v.out.data());
    // Where all was attended exactly, lists weigh nothing, and damaged ones would still be no number.
    if (std::all_of(total, total + width_, [](float x) { return x == 0.0f; })) return;
    k_.add_value_codes(of_head(s.list_codes, v.head, v.lists() * s.shape.value_bytes()), s.shape.value_bytes(),
                       of_head(s.list_params, v.head, v.lists() * 2), static_cast<int>(value_dim_), nullptr, v.lists(),
                       v.in_list.data(), group(), v.out.data());
}

// Inside a list, keys of larger weight have other values than the rest: to first order, the weighted mean of the values
// lies off the plain one by their covariance with the scores. Large scores have left the list, which bounds how far.
void Step::add_tilt(View& v) {
    const SketchSegment& s = *v.segment;
    const size_t leading = static_cast<size_t>(s.shape.leading()), d = static_cast<size_t>(d_);
    const float* within = of_head(s.within, v.head, d_);
    std::vector<float>&spread = scratch().spread, &unused = scratch().unused, &weights = scratch().tilt;
    spread.assign(width_, 0.0f), unused.assign(width_, 0.0f), weights.assign((leading + 4) * width_, 0.0f);
    k_.moments(head(v).q.data(), v.p.data(), of_head(s.mean, v.head, d_), within, group(), static_cast<int>(d_),
               unused.data(), spread.data());
    for (size_t g = 0; g < groups(); ++g) {
        const float slope = v.slope[g];
        const float in_lists = v.total[g] - v.covered[g],
                    factor = in_lists * slope / (1.0f + spread[g] * slope * slope / tilt_limit);
        for (size_t j = 0; j < leading; ++j) weights[j * width_ + g] = factor * v.p[g * d + j] * std::sqrt(within[j]);
    }
    v.tilt.assign(groups() * static_cast<size_t>(value_dim_), 0.0f);
    k_.add_rows(of_head(s.tilt, v.head, static_cast<int64_t>(leading) * value_dim_), DType::bf16,
                static_cast<int>(value_dim_), nullptr, static_cast<int64_t>(leading), weights.data(), group(),
                v.tilt.data());
    for (size_t j = 0; j < v.tilt.size(); ++j) v.out[j] += v.tilt[j];
}

int64_t Step::finish(int64_t h) {
    const Head& head = heads_[static_cast<size_t>(h)];
    int64_t exact = 0, coded = 0, touched = 0;
    for (size_t s = 0; s < a_.segments.size(); ++s) {
        exact += view(h, s).exact.n;
        coded += view(h, s).coded.n;
        touched += view(h, s).touched;
    }
    a_.exact_share[h * a_.t + t_] = static_cast<float>(exact) / static_cast<float>(n_);
    a_.coded_share[h * a_.t + t_] = static_cast<float>(coded) / static_cast<float>(n_);
    std::vector<float> share(width_, 0.0f);
    for (size_t g = 0; g < groups(); ++g) {
        const int64_t row = (h * a_.group + static_cast<int64_t>(g)) * a_.t + t_;
        const float total = head.total[g];
        const float* out = head.out.data() + static_cast<int64_t>(g) * value_dim_;
        for (int64_t j = 0; j < value_dim_; ++j) a_.out[row * value_dim_ + j] = out[j] / total;
        a_.error[row] = std::isnan(head.error[g]) ? 1.0f : head.error[g];
        const float lse = head.index_lse[g] + std::log2(total), beside = static_lse(h, g), all = log2_add(lse, beside);
        a_.lse[row] = lse * ln2;
        a_.coverage[row] =
            std::isinf(all) ? 1.0f : head.covered[g] / total * std::exp2(lse - all) + std::exp2(beside - all);
        share[g] = std::exp2(head.index_lse[g] - all);
    }
    for (size_t s = 0; s < a_.segments.size(); ++s) {
        View& v = view(h, s);
        if (a_.mass != nullptr) {
            write_mass(v, v.exact, share);
            if (codes_count(head)) write_mass(v, v.coded, share);
        }
        if (a_.trace_tier != nullptr) write_trace(v, share);
    }
    return touched;
}

namespace {

// A step's views are megabytes, and its heads many small arrays.
auto& kept_room() {
    static thread_local std::pair<std::vector<View>, std::vector<Head>> room;
    return room;
}

}  // namespace

void attend_sketch(SketchAttend& args) {
    if (args.group > max_group) return attend_sketch_in_parts(args);
    args.touched_bytes = 0;
    Kept room(kept_room());
    for (int64_t t = 0; t < args.t; ++t) args.touched_bytes += Step(args, (*room).first, (*room).second, t).run();
}

}  // namespace sakuin
