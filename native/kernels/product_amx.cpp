// Products of packed blocks with AMX: 32 x 32 results in four tiles, two of x and two of the weight at a time.
#include <algorithm>
#include <cstring>

#include "kernels/amx.hpp"
#include "kernels/product_args.hpp"

namespace sakuin {

extern void (*const product_multiply_amx)(const ProductRange&);

namespace {

constexpr int64_t most_steps = 56;  // of a block at a time: what is read of the weight for 256 columns stays in L2

template <bool First>
void block(const uint16_t* x, const uint16_t* w, int64_t steps, float* out, int64_t stride, const uint16_t* ahead) {
    const int64_t bytes = stride * 4;
    float* const below = out + 16 * stride;
    if (First) {
        SAKUIN_AMX_ZERO(0);
        SAKUIN_AMX_ZERO(1);
        SAKUIN_AMX_ZERO(2);
        SAKUIN_AMX_ZERO(3);
    } else {
        SAKUIN_AMX_LOAD(0, out, bytes);
        SAKUIN_AMX_LOAD(1, out + 16, bytes);
        SAKUIN_AMX_LOAD(2, below, bytes);
        SAKUIN_AMX_LOAD(3, below + 16, bytes);
    }
    for (int64_t i = 0; i < steps; ++i, x += 2 * product_unit, w += 2 * product_unit) {
        SAKUIN_AMX_STREAM(6, w, 64);
        SAKUIN_AMX_STREAM(7, w + product_unit, 64);
        SAKUIN_AMX_LOAD(4, x, 64);
        SAKUIN_AMX_LOAD(5, x + product_unit, 64);
        SAKUIN_AMX_ADD(0, 4, 6);
        SAKUIN_AMX_ADD(1, 4, 7);
        SAKUIN_AMX_ADD(2, 5, 6);
        SAKUIN_AMX_ADD(3, 5, 7);
        for (int j = 0; j < 4; ++j) __builtin_prefetch(ahead + (i * 4 + j) * 32, 0, 2);
    }
    SAKUIN_AMX_STORE(0, out, bytes);
    SAKUIN_AMX_STORE(1, out + 16, bytes);
    SAKUIN_AMX_STORE(2, below, bytes);
    SAKUIN_AMX_STORE(3, below + 16, bytes);
}

// A block of which not all is written, or not to rows at equal distances.
void odd_block(const ProductRange& p, int64_t row, int64_t column) {
    alignas(64) float result[product_block][product_block];
    const int64_t size = p.steps * 2 * product_unit;
    const uint16_t* const x = p.x + row / product_block * size;
    block<true>(x, p.weight + column / product_block * size, p.steps, result[0], product_block, x);
    const int64_t rows = std::min<int64_t>(product_block, p.n_rows - row);
    const auto bytes = static_cast<size_t>(std::min<int64_t>(product_block, p.n_columns - column)) * sizeof(float);
    for (int64_t r = 0; r < rows; ++r) {
        float* const to = p.out_rows != nullptr ? p.out_rows[row + r] : p.out + (row + r) * p.stride;
        std::memcpy(to + column, result[r], bytes);
    }
}

void multiply(const ProductRange& p) {
    const AmxTiles tiles;
    const int64_t size = p.steps * 2 * product_unit;
    const bool plain = p.out_rows == nullptr;
    const int64_t whole_rows = plain ? p.n_rows / product_block * product_block : 0,
                  whole_columns = plain ? p.n_columns / product_block * product_block : 0;
    const int64_t pieces = (p.steps + most_steps - 1) / most_steps;
    for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t first = p.steps * piece / pieces, steps = p.steps * (piece + 1) / pieces - first;
        for (int64_t row = 0; row < whole_rows; row += product_block)
            for (int64_t column = 0; column < whole_columns; column += product_block) {
                const uint16_t* const x = p.x + row / product_block * size + first * 2 * product_unit;
                const uint16_t* const w = p.weight + column / product_block * size + first * 2 * product_unit;
                // The next block of x is fetched while this one meets its columns.
                const int64_t share = std::min(column / product_block * steps * 4, (steps - steps / 8) * 32);
                const uint16_t* const ahead = x + size + share * 32;
                float* const out = p.out + row * p.stride + column;
                if (piece == 0)
                    block<true>(x, w, steps, out, p.stride, ahead);
                else
                    block<false>(x, w, steps, out, p.stride, ahead);
            }
    }
    for (int64_t row = 0; row < p.n_rows; row += product_block)
        for (int64_t column = row < whole_rows ? whole_columns : 0; column < p.n_columns; column += product_block)
            odd_block(p, row, column);
}

}  // namespace

void (*const product_multiply_amx)(const ProductRange&) = multiply;

}  // namespace sakuin
