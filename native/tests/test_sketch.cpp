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
    std::vector<uint16_t> rate;  // the quick form, relative to a top of 0; empty where it is not used
    std::vector<int32_t> offset;

    Scores(Random& random, int g, int64_t keys, float cap) : group(g), n(keys), softcap(cap) {
        z.resize(at(lists_of(n) * list_size * group));
        for (uint16_t& v : z) v = static_cast<uint16_t>(random.next());
        for (int i = 0; i < g; ++i) {
            scale.push_back(0.0002f * (1.0f + random.unit()));
            bias.push_back(random.normal() * 3.0f);
        }
        scale.resize(at(padded(g)), 0.0f);
        bias.resize(at(padded(g)), 0.0f);
    }
    ScoreMap map() const {
        return {z.data(), scale.data(), bias.data(), group, softcap, rate.empty() ? nullptr : rate.data(), rate.empty() ? nullptr : offset.data()};
    }
    // As the index chooses it: rate and offset so that the largest number, 65535, weighs about 1.
    void be_quick() {
        for (int g = 0; g < padded(group); ++g) {
            rate.push_back(static_cast<uint16_t>(g < group ? scale[at(g)] * 128.0f * 65536.0f + 0.5f : 0.0f));
            offset.push_back(g < group ? 127 * 128 - 7 - static_cast<int32_t>((65535u * rate.back()) >> 16) : -(1 << 15));
        }
    }
    float top(int g) const { return 65535.0f * scale[at(g)] + bias[at(g)]; }
    float plain(int g, int64_t i) const {
        return static_cast<float>(z[at((i / 32 * group + g) * 32 + i % 32)]) * scale[at(g)] + bias[at(g)];
    }
};

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
                Floats dots(at(group)), variances(at(group));
                k.moments(q.data(), p.data(), q.data(), p.data(), group, d, dots.data(), variances.data());
                for (int g = 0; g < group; ++g) {
                    double dot = 0.0, variance = 0.0, size = 1e-3;
                    for (int j = 0; j < d; ++j) {
                        const double x = q[at(g * d + j)] * q[at(j)], y = p[at(g * d + j)] * p[at(g * d + j)] * p[at(j)];
                        dot += x;
                        variance += y;
                        size += std::abs(x) + std::abs(y);
                    }
                    CHECK(std::abs(dots[at(g)] - dot) + std::abs(variances[at(g)] - variance) < 1e-5 * size, isa);
                }
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
    for (const bool quick : {false, true})
        for (const float cap : {0.0f, 4.0f})
            for (const int group : {1, 3, 5, 8, 16})
                for (const int64_t n : {1, 15, 16, 31, 32, 33, 63, 64, 65, 100, 128, 200}) {
                    if (quick && cap > 0.0f) continue;
                    Scores s(random, group, n, cap);
                    if (quick) s.be_quick();
                    const int width = padded(group);
                    Floats top(at(width), 0.0f), want(at(lists_of(n) * width), 0.0f), squares(at(width), 0.0f);
                    for (int g = 0; g < group; ++g) {
                        top[at(g)] = capped(s.top(g), cap);
                        for (int64_t i = 0; i < n; ++i) {
                            const float w = std::exp2(capped(s.plain(g, i), cap) - top[at(g)]);
                            want[at(i / 64 * width + g)] += w;
                            squares[at(g)] += w * w;
                        }
                    }
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        Floats sums(want.size(), -1.0f), squared(at(width), -1.0f);
                        k.list_sums(s.map(), top.data(), n, sums.data(), squared.data());
                        for (int g = 0; g < width; ++g)
                            CHECK(std::abs(squared[at(g)] - squares[at(g)]) <= (quick ? 0.1f : 4e-3f) * squares[at(g)], isa + " squares");
                        double worst = 0.0;
                        for (size_t i = 0; i < sums.size(); ++i)
                            worst = std::max(worst, want[i] == 0.0f ? static_cast<double>(std::abs(sums[i])) : std::abs(static_cast<double>(sums[i] / want[i] - 1.0f)));
                        CHECK(worst < (quick ? 0.05 : 2e-3), isa + " n " + std::to_string(n) + " " + std::to_string(worst));
                    });
                }
}

