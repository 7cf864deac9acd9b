// Packing, and products of packed blocks without tiles: 8 x 32 results in sixteen registers.
#include <algorithm>

#include "kernels/product_pack.hpp"

namespace sakuin {

void product_multiply_amx(const ProductRange& p);

namespace {

constexpr int group = 8;  // rows

__m512bh pair_of(const uint16_t* x) {
    uint32_t bits;
    std::memcpy(&bits, x, sizeof bits);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(bits)));
}

__m512bh pairs_of(const uint16_t* w) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(w)); }

// Rows of one half of a block.
void rows_of(const uint16_t* x, const uint16_t* w, int64_t steps, float (&result)[group][product_block]) {
    __m512 sums[group][2];
    for (auto& s : sums) s[0] = s[1] = _mm512_setzero_ps();
    for (int64_t i = 0; i < steps; ++i, x += 2 * product_unit, w += 2 * product_unit)
        for (int k = 0; k < 16; ++k) {
            const __m512bh first = pairs_of(w + k * 32), second = pairs_of(w + product_unit + k * 32);
#pragma GCC unroll 8
            for (int r = 0; r < group; ++r) {
                const __m512bh pair = pair_of(x + r * 32 + k * 2);
                sums[r][0] = _mm512_dpbf16_ps(sums[r][0], pair, first);
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], pair, second);
            }
        }
    for (int r = 0; r < group; ++r) {
        _mm512_storeu_ps(result[r], sums[r][0]);
        _mm512_storeu_ps(result[r] + 16, sums[r][1]);
    }
}

void multiply(const ProductRange& p) {
    const int64_t size = p.steps * 2 * product_unit;
    for (int64_t column = 0; column < p.n_columns; column += product_block)
        for (int64_t row = 0; row < p.n_rows; row += group) {
            alignas(64) float result[group][product_block];
            const int64_t in_block = row % product_block;
            rows_of(p.x + row / product_block * size + in_block / 16 * product_unit + in_block % 16 * 32,
                    p.weight + column / product_block * size, p.steps, result);
            const auto bytes = static_cast<size_t>(std::min<int64_t>(product_block, p.n_columns - column)) * 4;
            for (int64_t r = 0; r < group && row + r < p.n_rows; ++r) {
                float* const to = p.out_rows != nullptr ? p.out_rows[row + r] : p.out + (row + r) * p.stride;
                std::memcpy(to + column, result[r], bytes);
            }
        }
}

}  // namespace

extern const ProductKernels product_amx, product_avx512bf16;

constinit const ProductKernels product_avx512bf16{"avx512bf16", &ProductPacking::inputs,  &ProductPacking::weights,
                                                  &multiply,    &ProductPacking::to_bf16, &ProductPacking::unpack_row};

constinit const ProductKernels product_amx{"amx",
                                           &ProductPacking::inputs,
                                           &ProductPacking::weights,
                                           &product_multiply_amx,
                                           &ProductPacking::to_bf16,
                                           &ProductPacking::unpack_row};

}  // namespace sakuin
