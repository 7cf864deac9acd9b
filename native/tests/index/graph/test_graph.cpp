// The graph index against plain loops: every key is reached, walks find what exact search finds,
// graphs stay as they were.
#include <algorithm>
#include <numeric>
#include <set>
#include <stdexcept>

#include "index/graph/answers.hpp"
#include "index/graph/graph.hpp"
#include "index/graph/walk.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

constexpr int64_t heads = 2, group = 3, d = 24;

struct Case {
    Floats keys, queries;
    std::vector<int16_t> coordinates;
    int64_t n, m;
};

int16_t coordinate(float x) { return static_cast<int16_t>(std::clamp(x * 1000.0f, -8191.0f, 8191.0f)); }

// Coordinates are the keys' own first numbers, which are not all of an inner product, as with real keys.
Case made(int64_t n, int64_t m, uint64_t seed) {
    Random random(seed);
    Case c{normals(random, heads * n * d), normals(random, heads * m * d), {}, n, m};
    for (int64_t i = 0; i < heads * n; ++i)
        for (int64_t j = 0; j < graph_coordinates; ++j) c.coordinates.push_back(coordinate(c.keys[at(i * d + j)]));
    return c;
}

Graph empty(int degree = 8) {
    Graph g{d, 0, {}};
    g.heads.resize(at(heads));
    for (GraphLinks& h : g.heads) h.degree = degree;
    return g;
}

// Links the first n of the case's keys.
Graph grown(const Graph& g, const Case& c, int64_t n, int threads = 2, bool queries = true, const std::string& isa = "",
            bool renew = false) {
    return graph_append(g, {{c.keys.data(), DType::f32, n, c.n * d},
                            c.coordinates.data(),
                            c.n * graph_coordinates,
                            c.queries.data(),
                            queries ? c.m : 0,
                            renew,
                            &kernels(isa),
                            threads});
}

bool same(const Graph& a, const Graph& b) {
    bool equal = a.n == b.n;
    for (size_t h = 0; h < a.heads.size(); ++h)
        equal = equal && a.heads[h].links == b.heads[h].links && a.heads[h].count == b.heads[h].count &&
                a.heads[h].children == b.heads[h].children && a.heads[h].entry == b.heads[h].entry;
    return equal;
}

// Every key is reached from key 0, by children alone; links are keys, none twice, none the key itself.
void check_sound(const Graph& g, const std::string& what) {
    for (const GraphLinks& links : g.heads) {
        bool sound = links.n() == g.n && (g.n == 0 || static_cast<int64_t>(links.entry) < g.n);
        std::vector<int> parents(at(g.n));
        for (int64_t i = 0; i < g.n && sound; ++i) {
            const std::set<uint32_t> row(links.row(i), links.row(i) + links.count[at(i)]);
            sound = links.count[at(i)] <= links.degree && links.children[at(i)] <= links.count[at(i)] &&
                    row.size() == links.count[at(i)] && row.count(static_cast<uint32_t>(i)) == 0 &&
                    (row.empty() || static_cast<int64_t>(*row.rbegin()) < g.n);
            for (int j = 0; j < links.children[at(i)] && sound; ++j) {
                sound = static_cast<int64_t>(links.row(i)[j]) > i;
                ++parents[at(links.row(i)[j])];
            }
        }
        for (int64_t i = 0; i < g.n; ++i) sound = sound && parents[at(i)] == (i > 0 ? 1 : 0);
        CHECK(sound, what);
    }
}

struct Found {
    Floats scores;
    std::vector<int64_t> ids, scanned, walked;
};

Found search(const Graph& g, const Case& c, const Floats& q, int64_t t, int64_t k, int64_t ef, int threads = 2,
             const std::string& isa = "") {
    const int64_t rows = heads * group * t;
    Found f{Floats(at(rows * k)), std::vector<int64_t>(at(rows * k)), std::vector<int64_t>(at(rows)),
            std::vector<int64_t>(at(rows))};
    graph_search(g, {{c.keys.data(), DType::f32, g.n, c.n * d},
                     q.data(),
                     group,
                     t,
                     k,
                     ef,
                     &kernels(isa),
                     threads,
                     f.scores.data(),
                     f.ids.data(),
                     f.scanned.data(),
                     f.walked.data()});
    return f;
}

