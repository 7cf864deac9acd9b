// The kernels of `sketch` on every instruction set against scalar loops. Buffers are exactly as long as they must be, so that a
// sanitizer sees any access beyond them.
#include <limits>

#include "check.hpp"
#include "index/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

// Scores as the scan leaves them, with their map.
struct Scores {
    int group;
    int64_t n;
    std::vector<uint16_t> z;
    Floats scale, bias;
    float softcap;

    Scores(Random& random, int g, int64_t keys, float cap) : group(g), n(keys), softcap(cap) {
        z.resize(at(lists_of(n) * list_size * group));
        for (uint16_t& v : z) v = static_cast<uint16_t>(random.next());
        for (int i = 0; i < g; ++i) {
            scale.push_back(0.0002f * (1.0f + random.unit()));
            bias.push_back(random.normal() * 3.0f);
        }
    }
    ScoreMap map() const { return {z.data(), scale.data(), bias.data(), group, softcap}; }
    float plain(int g, int64_t i) const {
        return static_cast<float>(z[at((i / 32 * group + g) * 32 + i % 32)]) * scale[at(g)] + bias[at(g)];
    }
};

// Number `l` of a chunk of 16 numbers, by the layout in docs/method.md.
int packed(const uint8_t* chunk, int bits, int l) {
    const int words = bits / 2, bit = bits * (l / words);
    return chunk[(l % words) * 4 + bit / 8] >> (bit % 8) & ((1 << bits) - 1);
}

}  // namespace

TEST(queries_are_projected_for_every_head_dim_and_group) {
    Random random(1);
    for (const int d : {8, 16, 24, 64, 72, 128, 256})
        for (int group = 1; group <= 16; ++group) {
            Floats q = normals(random, group * d), want(q.size(), 0.0f), basis(at(d * d));
            std::vector<uint16_t> half;
            for (float& b : basis) {
                b = coarse(random);
                half.push_back(fp16(b));
            }
            for (int g = 0; g < group; ++g)
                for (int i = 0; i < d; ++i)
                    for (int j = 0; j < d; ++j) want[at(g * d + j)] += q[at(g * d + i)] * basis[at(i * d + j)];
            each_isa([&](const SketchKernels& k, const std::string& isa) {
                Floats p(q.size(), 9.0f);
                k.project(q.data(), half.data(), group, d, p.data());
                CHECK(distance(p, want) < 1e-3, isa + " d " + std::to_string(d) + " group " + std::to_string(group));
            });
        }
}

TEST(the_scan_adds_what_every_sub_quantizer_says) {
    Random random(2);
    const int d = 40;
    const int64_t lists = 3;
    for (const int subs : {2, 4, 16, 34})
        for (const int group : {1, 2, 3, 4, 5, 7, 8, 9, 13, 16}) {
            const int64_t bytes = subs * 32 + 32;
            const std::vector<uint8_t> sketch = random_bytes(random, lists * bytes);
            const Floats p = normals(random, group * d), step = normals(random, subs * 2);
            std::vector<int16_t> coordinate;
            for (int s = 0; s < subs; ++s) {
                coordinate.push_back(static_cast<int16_t>(random.below(d)));
                coordinate.push_back(static_cast<int16_t>(random.below(3) == 0 ? random.below(d) : -1));
            }
            each_isa([&](const SketchKernels& k, const std::string& isa) {
                const std::string what = isa + " subs " + std::to_string(subs) + " group " + std::to_string(group);
                std::vector<std::byte> room(k.table_bytes * at(subs * group) + 64);
                void* tables = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(room.data()) + 63) & ~uintptr_t{63});
                Floats scale(at(group)), bias = normals(random, group);
                const Floats before = bias;
                k.make_tables({p.data(), coordinate.data(), step.data(), group, d, subs, tables, scale.data(), bias.data()});
                std::vector<uint16_t> z(at(lists * list_size * group)), largest(at(group));
                k.scan(sketch.data(), lists, bytes, subs, tables, group, z.data(), largest.data());
                double worst = 0.0;
                for (int g = 0; g < group; ++g) {
                    uint16_t most = 0;
                    for (int64_t key = 0; key < lists * list_size; ++key) {
                        double want = static_cast<double>(before[at(g)]);
                        for (int s = 0; s < subs; ++s) {
                            const uint8_t both = sketch[at(key / 64 * bytes + (key % 64 / 32 * (subs / 2) + s / 2) * 32 + key % 32)];
                            const int e = s % 2 == 0 ? both & 15 : both >> 4, second = coordinate[at(2 * s + 1)];
                            const auto part = [&](int j, int i, double c) {
                                return static_cast<double>(p[at(g * d + j)]) * static_cast<double>(step[at(2 * s + i)]) * c;
                            };
                            want += second < 0 ? part(coordinate[at(2 * s)], 0, e - 7.5)
                                               : part(coordinate[at(2 * s)], 0, (e & 3) - 1.5) + part(second, 1, (e >> 2) - 1.5);
                        }
                        const uint16_t got = z[at((key / 32 * group + g) * 32 + key % 32)];
                        most = std::max(most, got);
                        const double score = static_cast<double>(got) * static_cast<double>(scale[at(g)]) + static_cast<double>(bias[at(g)]);
                        worst = std::max(worst, std::abs(score - want) / (static_cast<double>(scale[at(g)]) * subs));
                    }
                    CHECK(largest[at(g)] == most, what);
                }
                CHECK(worst < 0.6, what + " " + std::to_string(worst));  // half a unit for each table's rounding
            });
        }
}