TEST(keys_that_may_be_large_are_found_in_order) {
    Random random(4);
    for (const float cap : {0.0f, 9.0f})
        for (const int group : {1, 2, 7, 16})
            for (const int64_t n : {1, 31, 33, 64, 97, 1000}) {
                const Scores s(random, group, n, cap);
                const int width = padded(group);
                const int64_t bytes = 2 * 32 + 32;
                const std::vector<uint8_t> sketch = random_bytes(random, lists_of(n) * bytes);
                const Floats sigma(at(width), 1.5f), lse(at(width), 9.0f);
                const float least = 0.3f;
                std::vector<uint32_t> want;
                Floats reach(at(n), 0.0f);
                for (int64_t i = 0; i < n; ++i) {
                    const uint8_t both = sketch[at(i / 64 * bytes + 64 + i % 32)];
                    const int length = i % 64 < 32 ? both & 15 : both >> 4;
                    for (int g = 0; g < group; ++g)
                        reach[at(i)] = std::max(reach[at(i)], std::exp2(capped(s.plain(g, i) + sigma[at(g)] * static_cast<float>(length) / 4.0f, cap) - lse[at(g)]));
                    if (length == 15) reach[at(i)] = std::numeric_limits<float>::infinity();
                    if (reach[at(i)] > least) want.push_back(static_cast<uint32_t>(i));
                }
                each_isa([&](const SketchKernels& k, const std::string& isa) {
                    std::vector<uint32_t> index(at(n));
                    std::vector<uint16_t> rows(at(n * width));
                    std::vector<uint8_t> lengths(at(n));
                    const int64_t found = k.find_reach({s.map(), sketch.data(), bytes, sigma.data(), lse.data(), least, n, index.data(), rows.data(), lengths.data(), sketch.data(), 0});
                    index.resize(at(found));
                    CHECK(std::is_sorted(index.begin(), index.end()), isa);
                    for (size_t i = 0; i < index.size(); ++i) {
                        const uint8_t both = sketch[at(index[i] / 64 * bytes + 64 + index[i] % 32)];
                        CHECK(lengths[i] == (index[i] % 64 < 32 ? both & 15 : both >> 4), isa);
                        for (int g = 0; g < width; ++g)
                            CHECK(rows[i * at(width) + at(g)] == (g < group ? s.z[at((index[i] / 32 * group + g) * 32 + index[i] % 32)] : 0), isa);
                    }
                    std::vector<uint32_t> differ;
                    std::set_symmetric_difference(index.begin(), index.end(), want.begin(), want.end(), std::back_inserter(differ));
                    for (const uint32_t i : differ) CHECK(std::abs(reach[i] / least - 1.0f) < 2e-3f, isa + " key " + std::to_string(i));
                });
            }
}

TEST(weights_are_powers_of_two) {
    Random random(5);
    for (const float cap : {0.0f, 3.0f})
        for (const int group : {1, 4, 5, 11})
            for (const int64_t m : {0, 1, 7, 8, 17, 40}) {
                const int width = padded(group);
                const Floats x = normals(random, m * width, 5.0f), minus = normals(random, width);
                each_isa([&](const SketchKernels& k, const std::string& isa) {
                    Floats w = x;
                    w.resize(x.size() + 16);  // the room for a vector that the kernel asks for
                    k.weights(w.data(), m, group, cap, minus.data());
                    for (size_t i = 0; i < x.size(); ++i) {
                        const float want = std::exp2(capped(x[i], cap) - minus[i % at(width)]);
                        CHECK(std::abs(w[i] - want) <= 1e-3f * want, isa);
                    }
                });
            }
}

TEST(weights_beyond_all_bounds_are_large_and_not_nonsense) {
    each_isa([](const SketchKernels& k, const std::string& isa) {
        Floats x{-1e9f, -200.0f, 126.0f, 128.5f, 200.0f, 400.0f, 1e9f, std::numeric_limits<float>::infinity(), std::nanf(""), 0.0f, 0.0f, 0.0f};
        x.resize(x.size() + 16);
        const Floats minus(4, 0.0f);
        k.weights(x.data(), 3, 4, 0.0f, minus.data());
        CHECK(x[0] == 0.0f && x[1] == 0.0f, isa);
        for (size_t i = 2; i < 8; ++i) CHECK(x[i] > 8e37f, isa + " " + std::to_string(i) + " " + std::to_string(x[i]));
        CHECK(std::isnan(x[8]), isa);
    });
}

