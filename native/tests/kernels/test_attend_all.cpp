// Scoring all keys of a segment again from their codes and attending them by value codes, on every instruction set and
// by tiles, against scalar loops. Buffers are exactly as long as they must be, so that a sanitizer sees any access
// beyond them.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "kernels/attend_all_of.hpp"
#include "tests/kernels/scores.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

// A segment's value codes and residue lengths, and what attending leaves.
struct Values {
    int d;
    int64_t n, bytes;
    std::vector<uint8_t> codes, lengths;
    std::vector<uint16_t> params;
    Floats lse, share, total, squares, out;
    std::vector<uint32_t> exact;

    Values(Random& random, int group, int64_t keys, int head_dim)
        : d(head_dim), n(keys), bytes((head_dim + 15) / 16 * 8), codes(random_bytes(random, keys * bytes)),
          lengths(at(lists_of(keys) * 32)), lse(at(padded(group)), std::numeric_limits<float>::infinity()),
          share(at(padded(group)), 0.0f), total(at(padded(group)), -1.0f), squares(total), out(at(group * head_dim)) {
        for (uint8_t& x : lengths) x = static_cast<uint8_t>(random.below(15) | random.below(15) << 4);
        for (int64_t i = 7; i < n; i += 97) {
            uint8_t& both = lengths[at(i / 64 * 32 + i % 32)];
            both = static_cast<uint8_t>(both | (i % 64 < 32 ? 15 : 240));
        }
        for (int64_t i = 0; i < n; ++i) {
            params.push_back(bf16(random.normal()));
            params.push_back(bf16(0.01f + 0.01f * static_cast<float>(random.below(10))));
        }
        for (int g = 0; g < group; ++g) {
            lse[at(g)] = 14.0f + 0.5f * static_cast<float>(g);
            share[at(g)] = 0.05f * static_cast<float>(1 + g);
        }
    }
    int length(int64_t i) const {
        return i % 64 < 32 ? lengths[at(i / 64 * 32 + i % 32)] & 15 : lengths[at(i / 64 * 32 + i % 32)] >> 4;
    }
    float number(int64_t i, int j) const {
        const uint8_t* chunk = codes.data() + i * bytes + j / 16 * 8;
        return from_bf16(params[at(2 * i)]) +
               from_bf16(params[at(2 * i + 1)]) * static_cast<float>(packed(chunk, 4, j % 16));
    }

    AttendAll arguments(const Scores& s, float exact_above) {
        std::fill(out.begin(), out.end(), 2.0f);
        exact.assign(at(n + 16), 0);
        AttendAll a{};
        a.map = s.map();
        a.n = n;
        a.sketch = lengths.data();  // lists of nothing but lengths
        a.list_bytes = 32;
        a.lse = lse.data();
        a.share = share.data();
        a.exact_above = exact_above;
        a.value_codes = codes.data();
        a.value_params = params.data();
        a.value_bytes = bytes;
        a.value_dim = d;
        a.exact = exact.data();
        a.total = total.data();
        a.squares = squares.data();
        a.out = out.data();
        return a;
    }
};

}  // namespace

