// Attending all keys of a segment with tiles of AMX for the products: of queries and codes, and of weights and value
// codes.
#include <immintrin.h>

#include "kernels/amx.hpp"
#include "kernels/attend_all.hpp"
#include "kernels/code_tiles.hpp"

namespace sakuin {
namespace {

constexpr int keys = KeysAtOnce::keys, heads = KeysAtOnce::heads_a_set;

// As AttendAllKeys::interleave, 32 bytes of four rows at a time.
void interleave(const AttendAll& a, int64_t first, int here, int columns, uint8_t* to) {
    const int bytes = columns / 2;
    alignas(64) uint8_t order[64];
    for (int i = 0; i < 64; ++i) order[i] = static_cast<uint8_t>(i % 4 * 32 + i / 4);
    const __m512i from_first = _mm512_load_si512(order),
                  from_second = _mm512_add_epi8(from_first, _mm512_set1_epi8(16)), half = _mm512_set1_epi8(15);
    for (int k = 0; k < keys; k += 4, to += 4 * columns) {
        const uint8_t* row[4];
        for (int i = 0; i < 4; ++i) row[i] = a.value_codes + (first + (k + i < here ? k + i : here - 1)) * bytes;
        for (int at = 0; at < bytes; at += 32) {
            const auto some = static_cast<__mmask32>(bytes - at < 32 ? (1u << (bytes - at)) - 1u : ~0u);
            const auto two = [&](int i) {
                return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(some, row[i] + at)),
                                          _mm256_maskz_loadu_epi8(some, row[i + 1] + at), 1);
            };
            const __m512i x = two(0), y = two(2), p = _mm512_permutex2var_epi8(x, from_first, y),
                          q = _mm512_permutex2var_epi8(x, from_second, y);
            const auto here_of = [&](int part) {  // 16 bytes of a row are 16 columns of four
                const int left = bytes - at - 16 * part;
                return static_cast<__mmask16>(left >= 16 ? 0xffffu : left > 0 ? (1u << left) - 1u : 0u);
            };
            const auto put = [&](int column, __m512i v, int part) {
                _mm512_mask_storeu_epi32(to + 4 * (column + 16 * part), here_of(part), v);
            };
            put(at, _mm512_and_si512(p, half), 0);
            put(at, _mm512_and_si512(q, half), 1);
            put(bytes + at, _mm512_and_si512(_mm512_srli_epi16(p, 4), half), 0);
            put(bytes + at, _mm512_and_si512(_mm512_srli_epi16(q, 4), half), 1);
        }
    }
}

// Sums of up to 64 columns for eight heads.
template <int Tiles>
void multiply_columns(KeysAtOnce& b, int set, int some, int column, int columns) {
    alignas(64) int32_t sums[4][2 * heads][16];
    SAKUIN_AMX_ZERO(0);
    if constexpr (Tiles > 1) SAKUIN_AMX_ZERO(1);
    if constexpr (Tiles > 2) SAKUIN_AMX_ZERO(2);
    if constexpr (Tiles > 3) SAKUIN_AMX_ZERO(3);
    for (int k = 0; k < keys; k += 64) {
        const uint8_t* codes = b.codes + (k / 4 * columns + column) * 4;
        SAKUIN_AMX_LOAD(4, b.factors[set][0] + k, keys);
        SAKUIN_AMX_LOAD(5, codes, 4 * columns);
        SAKUIN_AMX_ADD_SIGNED(0, 4, 5);
        if constexpr (Tiles > 1) {
            SAKUIN_AMX_LOAD(6, codes + 64, 4 * columns);
            SAKUIN_AMX_ADD_SIGNED(1, 4, 6);
        }
        if constexpr (Tiles > 2) {
            SAKUIN_AMX_LOAD(5, codes + 128, 4 * columns);
            SAKUIN_AMX_ADD_SIGNED(2, 4, 5);
        }
        if constexpr (Tiles > 3) {
            SAKUIN_AMX_LOAD(6, codes + 192, 4 * columns);
            SAKUIN_AMX_ADD_SIGNED(3, 4, 6);
        }
    }
    SAKUIN_AMX_STORE(0, sums[0][0], 64);
    if constexpr (Tiles > 1) SAKUIN_AMX_STORE(1, sums[1][0], 64);
    if constexpr (Tiles > 2) SAKUIN_AMX_STORE(2, sums[2][0], 64);
    if constexpr (Tiles > 3) SAKUIN_AMX_STORE(3, sums[3][0], 64);
    for (int g = 0; g < some; ++g)
        for (int t = 0; t < Tiles; ++t) {
            float* to = b.sums[set * heads + g] + column + 16 * t;
            const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(sums[t][g]), 8),
                                                 _mm512_load_si512(sums[t][heads + g]));
            _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(b.unit[set * heads + g]),
                                                 _mm512_loadu_ps(to)));
        }
}

// Rows of heads that are not there hold what an earlier call left: nobody reads their sums.
void multiply_values(KeysAtOnce& b, int group, int columns) {
    for (int set = 0; set * heads < group; ++set) {
        const int some = group - set * heads < heads ? group - set * heads : heads;
        for (int column = 0; column < columns; column += 64) switch ((columns - column) / 16) {
                case 1: multiply_columns<1>(b, set, some, column, columns); break;
                case 2: multiply_columns<2>(b, set, some, column, columns); break;
                case 3: multiply_columns<3>(b, set, some, column, columns); break;
                default: multiply_columns<4>(b, set, some, column, columns); break;
            }
    }
}

}  // namespace

void attend_all_amx(AttendAll& a) {
    const AmxTiles configured;
    if (a.codes == nullptr) {
        AttendAllKeys<Avx512Bf16>::attend_all(a, [](int64_t, int64_t) {}, interleave, multiply_values);
        return;
    }
    CodeTiles codes(*a.codes);
    const auto score = [&](int64_t first, int64_t end) { codes.score(first, end); };
    AttendAllKeys<Avx512Bf16>::attend_all(a, score, interleave, multiply_values);
}

}  // namespace sakuin
