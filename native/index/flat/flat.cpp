#include "index/flat/flat.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/dispatch.hpp"
#include "kernels/limits.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

constexpr float log2_e = 1.44269504088896f;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
// Rows of a KV head, query heads times positions, that are attended at a time.
constexpr int64_t most_rows = 1024;
// Scores that are kept for the mass of one position; where there are more, they are made a second time.
constexpr int64_t most_kept = 1 << 24;

// Uninitialised floats on a cache line of their own.
class Scratch {
public:
    explicit Scratch(size_t n) : p_(static_cast<float*>(::operator new(n * sizeof(float), std::align_val_t{64}))) {}
    ~Scratch() { ::operator delete(p_, std::align_val_t{64}); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* data() const { return p_; }

private:
    float* p_;
};

// A range of one span that one task attends to, for one KV head.
struct Piece {
    int64_t head, first, n;
    const FlatSpan* span;
    int64_t begin;  // among the tokens of all spans
    int64_t token;  // of the sequence, which may have others between the spans
};

int64_t total_tokens(const FlatArgs& a) {
    int64_t n = 0;
    for (const FlatSpan& s : a.spans) n += s.n;
    return n;
}

// Waking a second thread costs some ten microseconds; it is worth it from about as much work on.
int useful_threads(const FlatArgs& a) {
    const int64_t numbers = a.n_kv_heads * total_tokens(a) * (a.head_dim + a.value_dim);
    const int64_t pieces_of_work = std::max(numbers * a.group * std::min<int64_t>(a.t, 64) >> 20, numbers >> 19);
    return static_cast<int>(std::clamp<int64_t>(pieces_of_work, 1, a.n_threads));
}

// A few pieces per thread, so that all finish at about the same time, but none so short that merging would cost.
std::vector<Piece> cut(const FlatArgs& a, int n_threads) {
    const int64_t total = total_tokens(a), wanted = n_threads <= 1 ? 1 : 6 * n_threads;
    const int64_t pieces_per_head = std::max<int64_t>(1, (wanted + a.n_kv_heads - 1) / a.n_kv_heads);
    const int64_t longest = std::max<int64_t>(512, (total / pieces_per_head + 63) / 64 * 64);
    std::vector<Piece> pieces;
    for (int64_t h = 0; h < a.n_kv_heads; ++h) {
        int64_t begin = 0, token = 0;
        for (const FlatSpan& s : a.spans) {
            token += s.after;
            for (int64_t first = 0; first < s.n; first += longest)
                pieces.push_back({h, first, std::min(longest, s.n - first), &s, begin + first, token + first});
            begin += s.n;
            token += s.n;
        }
    }
    return pieces;
}

void check(const FlatArgs& a) {
    const auto fail = [](const std::string& what) { throw std::invalid_argument(what); };
    for (const auto& [name, d] : {std::pair{"head_dim", a.head_dim}, {"the values' head_dim", a.value_dim}})
        if (!is_head_dim(d))
            fail(name + (" must be a multiple of 8 from 8 to " + std::to_string(most_head_dim)) + ", got " +
                 std::to_string(d));
    if (a.group < 1 || a.group > most_group)
        fail("a query group must have 1 to " + std::to_string(most_group) + " heads, got " + std::to_string(a.group));
    if (a.n_kv_heads < 0 || a.t < 0) fail("counts must not be negative");
    if (a.n_threads < 1) fail("n_threads must be at least 1, got " + std::to_string(a.n_threads));
    if (!std::isfinite(a.scaling)) fail("scaling must be a finite number");
    if (!std::isfinite(a.softcap) || a.softcap < 0.0f) fail("softcap must be a finite number above 0, or none");
    if (a.q_dtype == DType::i8) fail("q must be float32, bfloat16 or float16");
    for (const FlatSpan& s : a.spans) {
        const Int8Scales& x = s.scales;
        if (s.dtype == DType::i8 && s.n > 0 &&
            (x.key_scale == nullptr || x.key_zero == nullptr || x.value_scale == nullptr))
            fail("a span of 8-bit keys and values needs their scales");
    }
    if (a.logits != nullptr && a.t != 1) fail("scores are kept of one position alone");
    if (a.mass_least != 0.0f && a.logits == nullptr) fail("what of a mass counts is known by scores that are kept");
    if (a.causal && a.t > 0) {
        const int64_t last = a.spans.empty() ? 0 : a.spans.back().n;
        if (last < a.t)
            fail("the last span must end with the " + std::to_string(a.t) + " query positions' own tokens, it has " +
                 std::to_string(last));
    }
}

// The lse in base 2 of all that one row attends, which stands at `place` of lse.
float whole_lse(const FlatArgs& a, int64_t place) {
    float all = a.lse[place];
    if (a.static_lse != nullptr) {
        const float other = a.static_lse[place], top = std::max(all, other);
        all = top == minus_infinity ? top : top + std::log1p(std::exp(std::min(all, other) - top));
    }
    return all * log2_e;
}

// By the scores that were kept.
void add_kept_mass(const FlatArgs& a) {
    const Kernels& k = kernels(a.isa);
    const int64_t tokens = total_tokens(a);
    parallel_for(a.n_kv_heads, useful_threads(a), [&](int64_t h) {
        float lse[most_group];
        FlatRange r{};
        r.rows = a.group;
        r.logit_stride = tokens;
        r.lse = lse;
        r.least = a.mass_least;
        for (int64_t g = 0; g < a.group; ++g) lse[g] = whole_lse(a, h * a.group + g);
        r.logits = a.logits + h * a.group * tokens;
        r.mass = a.mass + h * a.mass_stride;
        for (const FlatSpan& s : a.spans) {
            r.n = s.n;
            r.mass += s.after;
            k.flat_kept_mass(r);
            r.logits += s.n;
            r.mass += s.n;
        }
    });
}

// The positions first .. first + count - 1 of a call.
class Attend {
public:
    Attend(const FlatArgs& a, int64_t first, int64_t count)
        : a_(a), kernels_(kernels(a.isa)), n_threads_(useful_threads(a)), first_(first), positions_(count),
          rows_(a.group * count), tokens_(total_tokens(a)), pieces_(cut(a, n_threads_)),
          q_(size(a.n_kv_heads * rows_ * a.head_dim)),
          parts_(size(static_cast<int64_t>(pieces_.size()) * part_size())) {
        widen_queries();
        if (a.causal && !a.spans.empty())
            for (int64_t r = 0; r < rows_; ++r) visible_.push_back(a.spans.back().n - (a.t - 1 - position(r)));
    }

