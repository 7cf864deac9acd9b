#include "index/sketch/steps.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "index/sketch/decode.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/limits.hpp"

namespace sakuin {
namespace {

float* at_least(std::vector<float>& x, int64_t n) {
    if (static_cast<int64_t>(x.size()) < n) x.resize(static_cast<size_t>(n));
    return x.data();
}

// Sum over positions of the mean over the first dimension of (rows, t).
double means(const float* x, int64_t rows, int64_t t) {
    return std::accumulate(x, x + rows * t, 0.0) / static_cast<double>(rows);
}

}  // namespace

SketchSteps::SketchSteps(std::vector<const SketchSegment*> segments, FlatSpan sink, UnsealedTokens unsealed,
                         int64_t group, SketchSettings settings, int n_threads)
    : segments_(std::move(segments)), sink_(sink), unsealed_(unsealed), group_(group), settings_(settings),
      n_threads_(n_threads) {
    for (const SketchSegment* s : segments_) {
        if (s->heads != unsealed_.kv_heads || s->shape.head_dim != unsealed_.head_dim ||
            s->shape.value_dim != unsealed_.value_dim)
            throw std::invalid_argument("the segments have other heads or another head_dim than the unsealed tokens");
        n_sealed_ += s->n;
    }
    if (unsealed_.start < 0 || unsealed_.start > unsealed_.capacity)
        throw std::invalid_argument("the unsealed tokens begin outside of their memory");
    if (group_ < 1 || group_ > most_group || n_threads_ < 1)
        throw std::invalid_argument("a step needs a group of 1 to " + std::to_string(most_group) +
                                    " query heads and at least one thread");
}

void SketchSteps::prepare(int64_t end, const NextStep& next) {
    if (end < unsealed_.start || end > unsealed_.capacity)
        throw std::invalid_argument("the unsealed tokens end outside of their memory");
    unsealed_.end = end;
    next_ = next;
}

StepSums SketchSteps::take_sums() { return std::exchange(sums_, StepSums{}); }

void SketchSteps::step(const NewTokens& tokens) {
    const auto start = std::chrono::steady_clock::now();
    if (tokens.kv_heads != unsealed_.kv_heads || tokens.head_dim != unsealed_.head_dim ||
        tokens.value_dim != unsealed_.value_dim || tokens.heads != unsealed_.kv_heads * group_ ||
        tokens.dtype != unsealed_.dtype)
        throw std::invalid_argument("the new tokens are of another shape or dtype than those that are held");
    if (unsealed_.end + tokens.t > unsealed_.capacity)
        throw std::invalid_argument("there is no room for the new tokens");
    if (next_.n_kept > 0 &&
        (next_.first < 0 || next_.every < 0 || next_.first + (next_.n_kept - 1) * next_.every >= tokens.t))
        throw std::invalid_argument("queries are to be kept of positions that the step has not");
    if (next_.mass != nullptr && next_.mass_tokens < sink_.n + n_sealed_ + unsealed_.end - unsealed_.start + tokens.t)
        throw std::invalid_argument("there is no room for the mass of all tokens");
    take(tokens);
    keep_queries(tokens);
    attend(tokens);
    next_ = {};
    if (n_sealed_ > 0) sums_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void SketchSteps::take(const NewTokens& tokens) {
    const auto put = [&](const void* rows, void* memory, int64_t width) {
        const int64_t row = width * dtype_size(unsealed_.dtype);
        for (int64_t h = 0; h < tokens.kv_heads; ++h)
            std::memcpy(static_cast<char*>(memory) + (h * unsealed_.capacity + unsealed_.end) * row,
                        static_cast<const char*>(rows) + h * tokens.t * row, static_cast<size_t>(tokens.t * row));
    };
    put(tokens.keys, unsealed_.keys, tokens.head_dim);
    put(tokens.values, unsealed_.values, tokens.value_dim);
    unsealed_.end += tokens.t;
}

void SketchSteps::keep_queries(const NewTokens& tokens) const {
    const int64_t row = tokens.head_dim * dtype_size(tokens.dtype);
    for (int64_t h = 0; h < tokens.heads; ++h)
        for (int64_t i = 0; i < next_.n_kept; ++i)
            std::memcpy(static_cast<char*>(next_.kept) + (h * next_.n_kept + i) * row,
                        static_cast<const char*>(tokens.q) + (h * tokens.t + next_.first + i * next_.every) * row,
                        static_cast<size_t>(row));
}

void SketchSteps::attend(const NewTokens& tokens) {
    const int64_t heads = tokens.kv_heads, rows = tokens.heads, t = tokens.t;
    const int64_t d = tokens.head_dim, width = tokens.value_dim;
    const int64_t start = unsealed_.start * dtype_size(unsealed_.dtype);
    FlatArgs f{};
    f.q = tokens.q, f.q_dtype = tokens.dtype, f.q_head_stride = t * d, f.q_stride = d;
    f.n_kv_heads = heads, f.group = group_, f.t = t, f.head_dim = d, f.value_dim = width;
    f.spans = {sink_,
               {static_cast<const char*>(unsealed_.keys) + start * d,
                static_cast<const char*>(unsealed_.values) + start * width, unsealed_.dtype,
                unsealed_.end - unsealed_.start, unsealed_.capacity * d, d, unsealed_.capacity * width, width}};
    f.causal = true;
    f.scaling = tokens.scaling, f.softcap = tokens.softcap, f.s_aux = tokens.sinks, f.n_threads = n_threads_;

    SketchAttend a{};
    a.kernels = &kernels();
    a.segments = segments_;
    float* const q = at_least(q_, rows * t * d);
    widen(*a.kernels, tokens.q, tokens.dtype, q, static_cast<size_t>(rows * t * d));
    a.q = q, a.heads = heads, a.group = group_, a.t = t;
    a.scaling = tokens.scaling, a.softcap = tokens.softcap, a.settings = settings_, a.n_threads = n_threads_;
    // For one position the layouts are the same.
    a.out = t == 1 ? tokens.out : at_least(out_, rows * t * width);
    a.lse = at_least(lse_, rows * t);
    a.coverage = at_least(coverage_, rows * t), a.error = at_least(error_, rows * t);
    a.exact_share = at_least(exact_, heads * t), a.coded_share = at_least(coded_, heads * t);
    if (next_.mass == nullptr || next_.above == 0.0f || (t == 1 && group_ <= max_group)) {
        a.mass_stride = next_.mass_stride;
        if (next_.mass != nullptr) a.mass_least = next_.above * static_cast<float>(group_);
        decode_sketch(a, f, next_.mass);
    } else {
        // What a token receives comes in parts, and counts as a whole.
        const int64_t n_tokens = sink_.n + n_sealed_ + unsealed_.end - unsealed_.start;
        a.mass_stride = n_tokens;
        float* const mass = at_least(mass_, heads * n_tokens);
        std::fill(mass, mass + heads * n_tokens, 0.0f);
        decode_sketch(a, f, mass);
        add_mass(n_tokens);
    }
    if (t > 1)
        for (int64_t h = 0; h < rows; ++h)
            for (int64_t i = 0; i < t; ++i)
                std::memcpy(tokens.out + (i * rows + h) * width, a.out + (h * t + i) * width,
                            static_cast<size_t>(width) * sizeof(float));
    if (n_sealed_ == 0) return;  // a step over an empty index is no step of retrieval
    sums_.steps += 1, sums_.positions += t;
    sums_.touched_bytes += a.touched_bytes, sums_.offloaded_bytes += 2 * t * heads * n_sealed_ * (d + width);
    sums_.exact += means(a.exact_share, heads, t), sums_.coded += means(a.coded_share, heads, t);
    sums_.coverage += means(a.coverage, rows, t), sums_.error += means(a.error, rows, t);
}

void SketchSteps::add_mass(int64_t n_tokens) {
    const float least = next_.above * static_cast<float>(group_);
    for (int64_t h = 0; h < unsealed_.kv_heads; ++h) {
        const float* const from = mass_.data() + h * n_tokens;
        float* const to = next_.mass + h * next_.mass_stride;
        for (int64_t i = 0; i < n_tokens; ++i) to[i] += std::max(from[i] - least, 0.0f);
    }
}

}  // namespace sakuin