// Keys scored again from codes of 8, 4 and 2 bits, their lists corrected, and sorted by the largest share for any query head.
TEST(found_keys_are_scored_again_and_sorted) {
    Random random(6);
    const int64_t n = 200, m = 37;
    for (const bool quick : {false, true})
        for (const float cap : {0.0f, 30.0f})
            for (const int group : {1, 3, 4, 7, 8, 11})
                for (const int plan : {0, 1, 2, 3}) {
                    if (quick && cap > 0.0f) continue;
                    Scores s(random, group, n, cap);
                    if (quick) s.be_quick();
                    const int eights = plan % 2, fours = plan, twos = plan / 2, coded = eights + fours + twos, width = padded(group);
                    const int64_t bytes = std::max(eights * 16 + fours * 8 + twos * 4, 1);
                    const std::vector<uint8_t> codes = random_bytes(random, n * bytes);
                    // Numbers of a row stand for coordinates in any order; some for none.
                    const int d = std::max(coded * 16, 16);
                    const Floats projected = normals(random, group * d, 0.2f);
                    Floats step;
                    std::vector<int16_t> coordinate;
                    for (int c = 0; c < coded * 16; ++c) {
                        coordinate.push_back(static_cast<int16_t>(c % 13 == 5 ? -1 : (c * 7 + 3) % d));
                        step.push_back(0.01f + 0.0001f * static_cast<float>(c));
                    }
                    Floats top(at(width), 0.0f), lse(at(width), std::numeric_limits<float>::infinity()), fold(at(width), 0.0f), share(at(width), 0.0f);
                    for (int g = 0; g < group; ++g) {
                        top[at(g)] = capped(s.top(g), cap);
                        lse[at(g)] = top[at(g)] - 2.0f;
                        fold[at(g)] = 4.0f;
                        share[at(g)] = 0.5f;
                    }
                    std::vector<uint32_t> index;
                    std::vector<uint16_t> rows(at((m + 4) * width), 0);
                    for (int64_t i = 0; i < m; ++i) {
                        index.push_back(static_cast<uint32_t>(i * 5));
                        for (int g = 0; g < group; ++g) rows[at(i * width + g)] = s.z[at((index.back() / 32 * group + g) * 32 + index.back() % 32)];
                    }
                    const float coded_above = 0.02f, exact_above = 0.2f;
                    const Floats lists_before(at(lists_of(n) * width), 1000.0f);
                    Floats lists = lists_before, fresh(at(m * width), 0.0f);
                    std::vector<int> tier;
                    Floats taken(at(width), 0.0f), put(at(width), 0.0f);
                    for (int64_t i = 0; i < m; ++i) {
                        float most = 0.0f;
                        for (int g = 0; g < group; ++g) {
                            float x = s.plain(g, index[at(i)]);
                            const uint8_t* row = codes.data() + index[at(i)] * bytes;
                            for (int c = 0; c < coded; ++c) {
                                const int bits = c < eights ? 8 : c < eights + fours ? 4 : 2;
                                const float middle = 0.5f * static_cast<float>((1 << bits) - 1);
                                for (int l = 0; l < 16; ++l)
                                    if (const int16_t j = coordinate[at(c * 16 + l)]; j >= 0)
                                        x += projected[at(g * d + j)] * step[at(c * 16 + l)] * (static_cast<float>(packed(row, bits, l)) - middle);
                                row += 2 * bits;
                            }
                            fresh[at(i * width + g)] = std::exp2(capped(x, cap) - lse[at(g)]);
                            most = std::max(most, fresh[at(i * width + g)] * share[at(g)]);
                        }
                        tier.push_back(most > exact_above ? 3 : most > coded_above ? 2 : 1);
                        for (int g = 0; g < group; ++g) {
                            const float old = std::exp2(capped(s.plain(g, index[at(i)]), cap) - top[at(g)]) * fold[at(g)];
                            const float back = tier.back() == 1 ? fresh[at(i * width + g)] : 0.0f;
                            lists[at(index[at(i)] / 64 * width + g)] += back - old;
                            taken[at(g)] += old * old;
                            put[at(g)] += back * back;
                        }
                    }
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        const std::string what = isa + " group " + std::to_string(group) + " plan " + std::to_string(plan);
                        Floats got(at((m + 4) * width)), old(got.size()), in_list = lists_before, weights(got.size());
                        Floats left(at(width)), came(at(width));
                        std::vector<uint32_t> exact(at(m)), by_code(at(m));
                        Rescore r{s.map(), top.data(), index.data(), rows.data(), m,
                                  {codes.data(), bytes, eights, fours, twos, projected.data(), d, coordinate.data(), step.data()},
                                  lse.data(), fold.data(), share.data(), coded_above, exact_above, codes.data(), 0, got.data(), old.data(), in_list.data(),
                                  exact.data(), by_code.data(), weights.data(), 0, 0, left.data(), came.data()};
                        k.rescore(r);
                        std::vector<int> seen(at(m), 1);
                        for (int64_t i = 0; i < r.n_exact; ++i) seen[exact[at(i)] / 5] = 3;
                        for (int64_t i = 0; i < r.n_coded; ++i) {
                            seen[by_code[at(i)] / 5] = 2;
                            for (int g = 0; g < width; ++g) CHECK(weights[at(i * width + g)] == got[at(static_cast<int64_t>(by_code[at(i)] / 5) * width + g)], what);
                        }
                        for (size_t i = 0; i < at(m * width); ++i) CHECK(std::abs(got[i] - fresh[i]) <= 5e-3f * fresh[i] + 1e-30f, what);
                        CHECK(seen == tier, what);
                        for (int g = 0; g < group; ++g) {
                            CHECK(std::abs(left[at(g)] - taken[at(g)]) <= (quick ? 0.1f : 0.01f) * taken[at(g)] + 1e-20f, what + " taken");
                            CHECK(std::abs(came[at(g)] - put[at(g)]) <= 0.02f * put[at(g)] + 1e-20f, what + " put");
                        }
                        CHECK(distance(in_list, lists) < (quick ? 1.0 : 0.05), what + " " + std::to_string(distance(in_list, lists)));
                    });
                }
}