    void run() {
        parallel_for(count(), n_threads_, [this](int64_t i) {
            const Scratch scratch(scratch_size(i));
            kernels_.flat_range(range(i, scratch.data()));
        });
        for (int64_t h = 0, i = 0; h < a_.n_kv_heads; ++h) {
            const int64_t begin = i;
            while (i < count() && pieces_[static_cast<size_t>(i)].head == h) ++i;
            for (int64_t r = 0; r < rows_; ++r) merge_row(h, r, begin, i);
        }
        if (a_.mass == nullptr) return;
        if (a_.logits != nullptr)
            add_kept_mass(a_);
        else
            add_mass();
    }

    void add_mass() const {
        std::vector<float> lse;
        lse.reserve(size(a_.n_kv_heads * rows_));
        for (int64_t h = 0; h < a_.n_kv_heads; ++h)
            for (int64_t r = 0; r < rows_; ++r) lse.push_back(whole_lse(a_, place(h, r)));
        parallel_for(count(), n_threads_, [&](int64_t i) {
            const Piece& p = pieces_[size(i)];
            const Scratch scratch(scratch_size(i));
            FlatRange r = range(i, scratch.data());
            r.lse = lse.data() + p.head * rows_;
            r.mass = a_.mass + p.head * a_.mass_stride + p.token;
            kernels_.flat_mass(r);
        });
    }

private:
    static size_t size(int64_t n) { return static_cast<size_t>(n); }
    int64_t count() const { return static_cast<int64_t>(pieces_.size()); }
    // A piece's result: out (rows, value_dim), then max and sum of each row.
    int64_t part_size() const { return (rows_ * (a_.value_dim + 2) + 15) / 16 * 16; }
    float* part(int64_t i) const { return parts_.data() + i * part_size(); }

    // A KV head's rows: the positions of its first query head, then those of the next.
    int64_t position(int64_t row) const { return first_ + row % positions_; }
    int64_t query_head(int64_t kv_head, int64_t row) const { return kv_head * a_.group + row / positions_; }
    // Where a row stands in lse and out.
    int64_t place(int64_t kv_head, int64_t row) const { return query_head(kv_head, row) * a_.t + position(row); }

    void widen_queries() {
        float* to = q_.data();
        const int64_t bytes = dtype_size(a_.q_dtype);
        for (int64_t h = 0; h < a_.n_kv_heads; ++h)
            for (int64_t r = 0; r < rows_; ++r) {
                const int64_t offset = query_head(h, r) * a_.q_head_stride + position(r) * a_.q_stride;
                widen(kernels_, static_cast<const char*>(a_.q) + offset * bytes, a_.q_dtype, to, size(a_.head_dim));
                to += a_.head_dim;
            }
    }

    // An i8 span's scales and zeros of keys go into the query: q.k = (q * scale).number + q.zero.
    int64_t fold_size(const Piece& p) const {
        return p.span->dtype == DType::i8 ? (rows_ * (a_.head_dim + 1) + 15) / 16 * 16 : 0;
    }
    size_t scratch_size(int64_t i) const {
        return kernels_.flat_scratch(shape_of(i)) + size(fold_size(pieces_[size(i)]));
    }

