// Scalar quantizers and where bits go: what sealing a `sketch` segment decides for each coordinate.
// Numbers in, numbers out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/seal_args.hpp"

namespace sakuin {

// Uniform, symmetric about 0: code c of `bits` bits stands for (c - (2^bits - 1) / 2) * step. A step of 0 stands for 0.
struct Quantizer {
    int bits = 0;
    float step = 0.0f;

    float most() const { return static_cast<float>((1 << bits) - 1); }
    float inverse() const { return step > 0.0f ? 1.0f / step : 0.0f; }
};

float mean_square(const SealKernels&, std::span<const float> x);

// The quantizer of 2, 4 or 8 bits whose range leaves the least mean fourth power of the error. By squares, the best
// range cuts off the largest numbers, and these are the keys that queries look for.
Quantizer best_quantizer(const SealKernels&, std::span<const float> x, int bits);

// The codes of x, one byte each; x becomes what they leave.
std::vector<uint8_t> encode(const SealKernels&, const Quantizer& q, std::span<float> x);

// Bits (0, 2 or 4) per coordinate, 4 * subs in all, by reverse water-filling on the coordinates' energies.
std::vector<int> sketch_bits(std::span<const float> energy, int64_t subs);

// Chunks of 16 coordinates that get 8, 4 and 2 bits.
struct CodePlan {
    int eights = 0, fours = 0, twos = 0;
};

// The plan of at most `row_bytes` that leaves least error; `energy` sorted, the largest first, padded to whole chunks.
CodePlan plan_codes(std::span<const float> energy, int64_t row_bytes);

}  // namespace sakuin
