// Small things that the indexes count with. Internal to native/index.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace sakuin {

constexpr float log2e = 1.44269504f, ln2 = 0.693147181f;
constexpr float nothing = -std::numeric_limits<float>::infinity();
constexpr float most_score = 1e38f;  // where scores saturate: differences of two are still numbers

inline size_t at(int64_t i) { return static_cast<size_t>(i); }

template <class T>
const T* of_head(const T* p, int64_t head, int64_t per_head) {
    return p + head * per_head;
}

// log2(2^a + 2^b). A number that is none shows in the result.
inline float log2_add(float a, float b) {
    if (std::isnan(a) || std::isnan(b)) return a + b;
    const float most = std::max(a, b);
    return std::isinf(most) ? most : most + std::log2(std::exp2(a - most) + std::exp2(b - most));
}

inline uint16_t to_bf16(float x) {
    uint32_t bits = std::bit_cast<uint32_t>(x);
    // Rounded up it would be infinite.
    if ((bits & 0x7fffffffu) > 0x7f7f0000u) bits = (bits & 0x80000000u) | 0x7f7f0000u;
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
inline float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

}  // namespace sakuin
