// The `ivf` index: the k-means kernel against plain loops, whole segments sealed, attended and searched on every
// instruction set. Buffers are exactly as long as they must be, so that a sanitizer sees any access beyond them.
#include <algorithm>
#include <limits>

#include "index/ivf/ivf.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

struct Sealed {
    IvfSegment s{};
    Floats keys, values, key_rows, value_rows, mean;
    std::vector<int32_t> order, start;
    std::vector<uint16_t> centroid, mean_value, spread;

    Sealed(const Floats& k, const Floats& v, int64_t heads, int64_t n, int64_t d, int64_t lists, int threads,
           const std::string& isa = "")
        : keys(k), values(v), key_rows(k.size()), value_rows(v.size()) {
        mean.resize(at(heads * d));
        order.resize(at(heads * n));
        start.resize(at(heads * (lists + 1)));
        centroid.resize(at(heads * lists * d));
        const int64_t width = static_cast<int64_t>(v.size()) / (heads * n);  // of values
        mean_value.resize(at(heads * lists * width));
        spread.resize(at(heads * d * d));
        s = {heads,
             n,
             lists,
             d,
             width,
             DType::f32,
             key_rows.data(),
             value_rows.data(),
             order.data(),
             start.data(),
             mean.data(),
             centroid.data(),
             mean_value.data(),
             spread.data()};
        seal_ivf({&kernels(isa), keys.data(), values.data(), nullptr, 5, threads}, s);
    }
};

struct Step {
    Floats out, lse, coverage, exact, mass;
    int64_t touched = 0;

    Step(const std::vector<const IvfSegment*>& segments, const Floats& q, int64_t group, int64_t t, int64_t probes,
         int64_t budget, bool rest, float softcap, const std::string& isa, int threads) {
        const IvfSegment& s = *segments.front();
        int64_t n = 0;
        for (const IvfSegment* each : segments) n += each->n;
        const int64_t rows = s.heads * group * t;
        out.resize(at(rows * s.value_dim));
        lse.resize(at(rows));
        coverage.resize(at(rows));
        exact.resize(at(s.heads * t));
        mass.assign(at(s.heads * n), 0.0f);
        IvfAttend a{};
        a.kernels = &kernels(isa);
        a.segments = segments;
        a.q = q.data();
        a.heads = s.heads;
        a.group = group;
        a.t = t;
        a.head_dim = s.head_dim;
        a.value_dim = s.value_dim;
        a.n_tokens = n;
        a.scaling = 0.3f;
        a.softcap = softcap;
        a.probes = probes;
        a.budget = budget;
        a.estimate_rest = rest;
        a.n_threads = threads;
        a.out = out.data();
        a.lse = lse.data();
        a.coverage = coverage.data();
        a.exact_share = exact.data();
        a.mass = mass.data();
        a.mass_stride = n;
        attend_ivf(a);
        touched = a.touched_bytes;
    }
};

// Keys around a few centres.
Floats gathered(Random& random, int64_t heads, int64_t n, int64_t d) {
    const Floats centres = normals(random, 6 * d, 2.0f);
    Floats x = normals(random, heads * n * d, 0.5f);
    for (int64_t i = 0; i < heads * n; ++i) {
        const int64_t c = random.below(6);
        for (int64_t j = 0; j < d; ++j) x[at(i * d + j)] += centres[at(c * d + j)] + 3.0f;
    }
    return x;
}

}  // namespace