TEST(list_sums_take_in_the_first_n_keys_only) {
    Random random(3);
    for (const float cap : {0.0f, 4.0f})
        for (const int group : {1, 3, 16})
            for (const int64_t n : {1, 15, 16, 31, 32, 33, 63, 64, 65, 100, 128, 200}) {
                const Scores s(random, group, n, cap);
                Floats top(at(group), 10.0f), want(at(lists_of(n) * group), 0.0f);
                for (int g = 0; g < group; ++g)
                    for (int64_t i = 0; i < n; ++i) want[at(g * lists_of(n) + i / 64)] += std::exp2(capped(s.plain(g, i), cap) - top[at(g)]);
                each_isa([&](const SketchKernels& k, const std::string& isa) {
                    Floats sums(want.size(), -1.0f);
                    k.list_sums(s.map(), top.data(), n, sums.data());
                    double worst = 0.0;
                    for (size_t i = 0; i < sums.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(sums[i] / want[i] - 1.0f)));
                    CHECK(worst < 2e-3, isa + " n " + std::to_string(n) + " " + std::to_string(worst));
                });
            }
}

TEST(keys_that_may_be_large_are_found_in_order) {
    Random random(4);
    for (const float cap : {0.0f, 9.0f})
        for (const int group : {1, 2, 7, 16})
            for (const int64_t n : {1, 31, 33, 64, 97, 1000}) {
                const Scores s(random, group, n, cap);
                const int64_t bytes = 2 * 32 + 32;
                const std::vector<uint8_t> sketch = random_bytes(random, lists_of(n) * bytes);
                const Floats sigma(at(group), 1.5f), lse(at(group), 9.0f);
                const float least = 0.3f;
                std::vector<uint32_t> want;
                Floats reach(at(n));
                for (int64_t i = 0; i < n; ++i) {
                    const uint8_t both = sketch[at(i / 64 * bytes + 64 + i % 32)];
                    const int length = i % 64 < 32 ? both & 15 : both >> 4;
                    for (int g = 0; g < group; ++g)
                        reach[at(i)] += std::exp2(capped(s.plain(g, i) + sigma[at(g)] * static_cast<float>(length) / 4.0f, cap) - lse[at(g)]) / static_cast<float>(group);
                    if (length == 15) reach[at(i)] = std::numeric_limits<float>::infinity();
                    if (reach[at(i)] > least) want.push_back(static_cast<uint32_t>(i));
                }
                each_isa([&](const SketchKernels& k, const std::string& isa) {
                    std::vector<uint32_t> index(at(n));
                    Floats got(at(n));
                    const int64_t found = k.find_reach({s.map(), sketch.data(), bytes, sigma.data(), lse.data(), least, n, index.data(), got.data()});
                    index.resize(at(found));
                    CHECK(std::is_sorted(index.begin(), index.end()), isa);
                    double worst = 0.0;
                    for (size_t i = 0; i < index.size(); ++i) {
                        const float a = got[i], b = reach[index[i]];
                        worst = std::max(worst, a == b ? 0.0 : static_cast<double>(std::abs(a / b - 1.0f)));
                    }
                    CHECK(worst < 2e-3, isa + " reach " + std::to_string(worst));
                    std::vector<uint32_t> differ;
                    std::set_symmetric_difference(index.begin(), index.end(), want.begin(), want.end(), std::back_inserter(differ));
                    for (const uint32_t i : differ) CHECK(std::abs(reach[i] / least - 1.0f) < 2e-3f, isa + " key " + std::to_string(i));
                });
            }
}

