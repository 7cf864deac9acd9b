#include "tests/fuzz/run.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "attention/prefill.hpp"
#include "index/flat/flat.hpp"
#include "index/sketch/decode.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/prefill_dispatch.hpp"

namespace sakuin::fuzz {
namespace {

using testing::at;

uint64_t seed_now = 0;
const char* step_now = "";

void too_long(int) {
    char text[160];
    const int n = std::snprintf(text, sizeof text, "seed %llu: %s took more than 30 s\n",
                                static_cast<unsigned long long>(seed_now), step_now);
    if (write(2, text, static_cast<size_t>(n)) < 0) _exit(4);
    _exit(3);
}

const std::string& isa_of(Random& random) {
    const std::vector<std::string>& all = available_isas();
    return all[at(random.below(static_cast<int>(all.size())))];
}

float one_of(Random& random, std::initializer_list<float> x) {
    return x.begin()[random.below(static_cast<int>(x.size()))];
}

template <class Segment>
int64_t tokens_of(const std::vector<const Segment*>& segments) {
    int64_t n = 0;
    for (const Segment* s : segments) n += s->n;
    return n;
}

void check_search(const Answer& a, int64_t rows, int64_t k, int64_t n, Finite f) {
    for (int64_t r = 0; r < rows; ++r) {
        std::vector<int64_t> ids(a.ids.begin() + r * k, a.ids.begin() + (r + 1) * k);
        std::sort(ids.begin(), ids.end());
        need(ids.front() >= 0 && ids.back() < n, "a search found a token that is not there");
        if (f.scores)
            for (int64_t i = 0; i < k; ++i) {
                const float score = a.numbers[at(r * k + i)];
                need(std::isfinite(score), "a score of finite numbers is not finite");
                need(i == 0 || score <= a.numbers[at(r * k + i - 1)], "scores are not in order");
                need(i == 0 || ids[at(i)] != ids[at(i - 1)], "a search found a token twice");
            }
    }
}

struct Step : Answer {  // out, lse, coverage, error, exact, coded, mass
    Floats out, lse, coverage, error, exact, coded, mass, tier, weight, static_lse;