TEST(all_keys_are_scored_again_from_their_codes) {
    Random random(11);
    for (const int group : {1, 3, 7, 8, 9, 16})
        for (const int64_t n : {1, 15, 16, 33, 64, 97, 1000})
            for (const int plan : {0, 1, 2, 3, 4, 5, 6}) {
                // The last two are as long as rows get: the sums of one as large as they get, the other of all kinds.
                const int eights = plan == 4   ? 16
                                   : plan == 5 ? 36
                                   : plan == 6 ? 18
                                               : plan % 2,
                          fours = plan == 6  ? 12
                                  : plan > 3 ? 0
                                             : plan,
                          twos = plan == 6  ? 6
                                 : plan > 3 ? 0
                                            : plan / 2 * 3,
                          chunks = eights + fours + twos, d = std::max(chunks * 16, 16);
                const int64_t bytes = std::max(eights * 16 + fours * 8 + twos * 4, 1);
                const Scores s(random, group, n, 0.0f);
                std::vector<uint8_t> codes = random_bytes(random, n * bytes);
                Floats projected = normals(random, group * d, 0.2f);
                if (plan == 5) {
                    std::fill(codes.begin(), codes.end(), uint8_t{255});
                    std::fill(projected.begin(), projected.end(), 0.1f);
                }
                Floats step;
                std::vector<int16_t> coordinate;
                for (int c = 0; c < chunks * 16; ++c) {
                    coordinate.push_back(static_cast<int16_t>(c % 13 == 5 ? -1 : (c * 7 + 3) % d));
                    step.push_back(0.01f + 0.0001f * static_cast<float>(c));
                }
                Floats want(at(n * group)), near(at(group), 0.0f);
                for (int g = 0; g < group; ++g) {
                    float largest = 0.0f;
                    for (int c = 0; c < chunks * 16; ++c)
                        if (const int16_t j = coordinate[at(c)]; j >= 0)
                            largest = std::max(largest, std::abs(projected[at(g * d + j)] * step[at(c)]));
                    // Half a unit of the scores, and what rounding the factors to 16 bits may add.
                    near[at(g)] = 0.52f + 0.6f * largest / 32512.0f *
                                              static_cast<float>(16 * (eights * 255 + fours * 15 + twos * 3)) /
                                              s.scale[at(g)];
                    for (int64_t i = 0; i < n; ++i) {
                        double x = s.z[at((i / 32 * group + g) * 32 + i % 32)];
                        const uint8_t* chunk = codes.data() + i * bytes;
                        for (int c = 0; c < chunks; ++c) {
                            const int bits = c < eights ? 8 : c < eights + fours ? 4 : 2;
                            const float middle = 0.5f * static_cast<float>((1 << bits) - 1);
                            for (int l = 0; l < 16; ++l)
                                if (const int16_t j = coordinate[at(c * 16 + l)]; j >= 0)
                                    x += projected[at(g * d + j)] * step[at(c * 16 + l)] *
                                         (static_cast<float>(packed(chunk, bits, l)) - middle) / s.scale[at(g)];
                            chunk += 2 * bits;
                        }
                        want[at(i * group + g)] = static_cast<float>(std::clamp(x, 0.0, 65535.0));
                    }
                }
                each_isa([&](const SketchKernels& k, const std::string& isa) {
                    for (const bool fastest : {false, true}) {
                        std::vector<uint16_t> z = s.z;
                        const RescoreAll again{z.data(),
                                               s.scale.data(),
                                               group,
                                               n,
                                               {codes.data(), bytes, eights, fours, twos, projected.data(), d,
                                                coordinate.data(), step.data()}};
                        Values values(random, group, n, 16);
                        AttendAll a = values.arguments(s, 1e30f);
                        a.map.z = z.data();
                        a.codes = &again;
                        (fastest ? attend_all_of(k) : k.attend_all)(a);
                        const std::string what = isa + " group " + std::to_string(group) + " plan " +
                                                 std::to_string(plan) + " keys " + std::to_string(n);
                        for (int g = 0; g < group; ++g)
                            for (int64_t i = 0; i < lists_of(n) * list_size; ++i) {
                                const size_t key = at((i / 32 * group + g) * 32 + i % 32);
                                if (i >= n)
                                    CHECK(z[key] == s.z[key], what + " past the end");
                                else
                                    CHECK(std::abs(static_cast<float>(z[key]) - want[at(i * group + g)]) <= near[at(g)],
                                          what + " key " + std::to_string(i));
                            }
                    }
                });
            }
}