    void fold(const Piece& p, FlatRange& r, float* to) const {
        const int64_t d = a_.head_dim;
        const float *scale = p.span->scales.key_scale + p.head * d, *zero = p.span->scales.key_zero + p.head * d;
        float* bias = to + rows_ * d;
        for (int64_t row = 0; row < rows_; ++row) {
            float sum = 0.0f;
            for (int64_t j = 0; j < d; ++j) {
                const float x = r.q[row * d + j];
                to[row * d + j] = x * scale[j];
                sum += x * zero[j];
            }
            bias[row] = sum;
        }
        r.q = to;
        r.bias = bias;
        r.value_scale = p.span->scales.value_scale + p.head * p.span->n + p.first;
    }

    FlatRange range(int64_t i, float* scratch) const {
        FlatRange r = shape_of(i);
        const Piece& p = pieces_[size(i)];
        if (r.dtype == DType::i8) fold(p, r, scratch);
        r.scratch = scratch + fold_size(p);
        return r;
    }

    FlatRange shape_of(int64_t i) const {
        const Piece& p = pieces_[size(i)];
        const FlatSpan& s = *p.span;
        const int64_t bytes = dtype_size(s.dtype);
        FlatRange r{};
        r.q = q_.data() + p.head * rows_ * a_.head_dim;
        r.scale = a_.softcap > 0.0f ? a_.scaling / a_.softcap : a_.scaling * log2_e;
        r.q_is_bf16 = a_.q_dtype == DType::bf16;
        r.rows = rows_;
        r.head_dim = a_.head_dim;
        r.value_dim = a_.value_dim;
        r.dtype = s.dtype;
        r.keys = static_cast<const char*>(s.keys) + (p.head * s.key_head_stride + p.first * s.key_stride) * bytes;
        r.values =
            static_cast<const char*>(s.values) + (p.head * s.value_head_stride + p.first * s.value_stride) * bytes;
        r.key_stride = s.key_stride;
        r.value_stride = s.value_stride;
        r.n = p.n;
        if (!visible_.empty() && p.span == &a_.spans.back()) {
            r.visible = visible_.data();
            r.first = p.first;
        }
        r.softcap = a_.softcap;
        r.out = part(i);
        r.max = r.out + rows_ * a_.value_dim;
        r.sum = r.max + rows_;
        if (a_.logits != nullptr) {
            r.logit_stride = tokens_;
            r.logits = a_.logits + p.head * rows_ * tokens_ + p.begin;
        }
        return r;
    }

    void merge_row(int64_t head, int64_t row, int64_t begin, int64_t end) const {
        const int64_t d = a_.value_dim, at = place(head, row);
        float* out = a_.out + at * d;
        float max = minus_infinity;
        for (int64_t i = begin; i < end; ++i) max = std::max(max, part(i)[rows_ * d + row]);
        const float aux = a_.s_aux != nullptr ? a_.s_aux[query_head(head, row)] * log2_e : minus_infinity;
        max = std::max(max, aux);
        std::fill(out, out + d, 0.0f);
        const float shift = max == minus_infinity ? 0.0f : max;
        float sum = std::exp2(aux - shift);
        for (int64_t i = begin; i < end; ++i) {
            const float* p = part(i);
            const float weight = std::exp2(p[rows_ * d + row] - shift), part_sum = p[rows_ * d + rows_ + row];
            if (weight == 0.0f && part_sum == part_sum) continue;  // a sum that is not a number must show in the result
            sum += weight * part_sum;
            for (int64_t j = 0; j < d; ++j) out[j] += weight * p[row * d + j];
        }
        if (sum == 0.0f) {
            a_.lse[at] = minus_infinity;
            return;
        }
        for (int64_t j = 0; j < d; ++j) out[j] /= sum;
        a_.lse[at] = (shift + std::log2(sum)) / log2_e;
    }

    const FlatArgs& a_;
    const Kernels& kernels_;
    const int n_threads_;
    const int64_t first_, positions_, rows_, tokens_;
    const std::vector<Piece> pieces_;
    const Scratch q_, parts_;
    std::vector<int64_t> visible_;
};

// Many positions go in parts, so that the memory for partial results stays small. Keys are read once for each part.
template <class Run>
void in_parts(const FlatArgs& args, const Run& run) {
    check(args);
    if (args.n_kv_heads == 0 || args.t == 0) return;
    const int64_t at_once = std::clamp<int64_t>(most_rows / args.group, 1, 64);
    for (int64_t first = 0; first < args.t; first += at_once) {
        Attend part(args, first, std::min(at_once, args.t - first));
        run(part);
    }
}

}  // namespace

void flat_attend(const FlatArgs& args) {
    const auto run = [](Attend& part) { part.run(); };
    if (args.mass == nullptr || args.logits != nullptr || args.t != 1) return in_parts(args, run);
    check(args);
    const int64_t kept = args.n_kv_heads * args.group * total_tokens(args);
    if (kept > most_kept) return in_parts(args, run);
    const Scratch logits(static_cast<size_t>(kept));
    FlatArgs keeping = args;
    keeping.logits = logits.data();
    in_parts(keeping, run);
}

void flat_mass(const FlatArgs& args) {
    if (args.logits == nullptr) return in_parts(args, [](Attend& part) { part.add_mass(); });
    check(args);
    add_kept_mass(args);
}

}  // namespace sakuin
