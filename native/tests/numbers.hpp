// What the tests share: random arrays, 16-bit floats, distances.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/dispatch.hpp"
#include "tests/check.hpp"

namespace sakuin::testing {

using Floats = std::vector<float>;

template <class Fn>
void each_isa(Fn&& fn) {
    for (const std::string& isa : available_isas()) fn(*kernels(isa).sketch, isa);
}

inline size_t at(int64_t i) { return static_cast<size_t>(i); }

inline Floats normals(Random& random, int64_t n, float scale = 1.0f) {
    Floats x(at(n));
    for (float& v : x) v = random.normal() * scale;
    return x;
}

// A number that bf16 and fp16 hold exactly, and its bits in the one and in the other.
inline float coarse(Random& random) { return static_cast<float>(random.below(31) - 15) / 8.0f; }
inline uint16_t bf16(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return static_cast<uint16_t>(u >> 16);
}
inline float from_bf16(uint16_t h) {
    const uint32_t u = static_cast<uint32_t>(h) << 16;
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}
inline uint16_t fp16(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    if (x == 0.0f) return static_cast<uint16_t>(u >> 16 & 0x8000u);
    const uint32_t exponent = (u >> 23 & 255u) - 112u;
    return static_cast<uint16_t>((u >> 16 & 0x8000u) | exponent << 10 | (u >> 13 & 1023u));
}

inline std::vector<uint8_t> random_bytes(Random& random, int64_t n) {
    std::vector<uint8_t> x(at(n));
    for (uint8_t& b : x) b = static_cast<uint8_t>(random.next());
    return x;
}

inline double distance(const Floats& a, const Floats& b) {
    double worst = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        worst = std::isnan(d) ? 1e9 : std::max(worst, d);
    }
    return worst;
}

inline float capped(float x, float cap) { return cap > 0.0f ? cap * std::tanh(x / cap) : x; }

// Number `l` of a chunk of 16 numbers, by the layout in docs/method.md.
inline int packed(const uint8_t* chunk, int bits, int l) {
    const int words = bits / 2, bit = bits * (l / words);
    return chunk[(l % words) * 4 + bit / 8] >> (bit % 8) & ((1 << bits) - 1);
}

}  // namespace sakuin::testing
