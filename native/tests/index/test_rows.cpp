// Attention over chosen rows (index/rows.hpp) against plain loops in double. Buffers are exactly as long as they must
// be, so that a sanitizer sees any access beyond them.
#include <algorithm>
#include <limits>

#include "index/rows.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

constexpr float nothing = -std::numeric_limits<float>::infinity();

// Numbers in some dtype that all three hold exactly.
struct Rows {
    DType dtype;
    Floats wide;
    std::vector<uint16_t> narrow;

    Rows(Random& random, DType type, int64_t n) : dtype(type), wide(at(n)) {
        for (float& x : wide) {
            x = coarse(random);
            if (type != DType::f32) narrow.push_back(type == DType::bf16 ? bf16(x) : fp16(x));
        }
    }
    const void* data(int64_t from = 0) const {
        return dtype == DType::f32 ? static_cast<const void*>(wide.data() + from) : narrow.data() + from;
    }
};

struct Want {
    double top = -1e300, picked = 0.0, rest = 0.0;
    std::vector<double> out;
    std::vector<std::pair<int64_t, double>> tokens;
};

// One step over two stores per head: a part of the first by index, a run of the second, and summaries.
struct Case {
    int64_t heads = 2, group, t = 2, d, width, n = 90, m = 70, lists = 5;  // width: of values
    Rows keys, values, other_keys, other_values, means;
    Floats q, scores;
    std::vector<int32_t> order, left;
    std::vector<uint32_t> chosen;
    std::vector<RowStore> stores;
    std::vector<RowChoice> choices;

    Case(Random& random, DType dtype, int64_t g, int64_t dim, bool picks, bool summaries, int64_t of_values = 0)
        : group(g), d(dim), width(of_values == 0 ? dim : of_values), keys(random, dtype, heads * n * d),
          values(random, dtype, heads * n * width), other_keys(random, DType::bf16, heads * m * d),
          other_values(random, DType::bf16, heads * m * width), means(random, DType::bf16, heads * lists * width),
          q(normals(random, heads * group * t * d)) {
        scores = normals(random, heads * lists * padded(static_cast<int>(group)), 2.0f);
        for (int64_t i = 0; i < n; ++i) order.push_back(static_cast<int32_t>((i * 7) % n));
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t i = 0; i < lists; ++i) left.push_back(random.below(4) * 10);
        for (uint32_t i = 1; i < 90; i += 1 + random.next() % 3) chosen.push_back(i);
        for (int64_t h = 0; h < heads; ++h) {
            stores.push_back({keys.data(h * n * d), values.data(h * n * width), dtype, n, 0, order.data()});
            stores.push_back(
                {other_keys.data(h * m * d), other_values.data(h * m * width), DType::bf16, m, n, nullptr});
        }
        for (int64_t h = 0; h < heads; ++h) {
            RowChoice c;
            if (picks) {
                c.picks.push_back({&stores[at(2 * h)], chosen.data(), 0, static_cast<int64_t>(chosen.size())});
                c.picks.push_back({&stores[at(2 * h + 1)], nullptr, 3, m - 3});
                c.picks.push_back({&stores[at(2 * h + 1)], nullptr, 0, 2});
            }
            if (summaries)
                c.rest.push_back({lists, scores.data() + h * lists * padded(static_cast<int>(group)),
                                  means.data(h * lists * width), DType::bf16, left.data() + h * lists});
            choices.push_back(c);
        }
    }

    Want want(int64_t h, int64_t g, int64_t position, float scaling, float softcap, bool add_rest) const {
        Want w;
        w.out.assign(at(width), 0.0);
        std::vector<std::pair<double, const float*>> all;
        const auto score = [&](const Rows& k, int64_t row) {
            float z = 0.0f;
            for (int64_t j = 0; j < d; ++j)
                z += q[at(((h * group + g) * t + position) * d + j)] * k.wide[at(row * d + j)];
            return static_cast<double>(capped(z * scaling, softcap));
        };
        const RowChoice& c = choices[at(h)];
        for (const RowPick& p : c.picks)
            for (int64_t i = 0; i < p.m; ++i) {
                const int64_t row = p.rows != nullptr ? p.rows[i] : p.begin + i;
                const bool first = p.store == &stores[at(2 * h)];
                const double z = first ? score(keys, h * n + row) : score(other_keys, h * m + row),
                             weight = std::exp(z);
                w.picked += weight;
                w.tokens.emplace_back(first ? order[at(row)] : n + row, weight);
                for (int64_t j = 0; j < width; ++j)
                    w.out[at(j)] +=
                        weight * static_cast<double>(
                                     (first ? values : other_values).wide[at((h * (first ? n : m) + row) * width + j)]);
            }
        for (const RowSummaries& s : c.rest)
            for (int64_t i = 0; i < s.n; ++i) {
                const float z = s.scores[i * padded(static_cast<int>(group)) + g] * 0.693147181f;
                const double weight = std::exp(static_cast<double>(capped(z, softcap))) * s.left[i];
                w.rest += weight;
                if (add_rest)
                    for (int64_t j = 0; j < width; ++j)
                        w.out[at(j)] += weight * static_cast<double>(means.wide[at((h * lists + i) * width + j)]);
            }
        const double total = w.picked + (add_rest ? w.rest : 0.0);
        for (double& x : w.out) x = total > 0.0 ? x / total : 0.0;
        return w;
    }
};

