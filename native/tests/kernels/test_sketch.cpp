// The kernels of `sketch` on every instruction set against scalar loops. Buffers are exactly as long as they must be, so that a
// sanitizer sees any access beyond them.
#include <limits>

#include "tests/check.hpp"
#include "index/sketch/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "tests/numbers.hpp"

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
    std::vector<uint16_t> floor, rate, plus;  // the quick form; empty where it is not used
    static constexpr uint16_t largest = 2047;

    Scores(Random& random, int g, int64_t keys, float cap) : group(g), n(keys), softcap(cap) {
        z.resize(at(lists_of(n) * list_size * group));
        for (uint16_t& v : z) v = static_cast<uint16_t>(random.next() % (largest + 1));
        for (int i = 0; i < g; ++i) {
            scale.push_back(i % 3 == 2 ? 1.0f / 4.0f : i % 3 == 1 ? 1.0f / 128.0f : 1.0f / 64.0f);
            bias.push_back(random.normal() * 3.0f);
        }
        scale.resize(at(padded(g)), 0.0f);
        bias.resize(at(padded(g)), 0.0f);
    }
    ScoreMap map() const {
        return {z.data(), scale.data(), bias.data(), group, softcap, floor.data(), rate.empty() ? nullptr : rate.data(), plus.data()};
    }
    // As the index chooses it, so that the largest number weighs about 1: every third head has scores too low for a float.
    void be_quick() {
        for (int g = 0; g < padded(group); ++g) {
            const int one = 127 * 128 - 7, whole = g < group ? static_cast<int>(scale[at(g)] * 128.0f) : 0;
            floor.push_back(static_cast<uint16_t>(whole > 0 ? std::max(largest - one / whole, 0) : 0));
            rate.push_back(static_cast<uint16_t>(whole));
            plus.push_back(static_cast<uint16_t>(whole > 0 ? one - (largest - floor.back()) * whole : 0));
        }
    }
    float top(int g) const { return static_cast<float>(largest) * scale[at(g)] + bias[at(g)]; }
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
    for (const int subs : {4, 16, 36, 48})
        for (const int group : {1, 2, 3, 4, 5, 7, 8, 9, 13, 16}) {
            const int64_t bytes = subs * 32 + 32;
            const std::vector<uint8_t> sketch = random_bytes(random, lists * bytes);
            const Floats p = normals(random, group * d), step = normals(random, subs * 2);
            std::vector<int16_t> coordinate;
            for (int s = 0; s < subs; ++s) {  // whole words of the one kind, of the other, and mixed
                coordinate.push_back(static_cast<int16_t>(random.below(d)));
                coordinate.push_back(static_cast<int16_t>(s > subs / 2 || random.below(4) == 0 ? random.below(d) : -1));
            }
            each_isa([&](const SketchKernels& k, const std::string& isa) {
                const std::string what = isa + " subs " + std::to_string(subs) + " group " + std::to_string(group);
                std::vector<uint32_t> masks(at(subs / 2)), words(at(subs / 2 * group));
                std::vector<int32_t> start(at(group));
                Floats scale(at(group)), bias = normals(random, group), variance(at(group), 1.0f);
                const Floats before = bias;
                k.prepare_scan({p.data(), coordinate.data(), step.data(), group, d, subs, masks.data(), words.data(), start.data(), scale.data(), bias.data(), variance.data()});
                std::vector<uint16_t> z(at(lists * list_size * group)), largest(at(group));
                k.scan({sketch.data(), lists, bytes, subs, group, masks.data(), words.data(), start.data(), z.data(), largest.data()});
                for (int g = 0; g < group; ++g) {
                    uint16_t most = 0;
                    double worst = 0.0, squares = 0.0, allowed = 0.0;
                    for (int64_t key = 0; key < lists * list_size; ++key) {
                        double want = static_cast<double>(before[at(g)]);
                        allowed = 0.0;
                        for (int s = 0; s < subs; ++s) {
                            const int64_t lane = key % 32 / 8 * 4 + key % 4;
                            const uint8_t both = sketch[at(key / 64 * bytes + (key % 64 / 32 * (subs / 4) + s / 4) * 64 + lane * 4 + s % 4)];
                            const int e = key % 8 < 4 ? both & 15 : both >> 4, second = coordinate[at(2 * s + 1)];
                            const auto part = [&](int j, int i, double c) {
                                return static_cast<double>(p[at(g * d + j)]) * static_cast<double>(step[at(2 * s + i)]) * c;
                            };
                            want += second < 0 ? part(coordinate[at(2 * s)], 0, e - 7.5)
                                               : part(coordinate[at(2 * s)], 0, (e & 3) - 1.5) + part(second, 1, (e >> 2) - 1.5);
                            allowed += second < 0 ? 7.5 : 3.0;
                        }
                        const uint16_t got = z[at((key / 32 * group + g) * 32 + key % 32)];
                        most = std::max(most, got);
                        const double off = static_cast<double>(got) * static_cast<double>(scale[at(g)]) + static_cast<double>(bias[at(g)]) - want;
                        worst = std::max(worst, std::abs(off));
                        squares += off * off;
                    }
                    CHECK(largest[at(g)] == most, what);
                    // Every factor is off by half a unit at most.
                    CHECK(worst < 0.51 * static_cast<double>(scale[at(g)]) * allowed, what + " " + std::to_string(worst));
                    // Codes are random here, so they lie further from the middle than a quantizer's: 0.083 of the range squared, not 0.04.
                    const double told = static_cast<double>(variance[at(g)] - 1.0f), true_mean = squares / static_cast<double>(lists * list_size);
                    CHECK(told > 0.2 * true_mean - 1e-6 && told < 2.0 * true_mean + 1e-6, what + " " + std::to_string(told / true_mean));
                }
            });
        }
}