    Step(Random& random, const Sizes& of, int64_t n)
        : out(at(of.heads * of.group * of.t * of.head_dim)), lse(at(of.heads * of.group * of.t)), coverage(lse.size()),
          error(lse.size()), exact(at(of.heads * of.t)), coded(exact.size()), mass(at(of.heads * n)),
          tier(at(of.heads * of.t * n)), weight(tier.size()), static_lse(lse.size()) {
        const float beside = one_of(random, {0.0f, -30.0f, 100.0f, 1e30f, -1e38f});
        std::fill(static_lse.begin(), static_lse.end(), beside);
    }
    Answer answer() {
        for (const Floats* x : {&out, &lse, &coverage, &exact, &coded, &mass})
            numbers.insert(numbers.end(), x->begin(), x->end());
        return *this;
    }
};

void fill(RowCall& a, Step& step, Random& random, const Sizes& of, const Floats& q, int64_t n) {
    a.kernels = &kernels(isa_of(random));
    a.q = q.data();
    a.heads = of.heads;
    a.group = of.group;
    a.t = of.t;
    a.head_dim = a.value_dim = of.head_dim;
    a.n_tokens = n;
    a.scaling = one_of(random, {0.2f, 1.0f, -0.5f, 0.0f});
    a.softcap = one_of(random, {0.0f, 0.0f, 5.0f});
    a.static_lse = random.below(2) == 0 ? step.static_lse.data() : nullptr;
    a.estimate_rest = random.below(2) == 0;
    a.n_threads = 1 + random.below(3);
    a.out = step.out.data();
    a.lse = step.lse.data();
    a.coverage = step.coverage.data();
    a.exact_share = step.exact.data();
    if (random.below(2) == 0) {
        a.mass = step.mass.data();
        a.mass_stride = n;
    }
}

SketchAttend sketch_call(Random& random, Step& step, const std::vector<const SketchSegment*>& s, const Sizes& of,
                         const Floats& q) {
    SketchAttend a{};
    a.kernels = &kernels(isa_of(random));
    a.segments = s;
    a.q = q.data();
    a.heads = of.heads;
    a.group = of.group;
    a.t = of.t;
    a.scaling = one_of(random, {0.2f, 1.0f, -0.5f, 0.0f});
    a.softcap = one_of(random, {0.0f, 0.0f, 5.0f});
    const float fine = one_of(random, {1e-6f, 0.1f, 1.0f, 8.0f, 1e30f});
    a.settings = {.rescore = fine * 4.0f,
                  .coded = fine * one_of(random, {0.0f, 1.25f, 100.0f}),
                  .exact = fine * one_of(random, {0.0f, 30.0f, 1e6f}),
                  .reach = one_of(random, {0.0f, 2.0f, 50.0f}),
                  .cap = one_of(random, {0.0f, 0.3f, 0.6f, 1.0f}),
                  .target_error = one_of(random, {0.0f, 1e-6f, 0.01f, 0.3f})};
    a.n_threads = 1 + random.below(3);
    a.out = step.out.data();
    a.lse = step.lse.data();
    a.coverage = step.coverage.data();
    a.error = step.error.data();
    a.exact_share = step.exact.data();
    a.coded_share = step.coded.data();
    return a;
}

}  // namespace

void set_seed(uint64_t seed) { seed_now = seed; }

void need(bool ok, const char* what) {
    if (ok) return;
    std::fprintf(stderr, "seed %llu, %s: %s\n", static_cast<unsigned long long>(seed_now), step_now, what);
    std::abort();
}

void begin_step(const char* what) {
    step_now = what;
    std::signal(SIGALRM, too_long);
    alarm(30);
}

void end_step() { alarm(0); }

bool Answer::operator==(const Answer& other) const {
    return ids == other.ids && numbers.size() == other.numbers.size() &&
           (numbers.empty() || std::memcmp(numbers.data(), other.numbers.data(), numbers.size() * sizeof(float)) == 0);
}

Answer attend(Random choose, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q, Finite f) {
    begin_step("sketch attend");
    const int64_t n = tokens_of(s);
    Step step(choose, of, n);
    SketchAttend a = sketch_call(choose, step, s, of, q);
    a.static_lse = choose.below(2) == 0 ? step.static_lse.data() : nullptr;
    if (choose.below(2) == 0) {
        a.mass = step.mass.data();
        a.mass_stride = n;
    }
    if (choose.below(3) == 0) {
        a.trace_tier = step.tier.data();
        a.trace_weight = step.weight.data();
    }
    attend_sketch(a);
    for (const float e : step.error) need(e >= 0.0f && e <= 1.0f, "an error is not from 0 to 1");
    if (f.out)
        for (const float x : step.out) need(std::isfinite(x), "the output of finite numbers is not finite");
    end_step();
    return step.answer();
}

Answer decode(Random choose, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q) {
    begin_step("sketch decode");
    const int64_t n = tokens_of(s), d = of.head_dim, sink = choose.below(3), recent = of.t + choose.below(4);
    Step step(choose, of, n + sink + recent);
    const Floats k = testing::normals(choose, of.heads * (sink + recent) * d),
                 v = testing::normals(choose, of.heads * (sink + recent) * d);
    SketchAttend a = sketch_call(choose, step, s, of, q);
    a.mass_stride = n + sink + recent;
    FlatArgs x{};
    x.q = q.data();
    x.q_dtype = DType::f32;
    x.q_head_stride = of.t * d;
    x.q_stride = d;
    x.n_kv_heads = of.heads;
    x.group = of.group;
    x.t = of.t;
    x.head_dim = x.value_dim = d;
    const auto span = [&](int64_t first, int64_t m) {
        const int64_t stride = (sink + recent) * d;
        return FlatSpan{k.data() + first * d, v.data() + first * d, DType::f32, m, stride, d, stride, d};
    };
    x.spans = {span(0, sink), span(sink, recent)};
    x.causal = true;
    x.scaling = a.scaling;
    x.softcap = a.softcap;
    x.n_threads = a.n_threads;
    if (of.t == 1 && of.group <= max_group && choose.below(2) == 0) a.mass_least = 0.1f * static_cast<float>(of.group);
    decode_sketch(a, x, choose.below(2) == 0 ? step.mass.data() : nullptr);
    end_step();
    return step.answer();
}

Answer search(Random choose, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q, Finite f) {
    begin_step("sketch search");
    const int64_t n = tokens_of(s), rows = of.heads * of.group * of.t;
    const int64_t k = 1 + choose.below(static_cast<int>(std::min<int64_t>(n, 60)));
    Answer found{Floats(at(rows * k)), std::vector<int64_t>(at(rows * k))};
    search_sketch({&kernels(isa_of(choose)), s, q.data(), of.heads, of.group, of.t, k, k + choose.below(200),
                   k + choose.below(40), one_of(choose, {0.0f, 2.0f, 50.0f}), 1 + choose.below(3), found.numbers.data(),
                   found.ids.data()});
    check_search(found, rows, k, n, f);
    end_step();
    return found;
}

Answer attend(Random choose, const std::vector<const IvfSegment*>& s, const Sizes& of, const Floats& q) {
    begin_step("ivf attend");
    const int64_t n = tokens_of(s);
    Step step(choose, of, n);
    IvfAttend a{};
    fill(a, step, choose, of, q, n);
    a.segments = s;
    a.probes = choose.below(2) == 0 ? 0 : 1 + choose.below(50);
    a.budget = 1 + choose.below(static_cast<int>(2 * n));
    attend_ivf(a);
    end_step();
    return step.answer();
}

Answer search(Random choose, const std::vector<const IvfSegment*>& s, const Sizes& of, const Floats& q, Finite f) {
    begin_step("ivf search");
    const int64_t n = tokens_of(s), rows = of.heads * of.group * of.t;
    const int64_t k = 1 + choose.below(static_cast<int>(std::min<int64_t>(n, 60)));
    Step step(choose, of, n);
    IvfAttend a{};
    fill(a, step, choose, of, q, n);
    a.segments = s;
    a.probes = choose.below(2) == 0 ? 0 : 1 + choose.below(50);
    a.budget = 1 + choose.below(static_cast<int>(n));
    Answer found{Floats(at(rows * k)), std::vector<int64_t>(at(rows * k))};
    search_ivf(a, k, found.numbers.data(), found.ids.data());
    check_search(found, rows, k, n, f);
    end_step();
    return found;
}

Answer attend(Random choose, const GraphCase& g, const Floats& q) {
    begin_step("graph attend");
    const int64_t n = g.graph.n;
    Step step(choose, g.of, n);
    GraphAttend a{};
    fill(a, step, choose, g.of, q, n);
    a.keys = g.keys;
    a.values = g.values;
    a.mean_keys = g.mean_keys;
    a.mean_values = g.mean_values;
    a.budget = 1 + choose.below(static_cast<int>(n + 3));
    a.ef = 1 + choose.below(80);
    graph_attend(g.graph, a);
    end_step();
    return step.answer();
}

Answer search(Random choose, const GraphCase& g, const Floats& q, Finite f) {
    begin_step("graph search");
    const int64_t n = g.graph.n, rows = g.of.heads * g.of.group * g.of.t;
    const int64_t k = 1 + choose.below(static_cast<int>(std::min<int64_t>(n, 60)));
    Answer found{Floats(at(rows * k)), std::vector<int64_t>(at(rows * k))};
    std::vector<int64_t> scanned(at(rows)), walked(at(rows));
    graph_search(g.graph, {g.keys, q.data(), g.of.group, g.of.t, k, 1 + choose.below(80), &kernels(isa_of(choose)),
                           1 + choose.below(3), found.numbers.data(), found.ids.data(), scanned.data(), walked.data()});
    check_search(found, rows, k, n, f);
    end_step();
    return found;
}

Answer flat(Random choose, const SketchSegment& s, const Sizes& of, const Floats& q) {
    begin_step("flat attend");
    const int64_t n = s.n, d = of.head_dim;
    Step step(choose, of, n);
    FlatArgs x{};
    x.q = q.data();
    x.q_dtype = DType::f32;
    x.q_head_stride = of.t * d;
    x.q_stride = d;
    x.n_kv_heads = of.heads;
    x.group = of.group;
    x.t = of.t;
    x.head_dim = x.value_dim = d;
    x.spans = {{s.keys, s.values, s.dtype, n, n * d, d, n * d, d, s.scales}};
    x.causal = of.t <= n && choose.below(2) == 0;
    x.scaling = one_of(choose, {0.2f, 1.0f, 0.0f});
    x.softcap = one_of(choose, {0.0f, 5.0f});
    x.n_threads = 1 + choose.below(3);
    x.isa = isa_of(choose);
    x.out = step.out.data();
    x.lse = step.lse.data();
    if (choose.below(2) == 0) {
        x.mass = step.mass.data();
        x.mass_stride = n;
        x.static_lse = step.static_lse.data();
    }
    flat_attend(x);
    end_step();
    return step.answer();
}

Answer prefill(Random choose, const SketchSegment& s, const Sizes& of, const Floats& q) {
    const PrefillKernels* const k = prefill_kernels();
    if (k == nullptr || s.dtype == DType::i8 || of.t > s.n) return {};
    begin_step("prefill");
    const int64_t n = s.n, d = of.head_dim, size = d * dtype_size(s.dtype), past = n - of.t;
    Answer found{Floats(q.size()), {}};
    const auto block = [&](int64_t first, int64_t m) {
        return PrefillBlock{static_cast<const char*>(s.keys) + first * size,
                            static_cast<const char*>(s.values) + first * size,
                            s.dtype,
                            s.dtype,
                            m,
                            n * d,
                            d,
                            n * d,
                            d};
    };
    PrefillCall c{};
    c.kernels = k;
    c.q = q.data();
    c.q_dtype = DType::f32;
    c.q_head_stride = of.t * d;
    c.q_stride = d;
    if (past > 0) c.blocks.push_back(block(0, past));
    c.blocks.push_back(block(past, of.t));
    c.n_kv_heads = of.heads;
    c.group = of.group;
    c.t = of.t;
    c.head_dim = c.value_dim = d;
    c.scaling = one_of(choose, {0.2f, 1.0f});
    c.softcap = one_of(choose, {0.0f, 5.0f});
    c.out = found.numbers.data();
    c.out_head_stride = of.t * d;
    c.out_stride = d;
    c.n_threads = 1 + choose.below(3);
    prefill_attention(c);
    end_step();
    return found;
}

}  // namespace sakuin::fuzz
