// Whole segments of `sketch`: sealed, attended on every instruction set, damaged. Buffers are exactly as long as they
// must be, so that a sanitizer sees any access beyond them.
#include <algorithm>
#include <functional>
#include <limits>

#include "index/sketch/read_ahead.hpp"
#include "index/sketch/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"
#include "tests/index/sketch/sealed.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

struct Step {
    Floats q, out, lse, coverage, error, exact, coded, mass, tier, weight;
    int64_t touched = 0;

    Step(const std::vector<const SketchSegment*>& segments, const Floats& query, int64_t group, int64_t t,
         float tolerance, float cap, float softcap, const std::string& isa, int threads, float target = 0.0f)
        : q(query) {
        const SketchSegment& s = *segments.front();
        int64_t n = 0;
        for (const SketchSegment* each : segments) n += each->n;
        const int64_t rows = s.heads * group * t;
        out.resize(at(rows * s.shape.value_dim));
        lse.resize(at(rows));
        coverage.resize(at(rows));
        error.resize(at(rows));
        exact.resize(at(s.heads * t));
        coded.resize(at(s.heads * t));
        mass.assign(at(s.heads * n), 0.0f);
        tier.resize(at(s.heads * t * n));
        weight.resize(at(s.heads * t * n));
        SketchAttend a{};
        a.kernels = &kernels(isa);
        a.segments = segments;
        a.q = q.data();
        a.heads = s.heads;
        a.group = group;
        a.t = t;
        a.scaling = 0.3f;
        a.softcap = softcap;
        a.settings = {.rescore = tolerance,
                      .coded = tolerance * 0.5f,
                      .exact = tolerance * 8.0f,
                      .reach = 2.0f,
                      .cap = cap,
                      .target_error = target};
        a.n_threads = threads;
        a.out = out.data();
        a.lse = lse.data();
        a.coverage = coverage.data();
        a.error = error.data();
        a.exact_share = exact.data();
        a.coded_share = coded.data();
        a.mass = mass.data();
        a.mass_stride = n;
        a.trace_tier = tier.data();
        a.trace_weight = weight.data();
        attend_sketch(a);
        touched = a.touched_bytes;
    }
};

}  // namespace

// Two segments against plain double-precision code, at fine settings and at the defaults.
static void agrees(Random& random, int64_t n, int64_t d, int64_t value_dim, int64_t group, int64_t t, int64_t subs) {
    const int64_t heads = 2, rows = heads * group * t;
    Sealed a(random, heads, n, d, subs, d / 2, 2, value_dim);
    const Sealed b(random, heads, 40, d, 4, d / 4, 1, value_dim);
    if (n % 2 != 0) a.to_int8(random);
    const Floats q = normals(random, rows * d, d <= 64 ? 1.5f : 12.0f / std::sqrt(static_cast<float>(d)));
    for (const float softcap : {0.0f, 5.0f}) {
        Floats want(at(rows * value_dim), 0.0f), lse(at(rows));
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t h = r / (group * t);
            double sum = 0.0;
            std::vector<double> out(at(value_dim), 0.0);
            for (const Sealed* s : {static_cast<const Sealed*>(&a), &b})
                for (int64_t i = 0; i < s->s.n; ++i) {
                    float z = 0.0f;
                    for (int64_t j = 0; j < d; ++j) z += q[at(r * d + j)] * s->keys[at((h * s->s.n + i) * d + j)];
                    const double w = std::exp(static_cast<double>(capped(z * 0.3f, softcap)));
                    sum += w;
                    for (int64_t j = 0; j < value_dim; ++j)
                        out[at(j)] += w * static_cast<double>(s->values[at((h * s->s.n + i) * value_dim + j)]);
                }
            lse[at(r)] = static_cast<float>(std::log(sum));
            for (int64_t j = 0; j < value_dim; ++j) want[at(r * value_dim + j)] = static_cast<float>(out[at(j)] / sum);
        }
        for (const std::string& isa : available_isas())
            for (const int threads : {1, 3}) {
                const Step fine({&a.s, &b.s}, q, group, t, 1e-6f, 1.0f, softcap, isa, threads);
                const std::string what = isa + " d " + std::to_string(d) + " values " + std::to_string(value_dim) +
                                         " group " + std::to_string(group) + " n " + std::to_string(n);
                CHECK(distance(fine.out, want) < 2e-3, what + " " + std::to_string(distance(fine.out, want)));
                CHECK(distance(fine.lse, lse) < 2e-3, what + " lse");
                const Step usual({&a.s, &b.s}, q, group, t, 1.0f, 0.3f, softcap, isa, threads);
                CHECK(distance(usual.lse, lse) < 1.0, what + " lse at the defaults");
                CHECK(usual.touched > 0 && usual.touched <= fine.touched, what + " touched");
                // However far from the target a step begins, it ends below it, in the worst case exactly.
                const Step held({&a.s, &b.s}, q, group, t, 4.0f, 0.3f, softcap, isa, threads, 1e-5f);
                for (const float e : held.error) CHECK(e >= 0.0f && e <= 1e-5f, what + " target");
                CHECK(distance(held.out, want) < 2e-3, what + " held " + std::to_string(distance(held.out, want)));
                // Each query head's softmax has a mass of 1.
                double mass = 0.0;
                for (const float x : held.mass) mass += static_cast<double>(x);
                CHECK(std::abs(mass - static_cast<double>(rows)) < 1e-3 * static_cast<double>(rows), what + " mass");
            }
    }
}