TEST(queries_of_any_size_are_scanned) {
    const int subs = 4, d = 8;
    const std::vector<uint8_t> sketch(subs * 32 + 32, 0xf7);
    const std::vector<int16_t> coordinate{0, -1, 1, 2, 3, -1, 4, 4};
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float size : {0.0f, 1e-38f, 1e38f, infinity, -infinity, std::numeric_limits<float>::quiet_NaN()})
        each_isa([&](const SketchKernels& k, const std::string& isa) {
            const Floats p(at(d), size), step(at(subs * 2), 1.0f);
            std::vector<uint32_t> masks(2), words(2);
            std::vector<int32_t> start(1);
            Floats scale(1), bias(1, 0.0f), variance(1, 0.0f);
            k.prepare_scan({p.data(), coordinate.data(), step.data(), 1, d, subs, masks.data(), words.data(), start.data(), scale.data(), bias.data(), variance.data()});
            std::vector<uint16_t> z(64), largest(1);
            k.scan({sketch.data(), 1, subs * 32 + 32, subs, 1, masks.data(), words.data(), start.data(), z.data(), largest.data()});
            CHECK(start[0] >= 0 && start[0] < 65536, isa);
            if (size == 0.0f) CHECK(bias[0] == 0.0f && z[0] == 0 && z[4] == 0, isa);
        });
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
                            CHECK(std::abs(squared[at(g)] - squares[at(g)]) <= (quick ? 0.13f : 4e-3f) * squares[at(g)] + 1e-30f, isa + " squares");
                        double worst = 0.0;
                        for (size_t i = 0; i < sums.size(); ++i)
                            worst = std::max(worst, std::abs(static_cast<double>(sums[i]) - static_cast<double>(want[i])) / (static_cast<double>(want[i]) + 1e-30));
                        CHECK(worst < (quick ? 0.062 : 2e-3), isa + " n " + std::to_string(n) + " " + std::to_string(worst));
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
                    const int64_t stride = n + 32;
                    std::vector<uint32_t> index(at(stride)), begin(at(lists_of(n) + 1));
                    std::vector<uint16_t> rows(at((group + 1) * stride));
                    const auto reach_above = [&](float bar) {
                        return Reach{s.map(), sketch.data(), bytes, sigma.data(), lse.data(), bar, n, index.data(), begin.data(), rows.data(), stride, sketch.data(), 0};
                    };
                    const auto check = [&](int64_t found) {
                        CHECK(std::is_sorted(index.begin(), index.begin() + found), isa);
                        CHECK(begin.front() == 0 && begin.back() == static_cast<uint32_t>(found), isa);
                        for (int64_t l = 0; l < lists_of(n); ++l)
                            for (uint32_t i = begin[at(l)]; i < begin[at(l + 1)]; ++i) CHECK(index[i] / 64 == static_cast<uint32_t>(l), isa);
                        for (int64_t i = 0; i < found; ++i) {
                            const uint32_t key = index[at(i)];
                            const uint8_t both = sketch[at(key / 64 * bytes + 64 + key % 32)];
                            CHECK(rows[at(group * stride + i)] == (key % 64 < 32 ? both & 15 : both >> 4), isa);
                            for (int g = 0; g < group; ++g) CHECK(rows[at(g * stride + i)] == s.z[at((key / 32 * group + g) * 32 + key % 32)], isa);
                        }
                    };
                    const int64_t found = k.find_reach(reach_above(least));
                    check(found);
                    // Finding more and taking out what is too much comes to the same.
                    const std::vector<uint32_t> at_once(index.begin(), index.begin() + found);
                    const int64_t more = k.find_reach(reach_above(least / 8.0f)), kept = k.filter_reach(reach_above(least), more);
                    check(kept);
                    CHECK(kept == found && std::equal(at_once.begin(), at_once.end(), index.begin()), isa);
                    index.resize(at(found));
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
                    const int64_t stride = m + 16, row_stride = m + 32;
                    std::vector<uint16_t> rows(at((group + 1) * row_stride), 0);
                    for (int64_t i = 0; i < m; ++i) {
                        rows[at(group * row_stride + i)] = static_cast<uint16_t>(i * 7 % 16);
                        index.push_back(static_cast<uint32_t>(i * 5));
                        for (int g = 0; g < group; ++g) rows[at(g * row_stride + i)] = s.z[at((index.back() / 32 * group + g) * 32 + index.back() % 32)];
                    }
                    std::vector<uint32_t> begin;
                    for (int64_t l = 0; l <= lists_of(n); ++l) begin.push_back(static_cast<uint32_t>(std::min((l * 64 + 4) / 5, m)));
                    index.resize(at(stride));
                    // Factors are rounded: to 255 steps for codes of 2 and 4 bits.
                    Floats unit(at(group), 0.0f), off(at(m * width), 0.0f);
                    for (int g = 0; g < group; ++g)
                        for (int c = eights * 16; c < coded * 16; ++c)
                            if (const int16_t j = coordinate[at(c)]; j >= 0) unit[at(g)] = std::max(unit[at(g)], std::abs(projected[at(g * d + j)] * step[at(c)]) / 127.0f);
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
                                    if (const int16_t j = coordinate[at(c * 16 + l)]; j >= 0) {
                                        const float code = static_cast<float>(packed(row, bits, l)) - middle;
                                        x += projected[at(g * d + j)] * step[at(c * 16 + l)] * code;
                                        if (bits < 8) off[at(i * width + g)] += 0.51f * unit[at(g)] * std::abs(code);
                                    }
                                row += 2 * bits;
                            }
                            fresh[at(i * width + g)] = std::exp2(capped(x, cap) - lse[at(g)]);
                            most = std::max(most, fresh[at(i * width + g)] * share[at(g)]);
                        }
                        tier.push_back(rows[at(group * row_stride + i)] == 15 || most > exact_above ? 3 : most > coded_above ? 2 : 1);
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
                        Floats got(at(group * stride)), old(got.size()), best(at(stride)), in_list = lists_before, weights(at(m * width));
                        Floats left(at(width)), came(at(width));
                        std::vector<uint32_t> exact(at(m + 16)), by_code(at(m + 16));
                        Rescore r{s.map(), top.data(), index.data(), begin.data(), rows.data(), row_stride, m, lists_of(n),
                                  {codes.data(), bytes, eights, fours, twos, projected.data(), d, coordinate.data(), step.data()},
                                  lse.data(), fold.data(), share.data(), coded_above, exact_above, codes.data(), 0, got.data(), old.data(), best.data(), stride, in_list.data(),
                                  exact.data(), by_code.data(), weights.data(), 0, 0, left.data(), came.data()};
                        k.rescore(r);
                        std::vector<int> seen(at(m), 1);
                        for (int64_t i = 0; i < r.n_exact; ++i) seen[exact[at(i)] / 5] = 3;
                        for (int64_t i = 0; i < r.n_coded; ++i) {
                            seen[by_code[at(i)] / 5] = 2;
                            for (int g = 0; g < width; ++g) CHECK(weights[at(i * width + g)] == (g < group ? got[at(g * stride + by_code[at(i)] / 5)] : 0.0f), what);
                        }
                        for (int64_t i = 0; i < m; ++i)
                            for (int g = 0; g < group; ++g) {
                                const float want = fresh[at(i * width + g)], near = std::exp2(off[at(i * width + g)]) - 1.0f + 5e-3f;
                                CHECK(std::abs(got[at(g * stride + i)] - want) <= near * want + 1e-30f, what);
                            }
                        CHECK(seen == tier, what);
                        for (int g = 0; g < group; ++g) {
                            CHECK(std::abs(left[at(g)] - taken[at(g)]) <= (quick ? 0.1f : 0.01f) * taken[at(g)] + 1e-20f, what + " taken");
                            CHECK(std::abs(came[at(g)] - put[at(g)]) <= 0.03f * put[at(g)] + 1e-20f, what + " put");
                        }
                        CHECK(distance(in_list, lists) < (quick ? 1.0 : 0.05), what + " " + std::to_string(distance(in_list, lists)));
                    });
                }
}
