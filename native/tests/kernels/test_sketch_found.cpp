// The kernels of `sketch` that find keys and score them again, on every instruction set against scalar loops. Buffers
// are exactly as long as they must be, so that a sanitizer sees any access beyond them.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "tests/kernels/scores.hpp"

using namespace sakuin;
using namespace sakuin::testing;

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
                        reach[at(i)] = std::max(
                            reach[at(i)],
                            std::exp2(capped(s.plain(g, i) + sigma[at(g)] * static_cast<float>(length) / 4.0f, cap) -
                                      lse[at(g)]));
                    if (length == 15) reach[at(i)] = std::numeric_limits<float>::infinity();
                    if (reach[at(i)] > least) want.push_back(static_cast<uint32_t>(i));
                }
                each_isa([&](const SketchKernels& k, const std::string& isa) {
                    const int64_t stride = n + 32;
                    std::vector<uint32_t> index(at(stride)), begin(at(lists_of(n) + 1));
                    std::vector<uint16_t> rows(at((group + 1) * stride));
                    const auto reach_above = [&](float bar) {
                        return Reach{s.map(),      sketch.data(), bytes,       sigma.data(), lse.data(),    bar, n,
                                     index.data(), begin.data(),  rows.data(), stride,       sketch.data(), 0};
                    };
                    const int64_t found = k.find_reach(reach_above(least));
                    CHECK(std::is_sorted(index.begin(), index.begin() + found), isa);
                    CHECK(begin.front() == 0 && begin.back() == static_cast<uint32_t>(found), isa);
                    for (int64_t l = 0; l < lists_of(n); ++l)
                        for (uint32_t i = begin[at(l)]; i < begin[at(l + 1)]; ++i)
                            CHECK(index[i] / 64 == static_cast<uint32_t>(l), isa);
                    for (int64_t i = 0; i < found; ++i) {
                        const uint32_t key = index[at(i)];
                        const uint8_t both = sketch[at(key / 64 * bytes + 64 + key % 32)];
                        CHECK(rows[at(group * stride + i)] == (key % 64 < 32 ? both & 15 : both >> 4), isa);
                        for (int g = 0; g < group; ++g)
                            CHECK(rows[at(g * stride + i)] == s.z[at((key / 32 * group + g) * 32 + key % 32)], isa);
                    }
                    index.resize(at(found));
                    std::vector<uint32_t> differ;
                    std::set_symmetric_difference(index.begin(), index.end(), want.begin(), want.end(),
                                                  std::back_inserter(differ));
                    for (const uint32_t i : differ)
                        CHECK(std::abs(reach[i] / least - 1.0f) < 2e-3f, isa + " key " + std::to_string(i));
                });
            }
}