TEST(a_sealed_segment_attends_like_its_keys_and_values) {
    Random random(9);
    for (const int64_t d : {8, 24, 64})
        for (const int64_t n : {1, 63, 64, 65, 300}) agrees(random, n, d, d, 3, 2, 8);
}

TEST(long_keys_and_values_of_another_size_attend_like_themselves) {
    Random random(15);
    for (const auto& [d, value_dim] :
         {std::pair{320, 320}, {512, 512}, {576, 576}, {328, 264}, {192, 128}, {64, 128}, {24, 576}, {576, 24}})
        for (const int64_t n : {65, 300}) agrees(random, n, d, value_dim, 2, 1, d / 4);
}

TEST(large_groups_attend_as_their_query_heads_do) {
    Random random(16);
    for (const int64_t group : {17, 32, 71, 128}) agrees(random, 130 + group, 16, 24, group, group == 17 ? 2 : 1, 8);
}

TEST(rows_in_files_change_nothing) {
    Random random(13);
    for (const bool int8 : {false, true}) {
        Sealed a(random, 2, 1500, 64, 16, 32, 2);
        if (int8) a.to_int8(random);
        const Floats q = normals(random, 2 * 3 * 2 * 64, 1.5f);
        SketchSegment on_disk = a.s;
        SketchFiles files(a.s);
        on_disk.files = &files;
        for (const std::string& isa : available_isas()) {
            // The second reads whole segments, the third attends all exactly.
            for (const auto& [cap, target] : {std::pair{0.3f, 0.0f}, {0.0f, 0.0f}, {0.3f, 1e-5f}}) {
                const Step plain({&a.s}, q, 3, 2, 1.0f, cap, 0.0f, isa, 2, target),
                    same({&on_disk}, q, 3, 2, 1.0f, cap, 0.0f, isa, 2, target);
                CHECK(plain.out == same.out && plain.lse == same.lse && plain.tier == same.tier &&
                          plain.touched == same.touched,
                      isa);
            }
            Floats scores(2 * 3 * 2 * 20), again(scores.size());
            std::vector<int64_t> ids(scores.size()), ids_again(scores.size());
            search_sketch({&kernels(isa), {&a.s}, q.data(), 2, 3, 2, 20, 150, 60, 2.0f, 2, scores.data(), ids.data()});
            search_sketch(
                {&kernels(isa), {&on_disk}, q.data(), 2, 3, 2, 20, 150, 60, 2.0f, 2, again.data(), ids_again.data()});
            CHECK(scores == again && ids == ids_again, isa);
        }
    }
}

TEST(damaged_codes_and_numbers_lead_nowhere_outside_the_arrays) {
    Random random(10);
    for (int round = 0; round < 40; ++round) {
        Sealed s(random, 2, 150, 24, 8, 12, 1);
        const auto damage = [&](auto& x) {
            for (int i = 0; i < 6; ++i) {
                auto* bytes = reinterpret_cast<uint8_t*>(x.data());
                bytes[random.next() % (x.size() * sizeof(x[0]))] = static_cast<uint8_t>(random.next());
            }
        };
        // Everything that Python need not check: whatever these hold, scores may be wrong or not a number, no more.
        damage(s.key_rows), damage(s.value_rows), damage(s.mean), damage(s.sub_step), damage(s.residue),
            damage(s.code_step);
        damage(s.within), damage(s.code_residue), damage(s.tilt), damage(s.spread);
        damage(s.basis), damage(s.value_params), damage(s.list_codes), damage(s.list_params), damage(s.sketch),
            damage(s.codes), damage(s.value_codes);
        Floats q = normals(random, 2 * 4 * 24);
        if (round % 4 == 1) q[5] = std::nanf("");
        if (round % 4 == 2) q[5] = std::numeric_limits<float>::infinity();
        for (const std::string& isa : available_isas())
            for (const float softcap : {0.0f, 5.0f}) {
                const Step step({&s.s}, q, 4, 1, round % 2 == 0 ? 1.0f : 1e-4f, round % 3 == 0 ? 0.0f : 0.3f, softcap,
                                isa, 1);
                CHECK(step.touched > 0, isa);
                Floats scores(2 * 4 * 9);
                std::vector<int64_t> ids(scores.size());
                search_sketch({&kernels(isa),
                               {&s.s},
                               q.data(),
                               2,
                               4,
                               1,
                               9,
                               9 + round,
                               9 + round,
                               2.0f,
                               1,
                               scores.data(),
                               ids.data()});
                CHECK(std::all_of(ids.begin(), ids.end(), [](int64_t id) { return id >= 0 && id < 150; }), isa);
            }
    }
}