TEST(scores_are_gathered_and_become_weights) {
    Random random(5);
    for (const float cap : {0.0f, 3.0f})
        for (const int64_t m : {0, 1, 7, 8, 17, 40}) {
            const Scores s(random, 5, 300, cap);
            std::vector<uint32_t> index;
            for (int64_t i = 0; i < m; ++i) index.push_back(static_cast<uint32_t>(random.below(300)));
            each_isa([&](const SketchKernels& k, const std::string& isa) {
                Floats scores(at(5 * m)), want(scores.size()), weights;
                k.gather_scores(s.map(), index.data(), m, m, scores.data());
                for (int g = 0; g < 5; ++g)
                    for (int64_t i = 0; i < m; ++i) want[at(g * m + i)] = s.plain(g, index[at(i)]);
                CHECK(distance(scores, want) < 1e-4, isa);
                k.weights(scores.data(), 5 * m, cap, 2.0f);
                for (float& w : want) w = std::exp2(capped(w, cap) - 2.0f);
                for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(scores[i] - want[i]) <= 1e-3f * want[i], isa);
            });
        }
}

TEST(weights_beyond_all_bounds_are_large_and_not_nonsense) {
    each_isa([](const SketchKernels& k, const std::string& isa) {
        Floats x{-1e9f, -200.0f, 126.0f, 128.5f, 200.0f, 400.0f, 1e9f, std::numeric_limits<float>::infinity(), std::nanf("")};
        k.weights(x.data(), static_cast<int64_t>(x.size()), 0.0f, 0.0f);
        CHECK(x[0] == 0.0f && x[1] == 0.0f, isa);
        for (size_t i = 2; i < 8; ++i) CHECK(x[i] > 8e37f, isa + " " + std::to_string(i) + " " + std::to_string(x[i]));
        CHECK(std::isnan(x[8]), isa);
    });
}

TEST(codes_of_8_4_and_2_bits_refine_scores) {
    Random random(6);
    const int64_t n = 30;
    for (const int eights : {0, 1, 2})
        for (const int fours : {0, 1, 3})
            for (const int twos : {0, 1, 2})
                for (const int group : {1, 3, 8, 11}) {
                    const int coded = eights + fours + twos;
                    const int64_t bytes = eights * 16 + fours * 8 + twos * 4;
                    const std::vector<uint8_t> codes = random_bytes(random, n * bytes);
                    const Floats p = normals(random, group * coded * 16), start = normals(random, group);
                    std::vector<uint32_t> index{0, 29, 3, 3, 17};
                    const int64_t m = 5;
                    const Floats before = normals(random, group * m);
                    Floats want = before;
                    for (int g = 0; g < group; ++g)
                        for (int64_t i = 0; i < m; ++i) {
                            const uint8_t* row = codes.data() + index[at(i)] * bytes;
                            want[at(g * m + i)] += start[at(g)];
                            for (int c = 0; c < coded; ++c) {
                                const int bits = c < eights ? 8 : c < eights + fours ? 4 : 2;
                                for (int l = 0; l < 16; ++l)
                                    want[at(g * m + i)] += p[at((g * coded + c) * 16 + l)] * static_cast<float>(packed(row, bits, l));
                                row += 2 * bits;
                            }
                        }
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        Floats scores = before;
                        k.add_codes({codes.data(), bytes, eights, fours, twos, p.data(), start.data()}, index.data(), m, m, group, scores.data());
                        CHECK(distance(scores, want) < 2e-2, isa + " " + std::to_string(distance(scores, want)));
                    });
                }
}