std::vector<int64_t> exact(const Case& c, int64_t n, int64_t head, const float* q, int64_t k) {
    std::vector<std::pair<double, int64_t>> all;
    for (int64_t i = 0; i < n; ++i) {
        double z = 0.0;
        for (int64_t j = 0; j < d; ++j)
            z += static_cast<double>(q[j]) * static_cast<double>(c.keys[at((head * c.n + i) * d + j)]);
        all.emplace_back(-z, i);
    }
    std::sort(all.begin(), all.end());
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < k; ++i) ids.push_back(all[at(i)].second);
    return ids;
}

double recall(const Graph& g, const Case& c, const Floats& q, int64_t k, int64_t ef, const std::string& isa = "") {
    const Found f = search(g, c, q, 1, k, ef, 2, isa);
    int64_t hits = 0;
    for (int64_t r = 0; r < heads * group; ++r)
        for (const int64_t id : exact(c, g.n, r / group, q.data() + r * d, k))
            hits += std::count(f.ids.begin() + r * k, f.ids.begin() + (r + 1) * k, id) > 0 ? 1 : 0;
    return static_cast<double>(hits) / static_cast<double>(heads * group * k);
}

}  // namespace

TEST(ranks_are_in_the_order_of_scores_and_then_of_ids) {
    const float scores[] = {-__builtin_inff(), -1e30f, -1.0f, -0.0f, 0.0f, 1e-40f, 1.0f, 1e30f, __builtin_inff()};
    for (size_t i = 0; i + 1 < std::size(scores); ++i)
        CHECK(ranked(scores[i], 0) <= ranked(scores[i + 1], 0), std::to_string(i));
    CHECK(ranked(1.0f, 3) > ranked(1.0f, 4), "");
    CHECK(ranked(__builtin_nanf(""), 7) == ranked(-__builtin_inff(), 7), "");
    CHECK(id_of(ranked(2.5f, 4000000000u)) == 4000000000u && score_of(ranked(2.5f, 1)) == 2.5f &&
              score_of(ranked(-2.5f, 1)) == -2.5f,
          "");
    CHECK(nearness(3, 9) > nearness(4, 2) && distance_of(nearness(77, 5)) == 77 && id_of(nearness(77, 5)) == 5, "");
}

TEST(distances_of_the_farthest_coordinates_fit) {
    int16_t a[graph_coordinates], b[graph_coordinates];
    std::fill_n(a, graph_coordinates, static_cast<int16_t>(8191));
    std::fill_n(b, graph_coordinates, static_cast<int16_t>(-8191));
    CHECK(distance(a, b) == 16u * 16382u * 16382u && distance(a, a) == 0, "");
}

TEST(answers_are_the_keys_with_the_largest_inner_products) {
    for (const int64_t n : {1, 40, 1300}) {
        const Case c = made(n, 70, 5);
        const GraphAppend a{{c.keys.data(), DType::f32, n, n * d},
                            c.coordinates.data(),
                            n * graph_coordinates,
                            c.queries.data(),
                            c.m,
                            false,
                            &kernels(""),
                            2};
        for (int64_t h = 0; h < heads; ++h) {
            const Answers answers = answers_of(empty(), a, h);
            CHECK(answers.lists == 70 && answers.length == std::min<int64_t>(n, answers_kept), "");
            for (int64_t l = 0; l < answers.lists; l += 9) {
                const std::vector<int64_t> want = exact(c, n, h, c.queries.data() + (h * c.m + l) * d, answers.length);
                CHECK(std::equal(want.begin(), want.end(), answers.ids.begin() + l * answers.length),
                      std::to_string(l));
            }
        }
    }
}