TEST(nearest_finds_the_first_of_the_nearest_centroids) {
    Random random(31);
    for (const int64_t d : {8, 24, 64})
        for (const int64_t lists : {1, 5, 64, 130})
            for (const int64_t m : {1, 4, 7}) {
                const int64_t padded_lists = (lists + nearest_strip - 1) / nearest_strip * nearest_strip;
                Floats rows = normals(random, m * d), centroids = normals(random, lists * d),
                       columns(at(d * padded_lists), 0.0f);
                if (lists > 2)  // two equal ones
                    std::copy_n(centroids.begin(), d, centroids.begin() + static_cast<std::ptrdiff_t>((lists - 1) * d));
                Floats half(at(padded_lists), std::numeric_limits<float>::infinity());
                for (int64_t l = 0; l < lists; ++l) {
                    half[at(l)] = 0.0f;
                    for (int64_t j = 0; j < d; ++j) {
                        columns[at(j * padded_lists + l)] = centroids[at(l * d + j)];
                        half[at(l)] += 0.5f * centroids[at(l * d + j)] * centroids[at(l * d + j)];
                    }
                }
                // The first row is a centroid, of which there may be two.
                for (int64_t j = 0; j < d; ++j) rows[at(j)] = centroids[at(j)];
                for (const std::string& isa : available_isas()) {
                    std::vector<uint32_t> list(at(m), 77);
                    kernels(isa).nearest({rows.data(), m, d, columns.data(), half.data(), padded_lists, list.data()});
                    CHECK(list[0] == 0, isa);
                    for (int64_t i = 0; i < m; ++i) {
                        double best = 1e300, found = 0.0;
                        for (int64_t l = 0; l < lists; ++l) {
                            double far = 0.0;
                            for (int64_t j = 0; j < d; ++j) {
                                const double x = static_cast<double>(rows[at(i * d + j)]) -
                                                 static_cast<double>(centroids[at(l * d + j)]);
                                far += x * x;
                            }
                            best = std::min(best, far);
                            if (l == list[at(i)]) found = far;
                        }
                        CHECK(list[at(i)] < lists && found - best < 1e-4, isa + " " + std::to_string(found - best));
                    }
                    rows[0] = std::nanf("");
                    kernels(isa).nearest({rows.data(), m, d, columns.data(), half.data(), padded_lists, list.data()});
                    CHECK(list[0] == 0, isa + " not a number");
                    rows[0] = centroids[0];
                }
            }
}

TEST(a_segment_holds_every_row_once_in_the_list_it_is_near) {
    Random random(32);
    for (const int64_t n : {1, 2, 33, 700}) {
        const int64_t heads = 2, d = 24, lists = (n + 31) / 32;
        const Floats keys = gathered(random, heads, n, d), values = normals(random, heads * n * d);
        const Sealed one(keys, values, heads, n, d, lists, 1), many(keys, values, heads, n, d, lists, 3);
        CHECK(one.order == many.order && one.centroid == many.centroid && one.spread == many.spread,
              "threads change nothing");
        for (int64_t h = 0; h < heads; ++h) {
            std::vector<int32_t> rows(one.order.data() + h * n, one.order.data() + (h + 1) * n);
            for (int64_t r = 0; r < n; ++r)
                for (int64_t j = 0; j < d; ++j) {
                    const auto from = at((h * n + rows[at(r)]) * d + j), to = at((h * n + r) * d + j);
                    CHECK(one.key_rows[to] == keys[from] && one.value_rows[to] == values[from], "rows");
                }
            std::sort(rows.begin(), rows.end());
            for (int64_t r = 0; r < n; ++r) CHECK(rows[at(r)] == r, "order");
            const int32_t* start = one.start.data() + h * (lists + 1);
            CHECK(start[0] == 0 && start[lists] == n && std::is_sorted(start, start + lists + 1), "start");
            for (int64_t l = 0; l < lists; ++l)
                for (int64_t j = 0; j < d && start[l + 1] > start[l]; ++j) {
                    double key = 0.0, value = 0.0;
                    for (int64_t r = start[l]; r < start[l + 1]; ++r) {
                        key += static_cast<double>(one.key_rows[at((h * n + r) * d + j)]) / (start[l + 1] - start[l]);
                        value +=
                            static_cast<double>(one.value_rows[at((h * n + r) * d + j)]) / (start[l + 1] - start[l]);
                    }
                    const auto c = at((h * lists + l) * d + j);
                    const double mean =
                        static_cast<double>(one.mean[at(h * d + j)]) + static_cast<double>(from_bf16(one.centroid[c]));
                    CHECK(std::abs(mean - key) < 0.02 &&
                              std::abs(static_cast<double>(from_bf16(one.mean_value[c])) - value) < 0.02,
                          "means");
                }
        }
    }
}

