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

    static void inputs(const ProductInputs& p) {
        const int64_t steps = product_steps(p.depth), whole = p.depth / 32;
        for (int r = 0; r < product_block; ++r) {
            uint16_t* const to = p.to + r / 16 * product_unit + r % 16 * 32;
            const float* const row = p.rows[r];
            if (row == nullptr) {
                for (int64_t i = 0; i < steps; ++i) std::memset(to + i * 2 * product_unit, 0, 64);
                continue;
            }
            for (int64_t i = 0; i < whole; ++i) {
                const float* const x = row + i * 32;
                unpack::put(to + i * 2 * product_unit, _mm512_loadu_ps(x), _mm512_loadu_ps(x + 16));
            }
            if (steps > whole) {
                std::memset(to + whole * 2 * product_unit, 0, 64);
                to_bf16(row + whole * 32, p.depth - whole * 32, to + whole * 2 * product_unit);
            }
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