TEST(queries_of_infinite_numbers_and_nan_have_answers_too) {
    Case c = made(300, 20, 6);
    for (size_t i = 0; i < c.queries.size(); i += 7) c.queries[i] = i % 2 == 0 ? __builtin_nanf("") : 3e38f;
    check_sound(grown(empty(), c, 300), "nan");
}

TEST(a_graph_is_sound_at_every_size_and_growth) {
    const Case c = made(1500, 60, 1);
    for (const int64_t n : {0, 1, 2, 3, 9, 511, 512, 513, 1500}) check_sound(grown(empty(), c, n), std::to_string(n));
    Graph g = empty(4);
    for (const int64_t n : {1, 2, 20, 20, 600, 1113, 1500}) {
        g = grown(g, c, n, 2, n % 2 == 0);
        check_sound(g, "grown to " + std::to_string(n));
    }
}

TEST(equal_keys_are_all_reached) {
    Case c = made(1200, 30, 2);
    std::fill(c.keys.begin(), c.keys.end(), 0.25f);
    std::fill(c.coordinates.begin(), c.coordinates.end(), static_cast<int16_t>(0));
    const Graph g = grown(empty(), c, c.n);
    check_sound(g, "equal");
    Random random(1);
    const Found f = search(g, c, normals(random, heads * group * d), 1, 1200, 1);
    std::vector<int64_t> all(1200);
    std::iota(all.begin(), all.end(), 0);
    CHECK(std::equal(all.begin(), all.end(), f.ids.begin()), "equal scores come in order of position");
}

TEST(walks_find_what_exact_search_finds_on_every_isa) {
    const Case c = made(3000, 200, 3);
    Random random(9);
    const Floats q = normals(random, heads * group * d);
    for (const std::string& isa : available_isas()) {
        const Graph g = grown(empty(16), c, c.n, 2, true, isa);
        const double few = recall(g, c, q, 20, 40, isa), more = recall(g, c, q, 20, 600, isa),
                     all = recall(g, c, q, 20, 3000, isa);
        CHECK(more > 0.9 && more >= few && all == 1.0,
              isa + " " + std::to_string(few) + " " + std::to_string(more) + " " + std::to_string(all));
    }
}

TEST(a_walk_says_what_it_scored_and_scores_little) {
    const Case c = made(3000, 200, 4);
    Random random(5);
    const Floats q = normals(random, heads * group * 2 * d);
    const Graph g = grown(empty(), c, c.n);
    const Found f = search(g, c, q, 2, 10, 50);
    for (size_t r = 0; r < f.scanned.size(); ++r)
        CHECK(f.scanned[r] >= 50 && f.scanned[r] < 1500 && f.walked[r] >= 50 && f.walked[r] <= f.scanned[r],
              std::to_string(f.scanned[r]));
    const Found all = search(g, c, q, 2, 10, 5000);
    for (size_t r = 0; r < f.scanned.size(); ++r) CHECK(all.scanned[r] == 3000 && all.walked[r] == 3000, "");
}

TEST(a_graph_does_not_depend_on_the_number_of_threads) {
    const Case c = made(1700, 90, 7);
    const Graph one = grown(grown(empty(), c, 900, 1), c, 1700, 1);
    for (const int threads : {2, 5})
        CHECK(same(one, grown(grown(empty(), c, 900, threads), c, 1700, threads)), std::to_string(threads));
    Random random(3);
    const Floats q = normals(random, heads * group * d);
    CHECK(search(one, c, q, 1, 9, 64, 1).ids == search(one, c, q, 1, 9, 64, 4).ids, "");
}

TEST(growing_and_cropping_leave_a_graph_as_it_was) {
    const Case c = made(1000, 50, 8);
    const Graph g = grown(empty(), c, 700), before = g;
    const Graph more = grown(g, c, 1000), less = graph_crop(more, 650), none = graph_crop(more, 0);
    CHECK(same(g, before), "");
    check_sound(more, "more");
    check_sound(less, "less");
    check_sound(none, "none");
    CHECK(less.n == 650 && none.n == 0 && same(graph_crop(more, 1000), more), "");
    check_sound(grown(less, c, 1000), "grown again");
    check_sound(grown(none, c, 1000), "from nothing");
    CHECK(g.nbytes() == heads * 700 * (8 * 4 + 2), std::to_string(g.nbytes()));
}

