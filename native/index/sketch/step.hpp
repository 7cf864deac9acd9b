// One attention step over a chain of `sketch` segments, for all KV heads at one query position. Internal to the files
// that implement it: attend.cpp (the ordinary way), find.cpp (what is scored again), in_order.cpp (segments that are
// read whole), error.cpp (how far off it may be) and stray.cpp (heads whose estimate fails, and what is reported);
// in_parts.cpp takes it several times for large groups, search.cpp takes its scan.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "index/arithmetic.hpp"
#include "index/sketch/sketch.hpp"
#include "kernels/attend_all_of.hpp"
#include "parallel.hpp"

namespace sakuin {

// Natural units squared: what a score's variance by sketch counts as at most where an exponential of it is taken.
// Residues of larger variance are not Gaussian.
constexpr float most_variance = 1.0f;

// Makes scratch memory at least so long. It is never made shorter: what comes and goes would be set to 0 each time.
template <class T>
void ensure_size(std::vector<T>& x, int64_t n) {
    if (static_cast<int64_t>(x.size()) < n) x.resize(static_cast<size_t>(n));
}

inline float cap_of(float x, float cap) { return cap > 0.0f ? cap * std::tanh(x / cap) : x; }

// Keys of one precision with their weights (keys, padded) relative to the index's estimated lse.
struct Tier {
    std::vector<uint32_t> index;  // longer than `n`
    std::vector<float> weights;
    int64_t n = 0;
};

// What a segment means to one KV head's query group; lives from the scan to the end of the step.
// Arrays per query head are padded.
struct View {
    const SketchSegment* segment;
    int64_t head, first;   // first: tokens in the segments before
    std::vector<float> p;  // (group, head_dim) projected queries
    std::vector<float> scale, bias, sigma, top, sum;
    std::vector<float> rounding;  // what of the variance comes from the factors of the scan
    std::vector<float> variance,
        squares;               // of a score by sketch; sums of the squares of weights, relative to 2^(2 top)
    std::vector<float> slope;  // of the natural score, softcap included, at the largest
    std::vector<uint16_t> floor, rate, plus;  // as in ScoreMap, where `quick` says that they may be used
    bool quick = false;
    std::vector<float> in_list;          // (lists, padded) sums of weights
    std::vector<uint16_t> z;             // room for scores of all keys: its own, or of the view that lends it (scores)
    uint16_t* scores = nullptr;          // of all keys, as in ScoreMap
    std::vector<uint32_t> masks, words;  // the queries as the scan takes them (ScanQuery)
    std::vector<int32_t> start;

    std::vector<uint32_t> index, begin;  // keys to be scored again, where each list's begin
    std::vector<uint16_t> rows;     // (group + 1, row_stride) their 16-bit scores; their residue lengths in quarters
    int64_t found = 0, stride = 0;  // stride: found and a vector more
    bool by_codes = false;          // `scores` are by the codes of all keys, no longer by their sketches
    std::vector<float> fresh;       // (group, stride) weights, where they are kept

    // Results, relative to the lse of the head's index.
    Tier exact, coded;
    std::vector<float> out, total, covered;  // (group, value_dim), padded, padded
    std::vector<float> taken, put;           // padded: squares of weights that leave lists, that come back
    std::vector<float> tilt,
        noise;  // (group, value_dim): what the tilt adds to out; padded: squared error to be expected beside
    int64_t touched = 0;

