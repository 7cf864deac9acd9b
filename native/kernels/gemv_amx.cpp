// AVX-512 with VNNI, AMX with INT8.
#include "kernels/gemv_amx.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/amx.hpp"
#include "kernels/gemv_types.hpp"

namespace sakuin {

namespace {

constexpr int rows = 16;    // of the weight, in a tile
constexpr int at_once = 4;  // chunks that are unpacked before they are multiplied

template <class Type>
constexpr int tiles_of = Type::scaled == 16 ? 2 : 1;

// Unpacked rows of the weight.
template <class Type>
struct alignas(64) Unpacked {
    static constexpr int tiles = tiles_of<Type>;
    uint8_t codes[at_once][rows][64];
    float scales[at_once][tiles][rows][16];  // of columns
    float least[Type::minima == 0 ? 1 : at_once][rows][16];
    int32_t sums[2][tiles][rows][16];
};

inline __m512 spread_to_columns(__m512 x, int first, int second) {
    const __m512i at = _mm512_inserti64x4(_mm512_set1_epi32(first), _mm256_set1_epi32(second), 1);
    return _mm512_permutexvar_ps(at, x);
}

// Takes what a type gives of one row.
template <class Type>
struct Row {
    Unpacked<Type>& to;
    int row, chunk = 0;

    void add(__m512i codes, __m512 scales) {
        _mm512_store_si512(to.codes[chunk][row], codes);
        if constexpr (Type::scaled == 16) {
            _mm512_store_ps(to.scales[chunk][0][row], spread_to_columns(scales, 0, 4));
            _mm512_store_ps(to.scales[chunk][1][row], spread_to_columns(scales, 8, 12));
        } else {
            _mm512_store_ps(to.scales[chunk][0][row], scales);
        }
        ++chunk;
    }
    void add_minima(__m256 least) {
        const __m512 wide = _mm512_castps256_ps512(least);
        for (int j = 0; j < 4; ++j)
            _mm512_store_ps(to.least[chunk - 4 + j][row], spread_to_columns(wide, 2 * j, 2 * j + 1));
    }
    void add_two_minima(__m128 scale_and_least) {
        _mm512_store_ps(to.least[chunk - 1][row], spread_to_columns(_mm512_castps128_ps512(scale_and_least), 1, 3));
    }
};

// Up to `at_once` chunks of a row, at most `n` numbers.
template <class Type>
void unpack(Unpacked<Type>& to, int row, const char* w, int64_t n, int64_t next) {
    Row<Type> r{to, row};
    if constexpr (Type::bytes > 100) {
        for (int j = 0; j < Type::bytes; j += 64) _mm_prefetch(w + next + j, _MM_HINT_T1);
        Type::add(r, w);
    } else {
        for (int j = 0; j < 8 * Type::bytes; j += 64) _mm_prefetch(w + next + j, _MM_HINT_T1);
        for (; n >= 64; n -= 64, w += 2 * Type::bytes) Type::add(r, w, w + Type::bytes);
        if (n > 0) Type::add(r, w, w);
    }
}

template <class Type>
void multiply(Unpacked<Type>& u, int chunk, const GemvTile* x) {
    for (int t = 0; t < tiles_of<Type>; ++t) {
        SAKUIN_AMX_LOAD(0, x[t].bias, 0);
        SAKUIN_AMX_LOAD(1, u.codes[chunk], 64);
        SAKUIN_AMX_LOAD(2, x[t].codes, 64);
        SAKUIN_AMX_ADD_WHOLE(0, 1, 2);
        SAKUIN_AMX_STORE(0, u.sums[chunk % 2][t], 64);
    }
}

template <class Type>
void scale(const Unpacked<Type>& u, int chunk, const GemvTile* x, __m512 (&sums)[rows]) {
    for (int t = 0; t < tiles_of<Type>; ++t) {
        const __m512 scales = _mm512_load_ps(x[t].scales);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const __m512 whole = _mm512_cvtepi32_ps(_mm512_load_si512(u.sums[chunk % 2][t][r]));
            sums[r] = _mm512_fmadd_ps(whole, _mm512_mul_ps(scales, _mm512_load_ps(u.scales[chunk][t][r])), sums[r]);
        }
    }
    if constexpr (Type::minima != 0) {
        const __m512 of_x = _mm512_mul_ps(_mm512_set1_ps(Type::minima), _mm512_load_ps(x[0].sums));
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) sums[r] = _mm512_fmadd_ps(_mm512_load_ps(u.least[chunk][r]), of_x, sums[r]);
    }
}