TEST(segments_of_which_many_keys_would_be_found_are_read_whole) {
    Random random(11);
    const int64_t n = 2000, d = 16;
    const Sealed s(random, 1, n, d, 4, 8, 1);
    const Floats q = normals(random, d);
    for (const std::string& isa : available_isas()) {
        const Step picked({&s.s}, q, 1, 1, 1.0f, 1.0f, 0.0f, isa, 1), whole({&s.s}, q, 1, 1, 1.0f, 0.01f, 0.0f, isa, 1);
        const auto scored = [&](const Step& step, float from) {
            return std::count_if(step.tier.begin(), step.tier.end(), [&](float x) { return x >= from; });
        };
        CHECK(scored(picked, 1.0f) > n / 50 && scored(picked, 1.0f) < n * 9 / 10, isa);
        CHECK(scored(whole, 2.0f) == n, isa + " " + std::to_string(scored(whole, 2.0f)));
        CHECK(std::abs(whole.lse[0] - picked.lse[0]) < 0.05f, isa);
        float size = 0.0f, off = 0.0f;
        for (int64_t j = 0; j < d; ++j) {
            size += picked.out[at(j)] * picked.out[at(j)];
            off += (whole.out[at(j)] - picked.out[at(j)]) * (whole.out[at(j)] - picked.out[at(j)]);
        }
        CHECK(off < 0.05f * size, isa + " " + std::to_string(off / size));
    }
}

TEST(search_finds_the_largest_products_of_whole_chains) {
    Random random(12);
    for (const int64_t d : {8, 24, 64})
        for (const int64_t group : {1, 3, 5, 16, 33}) {
            const int64_t heads = 2, t = 2;
            const Sealed a(random, heads, 1500, d, 8, d / 2, 2), b(random, heads, 65, d, 4, d / 4, 1),
                c(random, heads, 1, d, 4, d / 4, 1);
            const std::vector<const Sealed*> chain{&a, &b, &c};
            const int64_t n = 1566;
            const Floats q = normals(random, heads * group * t * d, 1.5f);
            for (const std::string& isa : available_isas())
                for (const int64_t k : {int64_t{1}, int64_t{20}, n}) {
                    Floats scores(at(heads * group * t * k));
                    std::vector<int64_t> ids(scores.size());
                    search_sketch({&kernels(isa),
                                   {&a.s, &b.s, &c.s},
                                   q.data(),
                                   heads,
                                   group,
                                   t,
                                   k,
                                   std::max<int64_t>(k, 150),
                                   std::max<int64_t>(k, 60),
                                   2.0f,
                                   3,
                                   scores.data(),
                                   ids.data()});
                    const std::string what =
                        isa + " d " + std::to_string(d) + " group " + std::to_string(group) + " k " + std::to_string(k);
                    int64_t found = 0;
                    double off = 0.0;
                    for (int64_t r = 0; r < heads * group * t; ++r) {
                        Floats all;
                        for (const Sealed* s : chain)
                            for (int64_t i = 0; i < s->s.n; ++i) {
                                float z = 0.0f;
                                for (int64_t j = 0; j < d; ++j)
                                    z += q[at(r * d + j)] * s->keys[at((r / (group * t) * s->s.n + i) * d + j)];
                                all.push_back(z);
                            }
                        Floats sorted = all;
                        std::sort(sorted.begin(), sorted.end(), std::greater<>());
                        std::vector<bool> seen(at(n));
                        for (int64_t i = r * k; i < (r + 1) * k; ++i) {
                            const int64_t id = ids[at(i)];
                            CHECK(id >= 0 && id < n && !seen[at(id)], what);
                            seen[at(id)] = true;
                            off = std::max(off, std::abs(static_cast<double>(scores[at(i)] - all[at(id)])));
                            CHECK(i == r * k || scores[at(i)] <= scores[at(i - 1)], what);
                            found += scores[at(i)] >= sorted[at(k - 1)] - 1e-3f;
                        }
                    }
                    CHECK(off < 1e-3, what + " " + std::to_string(off));
                    CHECK(static_cast<double>(found) > 0.85 * static_cast<double>(ids.size()),
                          what + " " + std::to_string(found) + " of " + std::to_string(ids.size()));
                }
        }
}
