// Packs both factors of a product (layouts: product_args.hpp). AVX-512 with BF16.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/product_args.hpp"
#include "kernels/product_unpack.hpp"
#include "kernels/simd.hpp"

namespace sakuin {

struct ProductPacking {
    static void to_bf16(const float* from, int64_t n, uint16_t* to) {
        unpack::f32(reinterpret_cast<const uint8_t*>(from), n, to);
    }

    static void unpack_row(const WeightFormat& format, const char* from, int64_t n, uint16_t* to) {
        if (const unpack::Function fn = unpack::function_of(format.type)) {
            fn(reinterpret_cast<const uint8_t*>(from), n, to);
            return;
        }
        float wide[stretch];
        const int64_t part = stretch / format.block * format.block;
        for (int64_t i = 0; i < n; i += part) {
            const int64_t some = std::min(part, n - i);
            format.to_float(from + i / format.block * format.block_bytes, wide, some);
            to_bf16(wide, some, to + i);
        }
    }

    // Four rows at a time: what is written lies together, and what is read is fetched ahead by the CPU itself.
    static void inputs(const ProductInputs& p) {
        const int64_t steps = product_steps(p.depth), whole = p.depth / 32;
        for (int r = 0; r < product_block; r += 4) {
            const float* const* const rows = p.rows + r;
            uint16_t* const to = p.to + r / 16 * product_unit + r % 16 * 32;
            if (rows[0] != nullptr && rows[1] != nullptr && rows[2] != nullptr && rows[3] != nullptr)
                for (int64_t i = 0; i < whole; ++i)
                    for (int j = 0; j < 4; ++j) step_of(rows[j] + i * 32, to + i * 2 * product_unit + j * 32);
            else
                for (int j = 0; j < 4; ++j) row_of(rows[j], whole, to + j * 32);
            if (steps > whole)
                for (int j = 0; j < 4; ++j) rest_of(rows[j], p.depth, to + whole * 2 * product_unit + j * 32);
        }
    }

    static void weights(const ProductWeights& p) {
        alignas(64) uint16_t rows[16][stretch];
        for (int half = 0; half < 2; ++half)
            for (int64_t k = 0; k < p.depth; k += stretch) {
                const int64_t n = std::min<int64_t>(stretch, p.depth - k), steps = product_steps(n);
                const int64_t offset = k / p.format->block * p.format->block_bytes;
                for (int r = 0; r < 16; ++r) {
                    const int64_t row = half * 16 + r;
                    if (n % 32 != 0 || row >= p.n) std::memset(rows[r], 0, static_cast<size_t>(steps) * 64);
                    if (row < p.n) unpack_row(*p.format, p.data + row * p.row_bytes + offset, n, rows[r]);
                }
                for (int64_t i = 0; i < steps; ++i)
                    turn(rows[0] + i * 32, p.to + ((k / 32 + i) * 2 + half) * product_unit);
            }
    }

private:
    static void step_of(const float* x, uint16_t* to) { unpack::put(to, _mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)); }
    static void row_of(const float* row, int64_t steps, uint16_t* to) {
        for (int64_t i = 0; i < steps; ++i, to += 2 * product_unit)
            if (row != nullptr)
                step_of(row + i * 32, to);
            else
                std::memset(to, 0, 64);
    }
    static void rest_of(const float* row, int64_t depth, uint16_t* to) {
        std::memset(to, 0, 64);
        if (row != nullptr) to_bf16(row + depth / 32 * 32, depth % 32, to);
    }

    static constexpr int64_t stretch = 256;  // numbers of a row at a time: whole blocks of any type

    // 16 rows, `stretch` apart, of 16 pairs: transposed.
    static void turn(const uint16_t* from, uint16_t* to) {
        Avx512Bf16::U x[16];
        for (int r = 0; r < 16; ++r) x[r] = Avx512Bf16::load_u32(from + r * stretch);
        Avx512Bf16::transpose(x);
        for (int r = 0; r < 16; ++r) _mm512_storeu_si512(to + r * 32, reinterpret_cast<__m512i>(x[r]));
    }
};

}  // namespace sakuin
