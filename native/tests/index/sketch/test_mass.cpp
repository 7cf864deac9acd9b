// Attention mass of whole steps of decoding, static tokens and segments: all of it, what lies above a share of a token,
// and the same by SketchSteps. Buffers are exactly as long as they must be.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "index/sketch/decode.hpp"
#include "index/sketch/steps.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"
#include "tests/index/sketch/sealed.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

constexpr int64_t heads = 2, n_sink = 3, n_recent = 37;
constexpr float scaling = 0.3f;

// One step over segments and static tokens in float32.
struct Chain {
    std::vector<const Sealed*> segments;
    int64_t d, group, t;
    Floats keys, values, q;  // (heads, n_sink + n_recent, d) twice, (heads * group, t, d)
    int64_t n = 0;           // tokens of the segments

    Chain(Random& random, std::vector<const Sealed*> of, int64_t dim, int64_t g, int64_t positions, float size = 1.5f)
        : segments(std::move(of)), d(dim), group(g), t(positions),
          keys(normals(random, heads * (n_sink + n_recent) * d)),
          values(normals(random, heads * (n_sink + n_recent) * d)), q(normals(random, heads * group * t * d, size)) {
        for (float& x : keys) x += 1.0f;
        for (const Sealed* s : segments) n += s->s.n;
    }
    int64_t tokens() const { return n_sink + n + n_recent; }
    std::vector<const SketchSegment*> chain() const {
        std::vector<const SketchSegment*> found;
        for (const Sealed* s : segments) found.push_back(&s->s);
        return found;
    }
    const float* key(int64_t head, int64_t token) const {
        const float* own = keys.data() + head * (n_sink + n_recent) * d;
        if (token < n_sink) return own + token * d;
        if (token >= n_sink + n) return own + (token - n) * d;
        token -= n_sink;
        for (const Sealed* s : segments) {
            if (token < s->s.n) return s->keys.data() + (head * s->s.n + token) * d;
            token -= s->s.n;
        }
        return nullptr;
    }
    FlatSpan span(int64_t first, int64_t m) const {
        const int64_t stride = (n_sink + n_recent) * d;
        return {keys.data() + first * d, values.data() + first * d, DType::f32, m, stride, d, stride, d};
    }
};

struct Options {
    float tolerance = 1.0f, exact = 8.0f, cap = 0.3f, target = 0.0f, softcap = 0.0f;
};

SketchSettings settings(const Options& o) {
    return {.rescore = o.tolerance,
            .coded = o.tolerance * 0.5f,
            .exact = o.tolerance * o.exact,
            .reach = 2.0f,
            .cap = o.cap,
            .target_error = o.target};
}

// What decode_sketch adds to a mass of 0.5 each.
Floats mass_of(const Chain& c, float least, const Options& o, const std::string& isa, int threads) {
    const int64_t rows = heads * c.group * c.t;
    Floats out(at(rows * c.d)), lse(at(rows)), coverage(lse), error(lse), exact(at(heads * c.t)), coded(exact);
    Floats mass(at(heads * c.tokens()), 0.5f);
    SketchAttend a{};
    a.kernels = &kernels(isa);
    a.segments = c.chain();
    a.q = c.q.data();
    a.heads = heads, a.group = c.group, a.t = c.t;
    a.scaling = scaling, a.softcap = o.softcap, a.settings = settings(o), a.n_threads = threads;
    a.out = out.data(), a.lse = lse.data(), a.coverage = coverage.data(), a.error = error.data();
    a.exact_share = exact.data(), a.coded_share = coded.data();
    a.mass_stride = c.tokens(), a.mass_least = least;
    FlatArgs f{};
    f.q = c.q.data();
    f.q_dtype = DType::f32;
    f.q_head_stride = c.t * c.d, f.q_stride = c.d;
    f.n_kv_heads = heads, f.group = c.group, f.t = c.t, f.head_dim = f.value_dim = c.d;
    f.spans = {c.span(0, n_sink), c.span(n_sink, n_recent)};
    f.causal = true;
    f.scaling = scaling, f.softcap = o.softcap, f.n_threads = threads, f.isa = isa;
    decode_sketch(a, f, mass.data());
    for (float& x : mass) x -= 0.5f;
    return mass;
}

// The shares by the definition.
Floats true_mass(const Chain& c, float softcap) {
    Floats mass(at(heads * c.tokens()), 0.0f);
    for (int64_t r = 0; r < heads * c.group * c.t; ++r) {
        const int64_t head = r / (c.group * c.t), sees = c.tokens() - (c.t - 1 - r % c.t);
        std::vector<double> w;
        double sum = 0.0;
        for (int64_t i = 0; i < sees; ++i) {
            float z = 0.0f;
            for (int64_t j = 0; j < c.d; ++j) z += c.q[at(r * c.d + j)] * c.key(head, i)[j];
            w.push_back(std::exp(static_cast<double>(capped(z * scaling, softcap))));
            sum += w.back();
        }
        for (int64_t i = 0; i < sees; ++i) mass[at(head * c.tokens() + i)] += static_cast<float>(w[at(i)] / sum);
    }
    return mass;
}

Floats above(Floats mass, float least) {
    for (float& x : mass) x = std::max(x - least, 0.0f);
    return mass;
}

int64_t counted(const Floats& mass) {
    return std::count_if(mass.begin(), mass.end(), [](float x) { return x > 1e-5f; });
}

std::string named(const Chain& c, const std::string& isa) {
    return isa + " group " + std::to_string(c.group) + " t " + std::to_string(c.t) + " n " + std::to_string(c.n) +
           " d " + std::to_string(c.d);
}

}  // namespace