TEST(a_segment_that_goes_on_from_another_keeps_its_lists) {
    Random random(36);
    const int64_t heads = 2, d = 16, n = 300, more = 40, lists = 10, new_lists = 2, all = n + more;
    const Floats keys = gathered(random, heads, n, d), values = normals(random, heads * n * d);
    const Sealed base(keys, values, heads, n, d, lists, 1);
    const Floats new_keys = gathered(random, heads, more, d), new_values = normals(random, heads * more * d);
    for (const std::string& isa : available_isas()) {
        Sealed grown(Floats(at(heads * all * d)), Floats(at(heads * all * d)), heads, all, d, lists + new_lists, 1,
                     isa);
        seal_ivf({&kernels(isa), new_keys.data(), new_values.data(), &base.s, 5, 2}, grown.s);
        for (int64_t h = 0; h < heads; ++h) {
            const int32_t *start = grown.start.data() + h * (lists + new_lists + 1),
                          *before = base.start.data() + h * (lists + 1);
            CHECK(start[lists + new_lists] == all, isa);
            std::vector<bool> seen(at(all), false);
            for (int64_t l = 0; l < lists + new_lists; ++l)
                for (int64_t r = start[l]; r < start[l + 1]; ++r) {
                    const int64_t token = grown.order[at(h * all + r)];
                    CHECK(token >= 0 && token < all && !seen[at(token)], isa + " every token once");
                    seen[at(token)] = true;
                    const bool old = l < lists && r - start[l] < before[l + 1] - before[l];
                    CHECK(old == (token < n), isa + " old keys stay in their list, first");
                    if (old) CHECK(token == base.order[at(h * n + before[l] + r - start[l])], isa);
                    const Floats& from = token < n ? keys : new_keys;
                    const Floats& from_values = token < n ? values : new_values;
                    const int64_t row = token < n ? h * n + token : h * more + token - n;
                    for (int64_t j = 0; j < d; ++j) {
                        CHECK(grown.key_rows[at((h * all + r) * d + j)] == from[at(row * d + j)], isa);
                        CHECK(grown.value_rows[at((h * all + r) * d + j)] == from_values[at(row * d + j)], isa);
                    }
                }
        }
    }
}

TEST(probing_every_list_is_exact_attention) {
    Random random(33);
    for (const auto& [d, width] : {std::pair{8, 8}, {64, 64}, {64, 24}, {24, 136}, {576, 512}})
        for (const int64_t group : {1, 3, 7, 16, 33}) {
            if (d == 576 && group != 3) continue;
            const int64_t heads = 2, t = 2, n = 300, more = 40;
            const Sealed a(gathered(random, heads, n, d), normals(random, heads * n * width), heads, n, d, 9, 2);
            const Sealed b(gathered(random, heads, more, d), normals(random, heads * more * width), heads, more, d, 40,
                           1);
            const Floats q = normals(random, heads * group * t * d, d == 576 ? 0.3f : 1.0f);
            for (const float softcap : {0.0f, 5.0f}) {
                Floats want(at(heads * group * t * width)), lse(at(heads * group * t));
                for (int64_t r = 0; r < heads * group * t; ++r) {
                    const int64_t h = r / (group * t);
                    double sum = 0.0;
                    std::vector<double> out(at(width), 0.0);
                    for (const Sealed* s : {&a, &b})
                        for (int64_t i = h * s->s.n; i < (h + 1) * s->s.n; ++i) {
                            float z = 0.0f;
                            for (int64_t j = 0; j < d; ++j) z += q[at(r * d + j)] * s->keys[at(i * d + j)];
                            const double w = std::exp(static_cast<double>(capped(z * 0.3f, softcap)));
                            sum += w;
                            for (int64_t j = 0; j < width; ++j)
                                out[at(j)] += w * static_cast<double>(s->values[at(i * width + j)]);
                        }
                    lse[at(r)] = static_cast<float>(std::log(sum));
                    for (int64_t j = 0; j < width; ++j) want[at(r * width + j)] = static_cast<float>(out[at(j)] / sum);
                }
                for (const std::string& isa : available_isas())
                    for (const bool by_budget : {false, true}) {
                        const int threads = 1 + random.below(3);
                        const Step all({&a.s, &b.s}, q, group, t, by_budget ? 0 : 1000, by_budget ? n + more : 0, true,
                                       softcap, isa, threads);
                        CHECK(distance(all.out, want) < 1e-3, isa + " " + std::to_string(distance(all.out, want)));
                        CHECK(distance(all.lse, lse) < 1e-3, isa + " lse");
                        CHECK(distance(all.coverage, Floats(all.coverage.size(), 1.0f)) < 1e-5, isa + " coverage");
                        CHECK(distance(all.exact, Floats(all.exact.size(), 1.0f)) < 1e-6, isa + " exact");
                        float mass = 0.0f;
                        for (const float x : all.mass) mass += x;
                        CHECK(std::abs(mass - static_cast<float>(heads * group * t)) < 1e-2f,
                              isa + " mass " + std::to_string(mass));
                    }
            }
        }
}