// Keys scored again from codes of 8, 4 and 2 bits, their lists corrected,
// and sorted by the largest share for any query head.
TEST(found_keys_are_scored_again_and_sorted) {
    Random random(6);
    const int64_t n = 200, m = 37;
    for (const bool quick : {false, true})
        for (const float cap : {0.0f, 30.0f})
            for (const int group : {1, 3, 4, 7, 8, 11})
                for (const int plan : {0, 1, 2, 3, 4}) {
                    if (quick && cap > 0.0f) continue;
                    Scores s(random, group, n, cap);
                    if (quick) s.be_quick();
                    const int eights = plan == 4 ? 30 : plan % 2, fours = plan, twos = plan / 2,
                              coded = eights + fours + twos, width = padded(group);
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
                    Floats top(at(width), 0.0f), lse(at(width), std::numeric_limits<float>::infinity()),
                        fold(at(width), 0.0f), share(at(width), 0.0f);
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
                        for (int g = 0; g < group; ++g)
                            rows[at(g * row_stride + i)] =
                                s.z[at((index.back() / 32 * group + g) * 32 + index.back() % 32)];
                    }
                    std::vector<uint32_t> begin;
                    for (int64_t l = 0; l <= lists_of(n); ++l)
                        begin.push_back(static_cast<uint32_t>(std::min((l * 64 + 4) / 5, m)));
                    index.resize(at(stride));
                    // Factors are rounded: to 255 steps for codes of 2 and 4 bits.
                    Floats unit(at(group), 0.0f), off(at(m * width), 0.0f);
                    for (int g = 0; g < group; ++g)
                        for (int c = eights * 16; c < coded * 16; ++c)
                            if (const int16_t j = coordinate[at(c)]; j >= 0)
                                unit[at(g)] =
                                    std::max(unit[at(g)], std::abs(projected[at(g * d + j)] * step[at(c)]) / 127.0f);
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
                        tier.push_back(rows[at(group * row_stride + i)] == 15 || most > exact_above ? 3
                                       : most > coded_above                                         ? 2
                                                                                                    : 1);
                        for (int g = 0; g < group; ++g) {
                            const float old =
                                std::exp2(capped(s.plain(g, index[at(i)]), cap) - top[at(g)]) * fold[at(g)];
                            const float back = tier.back() == 1 ? fresh[at(i * width + g)] : 0.0f;
                            lists[at(index[at(i)] / 64 * width + g)] += back - old;
                            taken[at(g)] += old * old;
                            put[at(g)] += back * back;
                        }
                    }
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        const std::string what =
                            isa + " group " + std::to_string(group) + " plan " + std::to_string(plan);
                        Floats got(at(group * stride)), old(got.size()), best(at(stride)), in_list = lists_before,
                                                                                           weights(at(m * width));
                        Floats left(at(width)), came(at(width));
                        std::vector<uint32_t> exact(at(m + 16)), by_code(at(m + 16));
                        Rescore r{s.map(),
                                  top.data(),
                                  index.data(),
                                  begin.data(),
                                  rows.data(),
                                  row_stride,
                                  m,
                                  lists_of(n),
                                  {codes.data(), bytes, eights, fours, twos, projected.data(), d, coordinate.data(),
                                   step.data()},
                                  lse.data(),
                                  fold.data(),
                                  share.data(),
                                  coded_above,
                                  exact_above,
                                  codes.data(),
                                  0,
                                  got.data(),
                                  old.data(),
                                  best.data(),
                                  stride,
                                  in_list.data(),
                                  exact.data(),
                                  by_code.data(),
                                  weights.data(),
                                  0,
                                  0,
                                  left.data(),
                                  came.data()};
                        k.rescore(r);
                        std::vector<int> seen(at(m), 1);
                        for (int64_t i = 0; i < r.n_exact; ++i) seen[exact[at(i)] / 5] = 3;
                        for (int64_t i = 0; i < r.n_coded; ++i) {
                            seen[by_code[at(i)] / 5] = 2;
                            for (int g = 0; g < width; ++g)
                                CHECK(weights[at(i * width + g)] ==
                                          (g < group ? got[at(g * stride + by_code[at(i)] / 5)] : 0.0f),
                                      what);
                        }
                        for (int64_t i = 0; i < m; ++i)
                            for (int g = 0; g < group; ++g) {
                                const float want = fresh[at(i * width + g)],
                                            near = std::exp2(off[at(i * width + g)]) - 1.0f + 5e-3f;
                                CHECK(std::abs(got[at(g * stride + i)] - want) <= near * want + 1e-30f, what);
                            }
                        CHECK(seen == tier, what);
                        for (int g = 0; g < group; ++g) {
                            CHECK(
                                std::abs(left[at(g)] - taken[at(g)]) <= (quick ? 0.1f : 0.01f) * taken[at(g)] + 1e-20f,
                                what + " taken");
                            CHECK(std::abs(came[at(g)] - put[at(g)]) <= 0.03f * put[at(g)] + 1e-20f, what + " put");
                        }
                        CHECK(distance(in_list, lists) < (quick ? 1.0 : 0.05),
                              what + " " + std::to_string(distance(in_list, lists)));
                    });
                }
}