TEST(the_mass_of_a_step_is_every_tokens_share_of_all) {
    Random random(21);
    for (const int64_t d : {16, 24, 72}) {
        const Sealed a(random, heads, 150, d, 8, d / 2, 1), b(random, heads, 40, d, 4, d / 4, 1);
        for (const auto& [group, t] : {std::pair<int64_t, int64_t>{1, 1}, {3, 1}, {3, 4}, {19, 1}, {17, 2}})
            for (const std::vector<const Sealed*>& chain : {std::vector<const Sealed*>{}, {&a}, {&a, &b}}) {
                const Chain c(random, chain, d, group, t);
                for (const float softcap : {0.0f, 5.0f}) {
                    const Floats want = true_mass(c, softcap);
                    for (const std::string& isa : available_isas())
                        for (const int threads : {1, 3}) {
                            const Options fine{.tolerance = 1e-6f, .cap = 1.0f, .softcap = softcap};
                            const Floats got = mass_of(c, 0.0f, fine, isa, threads);
                            CHECK(distance(got, want) < 1e-3,
                                  named(c, isa) + " " + std::to_string(distance(got, want)));
                        }
                }
            }
    }
}

// However coarsely the rest is attended: picked keys, segments that are read in order, heads held to a target.
TEST(of_a_mass_only_what_is_above_a_share_counts) {
    Random random(22);
    int64_t some = 0, of_segments = 0;
    for (const int64_t n : {33, 700}) {
        const Sealed a(random, heads, n, 24, 8, 12, 1), b(random, heads, 40, 24, 4, 6, 1);
        for (const int64_t group : {1, 3, 16})
            for (const std::vector<const Sealed*>& chain : {std::vector<const Sealed*>{}, {&a}, {&b, &a}}) {
                const Chain c(random, chain, 24, group, 1, 4.0f);
                for (const std::string& isa : available_isas())
                    for (const Options& o : {Options{},
                                             {.cap = 0.0f},
                                             {.tolerance = 4.0f, .target = 1e-4f},
                                             {.exact = 1e4f, .cap = 1.0f},
                                             {.exact = 1e4f, .cap = 0.0f},
                                             {.softcap = 5.0f}})
                        for (const float share : {0.02f, 0.1f}) {
                            const float least = share * static_cast<float>(group);
                            const Floats want = above(mass_of(c, 0.0f, o, isa, 2), least),
                                         got = mass_of(c, least, o, isa, 2);
                            CHECK(distance(got, want) < 1e-5,
                                  named(c, isa) + " " + std::to_string(distance(got, want)));
                            some += counted(got);
                            for (int64_t h = 0; h < heads; ++h)
                                of_segments += counted({got.begin() + h * c.tokens() + n_sink,
                                                        got.begin() + h * c.tokens() + n_sink + c.n});
                        }
            }
    }
    CHECK(of_segments > 100 && some - of_segments > 100,
          std::to_string(some) + ", of segments " + std::to_string(of_segments));
}

TEST(what_comes_in_parts_is_not_parted_by_a_share) {
    Random random(23);
    const Sealed a(random, heads, 80, 16, 8, 8, 1);
    for (const auto& [group, t] : {std::pair<int64_t, int64_t>{3, 2}, {17, 1}}) {
        bool refused = false;
        try {
            mass_of({random, {&a}, 16, group, t}, 0.1f, {}, "", 1);
        } catch (const std::invalid_argument&) {
            refused = true;
        }
        CHECK(refused, std::to_string(group));
    }
}

// The newest t of the recent tokens come with the step.
TEST(steps_count_what_is_above_a_share_of_any_group_and_positions) {
    Random random(24);
    const int64_t d = 16;
    const Sealed a(random, heads, 300, d, 8, 8, 1);
    for (const auto& [group, t] : {std::pair<int64_t, int64_t>{1, 1}, {3, 1}, {3, 4}, {18, 1}, {20, 3}})
        for (const std::vector<const Sealed*>& chain : {std::vector<const Sealed*>{}, {&a}}) {
            const Chain c(random, chain, d, group, t, 4.0f);
            const int64_t room = n_recent + 5, stride = c.tokens() + 7, held = n_recent - t;
            const auto taken = [&](float share) {
                Floats keys(at(heads * room * d), std::nanf("")), values(keys), new_keys, new_values;
                for (int64_t h = 0; h < heads; ++h) {
                    const int64_t from = (h * (n_sink + n_recent) + n_sink) * d;
                    std::copy_n(c.keys.data() + from, held * d, keys.data() + h * room * d);
                    std::copy_n(c.values.data() + from, held * d, values.data() + h * room * d);
                    for (int64_t i = held * d; i < n_recent * d; ++i) {
                        new_keys.push_back(c.keys[at(from + i)]);
                        new_values.push_back(c.values[at(from + i)]);
                    }
                }
                const UnsealedTokens unsealed{keys.data(), values.data(), DType::f32, heads, room, d, d, 0, held};
                SketchSteps steps(c.chain(), c.span(0, n_sink), unsealed, group, settings({}), 2);
                Floats mass(at(heads * stride), 0.0f), out(at(t * heads * group * d));
                NextStep next{};
                next.mass = mass.data();
                next.mass_stride = stride, next.mass_tokens = stride, next.above = share;
                steps.prepare(held, next);
                steps.step({heads * group, heads, t, d, d, DType::f32, c.q.data(), new_keys.data(), new_values.data(),
                            scaling, 0.0f, nullptr, out.data()});
                return mass;
            };
            const Floats all = taken(0.0f), got = taken(0.05f), want = above(all, 0.05f * static_cast<float>(group));
            const std::string what = named(c, kernels().name);
            CHECK(distance(got, want) < 1e-5, what + " " + std::to_string(distance(got, want)));
            CHECK(counted(got) > 0 && counted(got) < counted(all), what);
        }
}
