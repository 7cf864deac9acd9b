// The kernels of `sketch` that scan, sum and weigh, on every instruction set against scalar loops. Buffers are exactly
// as long as they must be, so that a sanitizer sees any access beyond them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/scores.hpp"

using namespace sakuin;
using namespace sakuin::testing;

TEST(queries_are_projected_for_every_head_dim_and_group) {
    Random random(1);
    for (const int d : {8, 16, 24, 64, 72, 128, 256, 576})
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
                        const double x = q[at(g * d + j)] * q[at(j)],
                                     y = p[at(g * d + j)] * p[at(g * d + j)] * p[at(j)];
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
                k.prepare_scan({p.data(), coordinate.data(), step.data(), group, d, subs, masks.data(), words.data(),
                                start.data(), scale.data(), bias.data(), variance.data()});
                std::vector<uint16_t> z(at(lists * list_size * group)), largest(at(group));
                k.scan({sketch.data(), lists, bytes, subs, group, masks.data(), words.data(), start.data(), z.data(),
                        largest.data()});
                for (int g = 0; g < group; ++g) {
                    uint16_t most = 0;
                    double worst = 0.0, squares = 0.0, allowed = 0.0;
                    for (int64_t key = 0; key < lists * list_size; ++key) {
                        double want = static_cast<double>(before[at(g)]);
                        allowed = 0.0;
                        for (int s = 0; s < subs; ++s) {
                            const int64_t lane = key % 32 / 8 * 4 + key % 4;
                            const uint8_t both = sketch[at(
                                key / 64 * bytes + (key % 64 / 32 * (subs / 4) + s / 4) * 64 + lane * 4 + s % 4)];
                            const int e = key % 8 < 4 ? both & 15 : both >> 4, second = coordinate[at(2 * s + 1)];
                            const auto part = [&](int j, int i, double c) {
                                return static_cast<double>(p[at(g * d + j)]) *
                                       static_cast<double>(step[at(2 * s + i)]) * c;
                            };
                            want += second < 0 ? part(coordinate[at(2 * s)], 0, e - 7.5)
                                               : part(coordinate[at(2 * s)], 0, (e & 3) - 1.5) +
                                                     part(second, 1, (e >> 2) - 1.5);
                            allowed += second < 0 ? 7.5 : 3.0;
                        }
                        const uint16_t got = z[at((key / 32 * group + g) * 32 + key % 32)];
                        most = std::max(most, got);
                        const double off = static_cast<double>(got) * static_cast<double>(scale[at(g)]) +
                                           static_cast<double>(bias[at(g)]) - want;
                        worst = std::max(worst, std::abs(off));
                        squares += off * off;
                    }
                    CHECK(largest[at(g)] == most, what);
                    // Every factor is off by half a unit at most.
                    CHECK(worst < 0.51 * static_cast<double>(scale[at(g)]) * allowed,
                          what + " " + std::to_string(worst));
                    // Codes are random here, so they lie further from the middle than a quantizer's: 0.083 of the range
                    // squared, not 0.04.
                    const double told = static_cast<double>(variance[at(g)] - 1.0f),
                                 true_mean = squares / static_cast<double>(lists * list_size);
                    CHECK(told > 0.2 * true_mean - 1e-6 && told < 2.0 * true_mean + 1e-6,
                          what + " " + std::to_string(told / true_mean));
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
            k.prepare_scan({p.data(), coordinate.data(), step.data(), 1, d, subs, masks.data(), words.data(),
                            start.data(), scale.data(), bias.data(), variance.data()});
            std::vector<uint16_t> z(64), largest(1);
            k.scan({sketch.data(), 1, subs * 32 + 32, subs, 1, masks.data(), words.data(), start.data(), z.data(),
                    largest.data()});
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
                            CHECK(std::abs(squared[at(g)] - squares[at(g)]) <=
                                      (quick ? 0.13f : 4e-3f) * squares[at(g)] + 1e-30f,
                                  isa + " squares");
                        double worst = 0.0;
                        for (size_t i = 0; i < sums.size(); ++i)
                            worst =
                                std::max(worst, std::abs(static_cast<double>(sums[i]) - static_cast<double>(want[i])) /
                                                    (static_cast<double>(want[i]) + 1e-30));
                        CHECK(worst < (quick ? 0.062 : 2e-3),
                              isa + " n " + std::to_string(n) + " " + std::to_string(worst));
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
                    w.resize(x.size() + 16);  // the vector more that the kernel asks for
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
        Floats x{-1e9f,         -200.0f, 126.0f, 128.5f, 200.0f, 400.0f, 1e9f, std::numeric_limits<float>::infinity(),
                 std::nanf(""), 0.0f,    0.0f,   0.0f};
        x.resize(x.size() + 16);
        const Floats minus(4, 0.0f);
        k.weights(x.data(), 3, 4, 0.0f, minus.data());
        CHECK(x[0] == 0.0f && x[1] == 0.0f, isa);
        for (size_t i = 2; i < 8; ++i) CHECK(x[i] > 8e37f, isa + " " + std::to_string(i) + " " + std::to_string(x[i]));
        CHECK(std::isnan(x[8]), isa);
    });
}