TEST(links_are_chosen_again_where_coordinates_changed) {
    Case c = made(2000, 0, 11);
    c.coordinates = made(2000, 0, 12).coordinates;
    const Graph wrong = grown(empty(), c, c.n);
    c.coordinates = made(2000, 0, 11).coordinates;
    const Graph kept = grown(wrong, c, c.n), renewed = grown(wrong, c, c.n, 2, true, "", true);
    check_sound(renewed, "renewed");
    CHECK(same(kept, wrong) && same(renewed, grown(wrong, c, c.n, 5, true, "", true)), "");
    const auto spread = [&](const Graph& g) {
        double sum = 0.0;
        for (int64_t i = 0; i < g.n; ++i)
            for (int j = 0; j < g.heads[0].count[at(i)]; ++j)
                sum += distance(c.coordinates.data() + i * graph_coordinates,
                                c.coordinates.data() + static_cast<int64_t>(g.heads[0].row(i)[j]) * graph_coordinates);
        return sum;
    };
    CHECK(spread(renewed) < 0.8 * spread(kept), std::to_string(spread(renewed) / spread(kept)));
}

TEST(sizes_that_contradict_each_other_are_refused) {
    const Case c = made(20, 5, 9);
    const Graph g = grown(empty(), c, 20);
    const auto refused = [](const auto& call) {
        try {
            call();
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    };
    Random random(2);
    const Floats q = normals(random, heads * group * d);
    CHECK(refused([&] { grown(g, c, 19); }), "");
    CHECK(refused([&] { graph_crop(g, 21); }), "");
    CHECK(refused([&] { graph_crop(g, -1); }), "");
    CHECK(refused([&] { search(g, c, q, 1, 21, 5); }), "");
    CHECK(refused([&] { search(g, c, q, 1, 0, 5); }), "");
}

TEST(attending_all_tokens_of_a_graph_needs_no_walk_and_fewer_are_among_them) {
    const Case c = made(500, 40, 10);
    const Graph g = grown(empty(), c, c.n);
    Random random(4);
    const int64_t runs = graph_runs(c.n), t = 2, rows = heads * group * t;
    const Floats q = normals(random, rows * d), values = normals(random, heads * c.n * d),
                 means = normals(random, heads * runs * d);
    const auto attend = [&](int64_t budget, bool rest, Floats& mass) {
        Floats out(at(rows * d)), lse(at(rows)), coverage(at(rows)), share(at(heads * t));
        mass.assign(at(heads * c.n), 0.0f);
        const GraphKeys keys{c.keys.data(), DType::f32, c.n, c.n * d}, v{values.data(), DType::f32, c.n, c.n * d};
        const RowCall call{&kernels(""), q.data(),    heads,   group, t, g.head_dim, g.head_dim, c.n,
                           0.2f,         0.0f,        nullptr, rest,  2, out.data(), lse.data(), coverage.data(),
                           share.data(), mass.data(), c.n,     0};
        GraphAttend a{call, keys, v, means.data(), means.data(), budget, 64};
        graph_attend(g, a);
        CHECK(a.touched_bytes > 0, "");
        const int64_t kept = std::count_if(mass.begin(), mass.end(), [](float m) { return m > 0.0f; });
        CHECK(kept <= heads * std::min(c.n, t * group * budget), "");
        const double total = std::accumulate(mass.begin(), mass.end(), 0.0), of = static_cast<double>(rows);
        CHECK(rest ? total < of : std::abs(total - of) < 1e-3, std::to_string(total));
        return lse;
    };
    Floats all, some, bare;
    const Floats whole = attend(500, false, all), part = attend(20, true, some), dropped = attend(20, false, bare);
    for (size_t r = 0; r < whole.size(); ++r) CHECK(dropped[r] < whole[r] && dropped[r] < part[r], std::to_string(r));
}