TEST(rows_of_every_dtype_are_scored_and_added) {
    Random random(7);
    const int64_t n = 40;
    const std::vector<uint32_t> index{39, 0, 7, 7, 12, 38};
    for (const DType t : {DType::f32, DType::bf16, DType::fp16})
        for (const int d : {8, 16, 24, 40, 64, 120, 256})
            for (const int group : {1, 2, 5, 8, 16})
                for (const bool gather : {true, false}) {
                    const int64_t m = gather ? 6 : n;
                    Floats rows;
                    std::vector<uint8_t> stored(at(n * d * dtype_size(t)));
                    for (int64_t i = 0; i < n * d; ++i) {
                        rows.push_back(coarse(random));
                        const uint16_t half = t == DType::bf16 ? bf16(rows.back()) : fp16(rows.back());
                        if (t == DType::f32)
                            std::memcpy(&stored[at(i * 4)], &rows.back(), 4);
                        else
                            std::memcpy(&stored[at(i * 2)], &half, 2);
                    }
                    const Floats q = normals(random, group * d), weights = normals(random, group * m);
                    Floats want(at(group * m), 0.0f), sum(at(group * d), 1.0f);
                    for (int g = 0; g < group; ++g)
                        for (int64_t i = 0; i < m; ++i)
                            for (int j = 0; j < d; ++j) {
                                const float x = rows[at((gather ? index[at(i)] : i) * d + j)];
                                want[at(g * m + i)] += q[at(g * d + j)] * x;
                                sum[at(g * d + j)] += weights[at(g * m + i)] * x;
                            }
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        const std::string what = isa + " d " + std::to_string(d) + " dtype " + std::to_string(static_cast<int>(t));
                        if (gather) {
                            Floats scores(want.size());
                            k.score_rows(q.data(), stored.data(), t, d, index.data(), m, m, group, scores.data());
                            CHECK(distance(scores, want) < 1e-3, what);
                        }
                        Floats out(sum.size(), 1.0f);
                        k.add_rows(stored.data(), t, d, gather ? index.data() : nullptr, m, weights.data(), m, group, out.data());
                        CHECK(distance(out, sum) < 1e-3, what);
                    });
                }
}

TEST(value_codes_are_added_for_every_head_dim) {
    Random random(8);
    const int64_t n = 20;
    for (const int d : {8, 16, 24, 64, 72, 256})
        for (const int group : {1, 3, 8, 16}) {
            const int64_t bytes = (d + 15) / 16 * 8, m = 7;
            const std::vector<uint8_t> codes = random_bytes(random, n * bytes);
            std::vector<uint16_t> params;
            for (int64_t i = 0; i < n * 2; ++i) params.push_back(bf16(coarse(random)));
            const std::vector<uint32_t> index{19, 0, 4, 4, 11, 2, 18};
            const Floats weights = normals(random, group * m);
            Floats want(at(group * d), 0.5f);
            for (int g = 0; g < group; ++g)
                for (int64_t i = 0; i < m; ++i)
                    for (int j = 0; j < d; ++j) {
                        const uint32_t k = index[at(i)];
                        const float code = static_cast<float>(packed(codes.data() + k * bytes + j / 16 * 8, 4, j % 16));
                        want[at(g * d + j)] += weights[at(g * m + i)] * (from_bf16(params[2 * k]) + code * from_bf16(params[2 * k + 1]));
                    }
            each_isa([&](const SketchKernels& k, const std::string& isa) {
                Floats out(want.size(), 0.5f);
                k.add_value_codes(codes.data(), bytes, params.data(), d, index.data(), m, weights.data(), m, group, out.data());
                CHECK(distance(out, want) < 2e-3, isa + " d " + std::to_string(d));
            });
        }
}