TEST(all_keys_are_attended_by_value_codes_but_the_largest) {
    Random random(12);
    for (const int group : {1, 4, 7, 8, 11, 16})
        for (const int64_t n : {1, 31, 33, 255, 256, 257, 700})
            for (const int d : {8, 16, 24, 40, 64, 120, 128, 256, 576})
                for (const float cap : {0.0f, 9.0f}) {
                    const Scores s(random, group, n, cap);
                    Values values(random, group, n, d);
                    for (int g = 0; g < group; ++g) values.lse[at(g)] = capped(s.top(g), cap) - 3.0f;
                    // Of a few keys the residue is past the scale.
                    const float above = n > 40 ? 1.5f / static_cast<float>(n) : 1e30f;
                    const int width = padded(group);
                    std::vector<uint32_t> exact;
                    Floats total(at(width), 0.0f), squares(total), out(at(group * d), 2.0f), size(at(group), 0.0f);
                    for (int64_t i = 0; i < n; ++i) {
                        float best = 0.0f;
                        Floats w;
                        for (int g = 0; g < group; ++g) {
                            w.push_back(std::exp2(capped(s.plain(g, i), cap) - values.lse[at(g)]));
                            best = std::max(best, w.back() * values.share[at(g)]);
                        }
                        if (best > above || values.length(i) == 15) {
                            exact.push_back(static_cast<uint32_t>(i));
                            continue;
                        }
                        for (int g = 0; g < group; ++g) {
                            total[at(g)] += w[at(g)];
                            squares[at(g)] += w[at(g)] * w[at(g)];
                            for (int j = 0; j < d; ++j) out[at(g * d + j)] += w[at(g)] * values.number(i, j);
                            size[at(g)] += w[at(g)] * 4.0f;
                        }
                    }
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        for (const bool fastest : {false, true}) {
                            AttendAll a = values.arguments(s, above);
                            (fastest ? attend_all_of(k) : k.attend_all)(a);
                            const std::string what = isa + " group " + std::to_string(group) + " d " +
                                                     std::to_string(d) + " keys " + std::to_string(n);
                            values.exact.resize(at(a.n_exact));
                            // At the bar rounding decides.
                            std::vector<uint32_t> differing;
                            std::set_symmetric_difference(exact.begin(), exact.end(), values.exact.begin(),
                                                          values.exact.end(), std::back_inserter(differing));
                            CHECK(differing.empty(), what + " exact keys " + std::to_string(differing.size()));
                            for (int g = 0; g < width; ++g) {
                                const float near = 2e-4f * total[at(g)] + 1e-30f;  // what floats cannot hold apart
                                CHECK(std::abs(values.total[at(g)] - total[at(g)]) <= near, what + " total");
                                CHECK(
                                    std::abs(values.squares[at(g)] - squares[at(g)]) <= 5e-4f * squares[at(g)] + 1e-30f,
                                    what + " squares");
                            }
                            for (int g = 0; g < group; ++g)
                                for (int j = 0; j < d; ++j)
                                    CHECK(std::abs(values.out[at(g * d + j)] - out[at(g * d + j)]) <=
                                              3e-4f * (1.0f + size[at(g)]),
                                          what + " out");
                        }
                    });
                }
}

TEST(damaged_scores_and_codes_do_no_harm) {
    Random random(13);
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    for (const float bad : {nan, inf, -inf, 3e38f}) {
        Scores s(random, 7, 300, 0.0f);
        Values values(random, 7, 300, 64);
        for (int i = 0; i < 40; ++i) values.params[at(random.below(600))] = bf16(bad);
        s.bias[2] = bad;
        s.scale[3] = bad;
        values.lse[4] = bad;
        each_isa([&](const SketchKernels& k, const std::string& isa) {
            for (const bool fastest : {false, true}) {
                AttendAll a = values.arguments(s, 0.01f);
                (fastest ? attend_all_of(k) : k.attend_all)(a);
                CHECK(a.n_exact >= 0 && a.n_exact <= 300, isa);
                for (int64_t i = 0; i < a.n_exact; ++i) CHECK(values.exact[at(i)] < 300, isa);
                for (int j = 0; j < 64; ++j) CHECK(std::isfinite(values.out[at(j)]) || !std::isfinite(bad), isa);
            }
        });
    }
}