struct Got {
    Floats out, lse, coverage, exact, mass;
    int64_t touched = 0;
};

Got attended(const Case& c, float scaling, float softcap, const Floats& static_lse, bool add_rest,
             const std::string& isa, int threads) {
    Got r;
    r.out.assign(at(c.heads * c.group * c.t * c.width), 7.0f);
    r.lse.assign(at(c.heads * c.group * c.t), 7.0f);
    r.coverage = r.lse;
    r.exact.assign(at(c.heads * c.t), 7.0f);
    r.mass.assign(at(c.heads * (c.n + c.m)), 0.0f);
    for (int64_t position = 0; position < c.t; ++position) {
        const Floats q = scaled_queries(c.q.data(), c.heads * c.group, c.t, position, c.d, scaling);
        RowCall a{};
        a.kernels = &kernels(isa);
        a.heads = c.heads;
        a.group = c.group;
        a.t = c.t;
        a.head_dim = c.d;
        a.value_dim = c.width;
        a.n_tokens = c.n + c.m;
        a.softcap = softcap;
        a.static_lse = static_lse.empty() ? nullptr : static_lse.data();
        a.estimate_rest = add_rest;
        a.n_threads = threads;
        a.out = r.out.data();
        a.lse = r.lse.data();
        a.coverage = r.coverage.data();
        a.exact_share = r.exact.data();
        a.mass = r.mass.data();
        a.mass_stride = c.n + c.m;
        r.touched += attend_rows(a, q.data(), position, c.choices);
    }
    return r;
}

void compare(const Case& c, const Got& got, float softcap, const Floats& static_lse, bool add_rest,
             const std::string& isa) {
    Floats out, lse, coverage, mass(got.mass.size(), 0.0f);
    for (int64_t h = 0; h < c.heads; ++h)
        for (int64_t g = 0; g < c.group; ++g)
            for (int64_t i = 0; i < c.t; ++i) {
                const Want w = c.want(h, g, i, 0.2f, softcap, add_rest);
                const double aside = static_lse.empty()
                                         ? 0.0
                                         : std::exp(static_cast<double>(static_lse[at((h * c.group + g) * c.t + i)]));
                const double total = w.picked + (add_rest ? w.rest : 0.0);
                for (const double x : w.out) out.push_back(static_cast<float>(x));
                lse.push_back(static_cast<float>(std::log(total)));
                coverage.push_back(static_cast<float>((w.picked + aside) / (w.picked + w.rest + aside)));
                for (const auto& [token, weight] : w.tokens)
                    mass[at(h * (c.n + c.m) + token)] += static_cast<float>(weight / (total + aside));
            }
    const std::string what = isa + " group " + std::to_string(c.group) + " d " + std::to_string(c.d);
    CHECK(distance(got.out, out) < 2e-4, what + " " + std::to_string(distance(got.out, out)));
    CHECK(distance(got.lse, lse) < 2e-4, what + " lse");
    CHECK(distance(got.coverage, coverage) < 2e-4,
          what + " coverage " + std::to_string(distance(got.coverage, coverage)));
    CHECK(distance(got.mass, mass) < 1e-3, what + " mass " + std::to_string(distance(got.mass, mass)));
    const int64_t picked = static_cast<int64_t>(c.chosen.size()) + c.m - 1;
    const float share = static_cast<float>(picked) / static_cast<float>(c.n + c.m);
    CHECK(std::abs(got.exact[0] - share) < 1e-6f, what + " exact share");
    const int64_t rows = static_cast<int64_t>(c.chosen.size()) * dtype_size(c.keys.dtype) + (c.m - 1) * 2;
    const int64_t rest = !c.choices[0].rest.empty() && add_rest ? c.lists * (c.width * 2 + 4) : 0;
    CHECK(got.touched == c.heads * c.t * (rows * (c.d + c.width) + rest), what + " touched");
}

}  // namespace

