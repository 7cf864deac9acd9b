// Products of packed blocks with AMX: 32 x 32 results in four tiles, two of x and two of the weight at a time.
#include <algorithm>
#include <cstring>

#include "kernels/amx.hpp"
#include "kernels/product_args.hpp"

namespace sakuin {

void product_multiply_amx(const ProductRange& p);

namespace {

// So many steps of a block of x stay in the first cache while they meet the columns of a task; so many of all columns
// of a task stay in the second.
constexpr int64_t most_near = 20, most_far = 60;

// Where a block's four tiles lie.
struct Tiles {
    float* at;
    int64_t stride, beside, below;  // numbers: between rows, and to the tiles beside and below the first
};

// out = the sums so far (none where First) + the product of `steps` steps. Tiles of the next step are loaded as soon as
// theirs are free.
template <bool First>
void block(const uint16_t* x, const uint16_t* w, int64_t steps, const Tiles& sums, const Tiles& out,
           const uint16_t* ahead) {
    if (First) {
        SAKUIN_AMX_ZERO(0);
        SAKUIN_AMX_ZERO(1);
        SAKUIN_AMX_ZERO(2);
        SAKUIN_AMX_ZERO(3);
    } else {
        SAKUIN_AMX_LOAD(0, sums.at, sums.stride * 4);
        SAKUIN_AMX_LOAD(1, sums.at + sums.beside, sums.stride * 4);
        SAKUIN_AMX_LOAD(2, sums.at + sums.below, sums.stride * 4);
        SAKUIN_AMX_LOAD(3, sums.at + sums.below + sums.beside, sums.stride * 4);
    }
    SAKUIN_AMX_STREAM(6, w, 64);
    SAKUIN_AMX_LOAD(4, x, 64);
    SAKUIN_AMX_STREAM(7, w + product_unit, 64);
    SAKUIN_AMX_LOAD(5, x + product_unit, 64);
    for (int64_t i = 1; i < steps; ++i) {
        x += 2 * product_unit, w += 2 * product_unit;
        SAKUIN_AMX_ADD(0, 4, 6);
        SAKUIN_AMX_ADD(1, 4, 7);
        SAKUIN_AMX_LOAD(4, x, 64);
        SAKUIN_AMX_ADD(2, 5, 6);
        SAKUIN_AMX_STREAM(6, w, 64);
        SAKUIN_AMX_ADD(3, 5, 7);
        SAKUIN_AMX_STREAM(7, w + product_unit, 64);
        SAKUIN_AMX_LOAD(5, x + product_unit, 64);
        for (int j = 0; j < 4; ++j, ahead += 32) __builtin_prefetch(ahead, 0, 2);
    }
    SAKUIN_AMX_ADD(0, 4, 6);
    SAKUIN_AMX_ADD(1, 4, 7);
    SAKUIN_AMX_ADD(2, 5, 6);
    SAKUIN_AMX_ADD(3, 5, 7);
    SAKUIN_AMX_STORE(0, out.at, out.stride * 4);
    SAKUIN_AMX_STORE(1, out.at + out.beside, out.stride * 4);
    SAKUIN_AMX_STORE(2, out.at + out.below, out.stride * 4);
    SAKUIN_AMX_STORE(3, out.at + out.below + out.beside, out.stride * 4);
}

// Of a block of which not all is wanted, or not in rows at equal distances: from where it was summed.
void copy(const ProductRange& p, const float* sums, int64_t row, int64_t column) {
    const int64_t rows = std::min<int64_t>(product_block, p.n_rows - row);
    for (int64_t r = 0; r < rows; ++r) {
        float* const to = (p.out_rows != nullptr ? p.out_rows[row + r] : p.out + (row + r) * p.stride) + column;
        for (int64_t beside = 0; beside < 2; ++beside) {
            const int64_t n = std::clamp<int64_t>(p.n_columns - column - 16 * beside, 0, 16);
            std::memcpy(to + 16 * beside, sums + r / 16 * 512 + beside * 256 + r % 16 * 16,
                        static_cast<size_t>(n) * sizeof(float));
        }
    }
}

// Steps of a depth.
struct Steps {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
    int64_t parts(int64_t most) const { return (size() + most - 1) / most; }
    Steps part(int64_t i, int64_t n) const { return {begin + size() * i / n, begin + size() * (i + 1) / n}; }
};

// A block of rows and all columns. `next` is multiplied after it, of x: it is fetched while this meets its columns.
void row_of_blocks(const ProductRange& p, int64_t row, const Steps& steps, const uint16_t* next) {
    const int64_t size = p.steps * 2 * product_unit, n = steps.size();
    const bool plain = p.out_rows == nullptr && row + product_block <= p.n_rows, last = steps.end == p.steps;
    const uint16_t* const x = p.x + row / product_block * size + steps.begin * 2 * product_unit;
    float* at = p.sums + row / product_block * product_most_blocks * product_sums;
    for (int64_t column = 0; column < p.n_columns; column += product_block, at += product_sums) {
        const uint16_t* const w = p.weight + column / product_block * size + steps.begin * 2 * product_unit;
        const Tiles sums{at, 16, 256, 512};
        const bool direct = plain && column + product_block <= p.n_columns;
        const Tiles out = last && direct ? Tiles{p.out + row * p.stride + column, p.stride, 16, 16 * p.stride} : sums;
        if (steps.begin == 0)
            block<true>(x, w, n, sums, out, next);
        else
            block<false>(x, w, n, sums, out, next);
        next += (n - 1) * 128;
        if (last && !direct) copy(p, at, row, column);
    }
}

}  // namespace

void product_multiply_amx(const ProductRange& p) {
    const AmxTiles tiles;
    const int64_t size = p.steps * 2 * product_unit;
    const Steps all{0, p.steps};
    const int64_t far = all.parts(most_far);
    for (int64_t i = 0; i < far; ++i) {
        const Steps some = all.part(i, far);
        const int64_t near = some.parts(most_near);
        for (int64_t row = 0; row < p.n_rows; row += product_block)
            for (int64_t j = 0; j < near; ++j) {
                const Steps steps = some.part(j, near);
                const uint16_t* const x = p.x + row / product_block * size;
                row_of_blocks(
                    p, row, steps,
                    j + 1 < near ? x + steps.end * 2 * product_unit : x + size + some.begin * 2 * product_unit);
            }
    }
}

}  // namespace sakuin