// Sixteen rows of the weight, the last of them repeated where there are fewer.
template <class Type>
void sixteen(const GemvRange& p, int64_t first, const GemvTile* x, Unpacked<Type>& u) {
    constexpr int tiles = tiles_of<Type>;
    const int n = static_cast<int>(std::min<int64_t>(rows, p.n - first));
    __m512 sums[rows];
    for (auto& s : sums) s = _mm512_setzero_ps();
    const char* w = p.weight + first * p.row_bytes;
    const int64_t step_bytes = 64 * at_once / (Type::bytes > 100 ? 256 : 32) * Type::bytes;
    for (int64_t i = 0; i < p.depth; i += 64 * at_once, w += step_bytes) {
        const int64_t left = std::min<int64_t>(64 * at_once, p.depth - i);
        for (int r = 0; r < rows; ++r)
            unpack<Type>(u, r, w + std::min(r, n - 1) * p.row_bytes, left, rows * p.row_bytes);
        const int chunks = static_cast<int>(gemv_chunks(left));
        for (int c = 0; c < chunks; ++c) {
            multiply<Type>(u, c, x + c * tiles);
            if (c > 0) scale<Type>(u, c - 1, x + (c - 1) * tiles, sums);
        }
        scale<Type>(u, chunks - 1, x + (chunks - 1) * tiles, sums);
        x += chunks * tiles;
    }
    for (int r = 0; r < n; ++r) {
        alignas(32) float each[8];
        _mm256_store_ps(each, _mm256_add_ps(_mm512_castps512_ps256(sums[r]), _mm512_extractf32x8_ps(sums[r], 1)));
        for (int i = 0; i < p.n_rows; ++i) p.out[i][first + r] = each[i];
    }
}

// Columns of a tile that are a row of x: `row`, and row + 8. Column c has of its chunk the fours from begin(c / 8) on,
// `fours` of them. What lies in columns without a row changes no other column.
template <int Fours>
void to_tiles(const GemvRange& p, int row, GemvTile* to) {
    constexpr int tiles = Fours == 8 ? 1 : 2;
    const int64_t chunks = gemv_chunks(p.depth);
    for (int64_t c = 0; c < chunks; ++c)
        for (int t = 0; t < tiles; ++t, ++to)
            for (int half = 0; half < 2; ++half) {
                const int column = row + 8 * half, begin = Fours * (2 * t + half);
                const GemvChunk& from = p.x[c * p.n_rows + row];
                to->bias[column] = 0;
                for (int k = 0; k < 16; ++k) {
                    const bool own = k >= begin && k < begin + Fours;
                    if (own) std::memcpy(to->codes[k] + 4 * column, from.codes + 4 * k, 4);
                    if (!own) std::memset(to->codes[k] + 4 * column, 0, 4);
                    if (own) to->bias[column] += from.bias[k];
                }
                to->scales[column] = from.scales[begin];
                if (Fours == 8) to->sums[column] = p.sums[row * 2 * chunks + 2 * c + half];
            }
}

}  // namespace

// Measured: unpacking takes most of the time, and what is saved is as much for each row.
int gemv_tiles_from(int type) {
    return gemv::with_type(type, []<class T>(T) { return T::bytes > 100 ? 3 : 6; });
}

int64_t gemv_tile_bytes(int type, int64_t depth, int) {
    const int tiles = gemv::with_type(type, []<class T>(T) { return tiles_of<T>; });
    return gemv_chunks(depth) * tiles * static_cast<int64_t>(sizeof(GemvTile));
}

void gemv_to_tiles(const GemvRange& p, int row, void* to) {
    gemv::with_type(p.type,
                    [&]<class T>(T) { to_tiles<tiles_of<T> == 1 ? 8 : 4>(p, row, static_cast<GemvTile*>(to)); });
}

void gemv_tiles(const GemvRange& p, const void* x) {
    const AmxTiles tiles;
    gemv::with_type(p.type, [&]<class T>(T) {
        Unpacked<T> u;
        for (int64_t first = 0; first < p.n; first += rows) sixteen<T>(p, first, static_cast<const GemvTile*>(x), u);
    });
}

}  // namespace sakuin