    int64_t lists() const { return lists_of(segment->n); }
    int64_t row_stride() const { return segment->n + 32; }
};

// What a thread needs while it works on one segment: small enough to stay in its cache.
struct Scratch {
    std::vector<float> fresh, old, best;  // (group, stride) weights, twice; (stride,) largest share for any query head
    std::vector<float> spread, unused, tilt;  // padded each, and the weights of the tilt's rows
};
Scratch& scratch();

// attend_sketch for groups of more than max_group query heads.
void attend_sketch_in_parts(SketchAttend& args);

struct Head {
    std::vector<float> q;               // (group, head_dim), scaled to base 2
    std::vector<float> index_lse, lse;  // base 2, by estimate: of the index / of everything; what fills up is +inf
    std::vector<float> share;           // of the index in everything, by that; what fills up is 0
    bool strayed = false;               // the estimate was far off: the query is none that the index was built for
    float tolerance = 1.0f;             // multiplies the thresholds
    std::vector<float> out, total, covered,
        error;  // over all segments, relative to index_lse: (group, value_dim), padded each
};

class Step {
public:
    Step(const SketchAttend& args, std::vector<View>& views, std::vector<Head>& heads, int64_t t);
    int64_t run();  // returns the bytes read

protected:
    View& view(int64_t h, size_t s) { return views_[static_cast<size_t>(h) * a_.segments.size() + s]; }
    size_t index_of(const View& v) const { return static_cast<size_t>(&v - views_.data()); }
    Head& head(const View& v) { return heads_[static_cast<size_t>(v.head)]; }
    float softcap() const { return a_.softcap * log2e; }
    int group() const { return static_cast<int>(a_.group); }
    size_t groups() const { return static_cast<size_t>(a_.group); }
    float static_lse(int64_t h, size_t g) const {
        return a_.static_lse == nullptr ? nothing
                                        : a_.static_lse[(h * a_.group + static_cast<int64_t>(g)) * a_.t + t_] * log2e;
    }
    // The segments of the heads at hand.
    template <class Fn>
    void each(const Fn& fn) {
        const int64_t segments = static_cast<int64_t>(a_.segments.size()), before = from_ * segments;
        parallel_for((to_ - from_) * segments, a_.n_threads,
                     [&](int64_t i) { fn(views_[static_cast<size_t>(before + i)]); });
    }
    ScoreMap map(const View& v) const {
        return {v.scores,
                v.scale.data(),
                v.bias.data(),
                group(),
                softcap(),
                v.floor.data(),
                v.quick ? v.rate.data() : nullptr,
                v.plus.data()};
    }

    int64_t heads_at_once() const;
    void attend_heads();
    void score(View& v, uint16_t* largest);
    void scan(View& v);
    void choose_quick(View& v, const uint16_t* largest);
    void sum_lists(View& v);
    void estimate_lse(int64_t h);
    // Whether scores and weights of all segments are kept to the end of the step.
    bool keeps() const { return searches_ || a_.settings.target_error > 0.0f || a_.trace_tier != nullptr; }
    // The share of the whole softmax from which on a key is attended exactly.
    float exact_above(const Head& head) const { return a_.settings.exact * head.tolerance / static_cast<float>(n_); }
    float score_of(const View& v, size_t key, size_t g) const {  // without the softcap
        return static_cast<float>(v.scores[(key / 32 * groups() + g) * 32 + key % 32]) * v.scale[g] + v.bias[g];
    }
    Reach reach(View& v, const float* lse, float least, int64_t first, int64_t n);
    void find(View& v, const float* lse, float least);
    bool find(View& v);
    template <class Many>
    bool looks_crowded(View& v, const float* lse, float least, const Many& many);
    void attend_all(View& v);
    void list_coded(View& v);
    void weigh_exact(View& v);
    CodeRows codes_of(const View& v) const;
    Rescore rescore_of(View& v);
    void attend(View& v);
    void add_up(View& v);
    void add_tilt(View& v);
    void expect_noise(View& v);
    void expect_noise_of_codes(View& v);
    void noise_by_code(View& v, float* by_code);
    void sum_up(int64_t h);
    bool refine();
    int64_t finish(int64_t h);

    bool strayed(int64_t h);
    void attend_exactly(View& v);
    void join_exact(int64_t h);
    bool codes_count(const Head& head) const;
    void write_mass(const View& v, const Tier& tier, const std::vector<float>& share);
    void write_trace(View& v, const std::vector<float>& share);

    const SketchAttend& a_;
    const SketchKernels& k_;
    void (*const attend_all_)(AttendAll&);
    const int64_t t_, d_, value_dim_;
    const size_t width_;     // the group, padded
    int64_t from_ = 0, to_;  // heads that are worked on
    int64_t n_ = 0;
    bool searches_ = false;  // scores are inner products then, not logits
    std::vector<Head>& heads_;
    std::vector<View>& views_;
};

}  // namespace sakuin