TEST(chosen_rows_and_summaries_attend_like_plain_loops) {
    Random random(21);
    for (const DType dtype : {DType::f32, DType::bf16, DType::fp16})
        for (const int64_t group : {1, 3, 5, 16})
            for (const int64_t d : {8, 24, 64})
                for (const bool summaries : {false, true}) {
                    const Case c(random, dtype, group, d, true, summaries);
                    for (const float softcap : {0.0f, 5.0f})
                        for (const bool add_rest : {false, true})
                            for (const bool beside : {false, true})
                                for (const std::string& isa : available_isas()) {
                                    const Floats static_lse =
                                        beside ? normals(random, c.heads * group * c.t, 3.0f) : Floats{};
                                    const int threads = 1 + random.below(3);
                                    const Got got = attended(c, 0.2f, softcap, static_lse, add_rest, isa, threads);
                                    compare(c, got, softcap, static_lse, add_rest, isa);
                                }
                }
}

TEST(values_of_another_size_than_keys_attend_like_plain_loops) {
    Random random(27);
    for (const DType dtype : {DType::f32, DType::bf16})
        for (const auto& [d, width] : {std::pair{64, 24}, {24, 136}, {576, 512}}) {
            const Case c(random, dtype, 3, d, true, true, width);
            for (const std::string& isa : available_isas())
                compare(c, attended(c, 0.2f, 5.0f, {}, true, isa, 2), 5.0f, {}, true, isa);
        }
}

TEST(where_nothing_is_seen_the_output_is_zero) {
    Random random(22);
    for (const bool summaries : {false, true}) {
        Case c(random, DType::f32, 3, 16, false, summaries);
        std::fill(c.left.begin(), c.left.end(), 0);
        std::fill(c.scores.begin(), c.scores.end(), 1e30f);  // of summaries with no member left: must not matter
        for (const float softcap : {0.0f, 5.0f}) {
            const Got got = attended(c, 0.2f, softcap, {}, true, "", 2);
            for (const float x : got.out) CHECK(x == 0.0f, "out");
            for (const float x : got.lse) CHECK(x == nothing, "lse");
            for (const float x : got.coverage) CHECK(x == 1.0f, "coverage");
            for (const float x : got.exact) CHECK(x == 0.0f, "exact");
        }
    }
}

TEST(huge_scores_give_numbers) {
    Random random(23);
    Case c(random, DType::f32, 3, 16, true, true);
    for (float& x : c.q) x = x < 0.0f ? -1e38f : 1e38f;
    for (float& x : c.keys.wide) x = x < 0.0f ? -1e15f : 1e15f;
    const Got got = attended(c, 1.0f, 0.0f, {}, true, "", 1);
    for (const float x : got.out) CHECK(std::isfinite(x), "out");
    for (const float x : got.mass) CHECK(std::isfinite(x), "mass");
    for (const float x : got.coverage) CHECK(x >= 0.0f && x <= 1.0f, "coverage");
    Floats infinite(at(c.heads * c.group * c.t), std::numeric_limits<float>::infinity());
    const Got beside = attended(c, 1e-30f, 0.0f, infinite, true, "", 1);
    for (const float x : beside.out) CHECK(std::isfinite(x), "out beside an infinite static part");
    for (const float x : beside.mass) CHECK(x == 0.0f, "mass beside an infinite static part");
}

TEST(many_rows_are_cut_into_tasks_with_the_same_result) {
    Random random(24);
    const int64_t n = 9000, d = 16;
    const Floats keys = normals(random, n * d), values = normals(random, n * d), q = normals(random, 2 * d);
    const RowStore store{keys.data(), values.data(), DType::f32, n, 0, nullptr};
    const std::vector<RowChoice> choices{{{{&store, nullptr, 5, n - 5}}, {}}};
    Floats first;
    for (const int threads : {1, 2, 7}) {
        Floats out(at(2 * d)), lse(2), coverage(2), exact(1);
        const Floats scaled = scaled_queries(q.data(), 2, 1, 0, d, 0.5f);
        RowCall a{};
        a.kernels = &kernels();
        a.heads = a.t = 1;
        a.group = 2;
        a.head_dim = a.value_dim = d;
        a.n_tokens = n;
        a.estimate_rest = true;
        a.n_threads = threads;
        a.out = out.data();
        a.lse = lse.data();
        a.coverage = coverage.data();
        a.exact_share = exact.data();
        attend_rows(a, scaled.data(), 0, choices);
        if (first.empty()) first = out;
        CHECK(distance(out, first) < 1e-5, std::to_string(threads));
    }
}