TEST(budget_and_probes_bound_what_is_attended) {
    Random random(34);
    const int64_t heads = 1, group = 2, d = 16, n = 2000, lists = 60;
    const Sealed a(gathered(random, heads, n, d), normals(random, n * d), heads, n, d, lists, 1);
    int32_t longest = 0;
    for (int64_t l = 0; l < lists; ++l) longest = std::max(longest, a.start[at(l + 1)] - a.start[at(l)]);
    const Floats q = normals(random, group * d);
    for (const std::string& isa : available_isas()) {
        float before = 0.0f;
        for (const int64_t budget : {1, 50, 400, 1999, 2000, 1 << 30}) {
            const Step s({&a.s}, q, group, 1, 0, budget, true, 0.0f, isa, 2);
            const float tokens = s.exact[0] * static_cast<float>(n), least = static_cast<float>(std::min(budget, n));
            const float most = static_cast<float>(group) * (least + static_cast<float>(longest));
            CHECK(tokens >= least - 0.5f && tokens <= most, isa + " " + std::to_string(tokens));
            CHECK(s.exact[0] >= before, isa);
            before = s.exact[0];
        }
        const Step one({&a.s}, q, group, 1, 1, 0, true, 0.0f, isa, 1),
            all({&a.s}, q, group, 1, lists, 0, true, 0.0f, isa, 1);
        CHECK(one.exact[0] * static_cast<float>(n) <= static_cast<float>(group * longest) && one.exact[0] > 0.0f, isa);
        CHECK(all.exact[0] == 1.0f, isa);
        const Step dropped({&a.s}, q, group, 1, 1, 0, false, 0.0f, isa, 1);
        CHECK(dropped.touched < one.touched && dropped.lse[0] < one.lse[0], isa);
        CHECK(distance(dropped.coverage, one.coverage) < 1e-6,
              isa + " coverage is the same, whether the rest is added or not");
    }
}

TEST(odd_numbers_in_a_segment_lead_nowhere_outside_the_arrays) {
    Random random(35);
    for (int round = 0; round < 30; ++round) {
        Sealed a(gathered(random, 2, 150, 16), normals(random, 2 * 150 * 16), 2, 150, 16, 20, 1);
        const auto damage = [&](auto& x) {
            for (int i = 0; i < 6; ++i) {
                auto* bytes = reinterpret_cast<uint8_t*>(x.data());
                bytes[random.next() % (x.size() * sizeof(x[0]))] = static_cast<uint8_t>(random.next());
            }
        };
        damage(a.key_rows), damage(a.value_rows), damage(a.mean), damage(a.centroid), damage(a.mean_value),
            damage(a.spread);
        Floats q = normals(random, 2 * 4 * 16);
        if (round % 3 == 1) q[5] = std::nanf("");
        if (round % 3 == 2) q[5] = std::numeric_limits<float>::infinity();
        for (const std::string& isa : available_isas()) {
            const Step s({&a.s}, q, 4, 1, 0, 30, true, round % 2 == 0 ? 0.0f : 5.0f, isa, 2);
            CHECK(s.touched > 0, isa);
            IvfAttend find{};
            find.kernels = &kernels(isa);
            find.segments = {&a.s};
            find.q = q.data();
            find.heads = 2;
            find.group = 4;
            find.t = 1;
            find.budget = 10;
            find.n_threads = 1;
            Floats scores(at(8 * 150));
            std::vector<int64_t> tokens(scores.size());
            search_ivf(find, 150, scores.data(), tokens.data());
            for (const int64_t token : tokens) CHECK(token >= 0 && token < 150, isa);
        }
    }
    // Keys that are not numbers at all still end up in some list.
    const Floats bad(at(50 * 8), std::nanf(""));
    const Sealed s(bad, bad, 1, 50, 8, 3, 1);
    CHECK(s.start[3] == 50, "not a number");
}
