// 16-bit scores of a segment, for the tests of the kernels that take them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "index/sketch/sketch.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

namespace sakuin::testing {

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
        return {
            z.data(),   scale.data(), bias.data(), group, softcap, floor.data(), rate.empty() ? nullptr : rate.data(),
            plus.data()};
    }
    // As the index chooses it, so that the largest number weighs about 1:
    // every third head has scores too low for a float.
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

}  // namespace sakuin::testing