TEST(searching_rows_finds_the_largest_products_in_order) {
    Random random(25);
    const int64_t n = 2500, d = 24;
    Floats keys = normals(random, n * d);
    const Floats query = normals(random, d);
    for (int64_t j = 0; j < d; ++j) keys[at(900 * d + j)] = keys[at(40 * d + j)];  // equal scores
    std::vector<uint32_t> odd;
    for (uint32_t i = 1; i < 1000; i += 2) odd.push_back(i);
    const RowStore store{keys.data(), keys.data(), DType::f32, n, 100, nullptr};
    const std::vector<RowPick> picks{{&store, nullptr, 1000, n - 1000},
                                     {&store, odd.data(), 0, static_cast<int64_t>(odd.size())}};
    std::vector<std::pair<float, int64_t>> want;
    for (int64_t i = 0; i < n; ++i) {
        if (i < 1000 && i % 2 == 0) continue;
        float s = 0.0f;
        for (int64_t j = 0; j < d; ++j) s += query[at(j)] * keys[at(i * d + j)];
        want.emplace_back(-s, 100 + i);
    }
    std::sort(want.begin(), want.end());
    for (const std::string& isa : available_isas())
        for (const int64_t k : {int64_t{1}, int64_t{50}, static_cast<int64_t>(want.size())}) {
            Floats scores(at(k));
            std::vector<int64_t> tokens(at(k));
            search_rows(kernels(isa), query.data(), d, picks, k, scores.data(), tokens.data());
            int64_t same = 0;
            for (int64_t i = 0; i < k; ++i) {
                CHECK(std::abs(scores[at(i)] + want[at(i)].first) < 1e-3f, isa);
                same += tokens[at(i)] == want[at(i)].second;
            }
            CHECK(same >= k - k / 100 - 2, isa + " " + std::to_string(same));  // rounding may swap neighbours
        }
}

TEST(weights_add_up_however_large_the_scores) {
    // A logarithm of 1e8 in float32 has no room for that of a sum of a few weights.
    const int64_t n = 600, d = 8;
    const Floats keys(at(n * d), 1.0f), q{1e7f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}, means(at(d), 1.0f);
    const Floats values(at(n * d), 3.0f);
    const RowStore store{keys.data(), values.data(), DType::f32, n, 0, nullptr};
    for (const float score : {1e7f, 2e7f, 0.0f})  // of the summary: like the picks, far above and far below them
        for (const bool rest : {true, false}) {
            const Floats scaled = scaled_queries(q.data(), 1, 1, 0, d, 1.0f);
            Floats scores(at(padded(1)), 0.0f);
            scores[0] = score * 1.44269504f;
            const std::vector<int32_t> left{2};
            const std::vector<RowChoice> choices{
                {{{&store, nullptr, 0, n}}, {{1, scores.data(), means.data(), DType::f32, left.data()}}}};
            Floats out(at(d)), lse(1), coverage(1), exact(1);
            RowCall a{};
            a.kernels = &kernels();
            a.heads = a.group = a.t = 1;
            a.head_dim = a.value_dim = d;
            a.n_tokens = n + 2;
            a.estimate_rest = rest;
            a.n_threads = 1;
            a.out = out.data();
            a.lse = lse.data();
            a.coverage = coverage.data();
            a.exact_share = exact.data();
            attend_rows(a, scaled.data(), 0, choices);
            const float want = !rest || score == 0.0f ? 3.0f : score == 2e7f ? 1.0f : (600.0f * 3.0f + 2.0f) / 602.0f;
            for (const float x : out)
                CHECK(std::abs(x - want) < 1e-3f, std::to_string(score) + " " + std::to_string(x));
            CHECK(std::abs(coverage[0] - (score == 2e7f   ? 0.0f
                                          : score == 0.0f ? 1.0f
                                                          : 600.0f / 602.0f)) < 1e-3f,
                  std::to_string(coverage[0]));
        }
}
