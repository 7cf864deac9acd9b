// Codes times queries by tiles of AMX: factors of 16 bits in two rows a query head, the upper and the lower byte,
// against the numbers of 16 keys, a column each. Included only by the file that is compiled for AMX.
#pragma once

#include <immintrin.h>

#include "kernels/amx.hpp"
#include "kernels/limits.hpp"
#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"

namespace sakuin {
namespace {

constexpr int block = 16;  // keys: a column each of a tile of codes
constexpr int most_numbers = static_cast<int>(most_head_dim), numbers_a_tile = 64,
              most_tiles = (most_numbers + numbers_a_tile - 1) / numbers_a_tile;
constexpr int heads_a_tile = 8;  // a row each for the upper and for the lower byte of its factors

struct alignas(64) CodeBuffers {
    uint8_t codes[2][most_tiles * 16][4 * block];       // (turn, numbers / 4, keys, 4)
    int8_t factors[2][most_tiles][16][numbers_a_tile];  // (heads / 8, tiles, upper bytes and then lower ones, numbers)
    int32_t sums[2][2][16][block];                      // (turn, heads / 8, as the factors, keys)
};

// Scores keys again from their codes. Tiles are configured by who uses it. Words of codes are taken apart as in
// SketchCodes: each is a row of a tile for every number that it holds in a byte.
class CodeTiles {
public:
    explicit CodeTiles(const RescoreAll& r)
        : r_(r), words_of_eights_(r.codes.eights * 4), words_of_fours_(words_of_eights_ + r.codes.fours * 2),
          words_(words_of_fours_ + r.codes.twos),
          tiles_(((r.codes.eights + r.codes.fours + r.codes.twos) * 16 + numbers_a_tile - 1) / numbers_a_tile) {
        for (int g = 0; g < r.group; ++g) prepare(g);
    }

    // From a multiple of 32 to another one, or to the last key. Rows of heads that are not there hold what an earlier
    // call left: nobody reads their sums. A block is unpacked while the products of the one before and the sums of the
    // one before that are on their way.
    void score(int64_t first, int64_t end) {
        const int64_t blocks = (end - first + block - 1) / block;
        for (int64_t i = 0; i < blocks + 2; ++i) {
            if (i < blocks) unpack(first + i * block, b_.codes[i % 2]);
            if (i >= 1 && i - 1 < blocks) {
                multiply(b_.codes[(i - 1) % 2], b_.factors[0], b_.sums[(i - 1) % 2][0]);
                if (r_.group > heads_a_tile) multiply(b_.codes[(i - 1) % 2], b_.factors[1], b_.sums[(i - 1) % 2][1]);
            }
            if (i >= 2) add(first + (i - 2) * block, b_.sums[i % 2]);
        }
    }

private:
    [[gnu::noinline]] static CodeBuffers& buffers() {
        static thread_local CodeBuffers b;
        return b;
    }

    // The factors of one query head, and what the middle of the codes adds.
    void prepare(int head) {
        const CodeRows& c = r_.codes;
        const float* p = c.p + head * c.head_dim;
        const int chunks = c.eights + c.fours + c.twos;
        float x[most_numbers], largest = 0.0f, middle = 0.0f;
        for (int i = 0; i < chunks * 16; ++i) {
            x[i] = c.coordinate[i] < 0 ? 0.0f : p[c.coordinate[i]] * c.step[i];
            const float size = x[i] < 0.0f ? -x[i] : x[i];
            largest = size > largest ? size : largest;
        }
        float unit = largest * (1.0f / most_of_two_bytes);
        if (!(unit > 1e-30f)) unit = 1.0f;
        const int set = head / heads_a_tile, row = head % heads_a_tile;
        int at = 0;  // the number's place in a column of tiles
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const int bits = chunk < c.eights ? 8 : chunk < c.eights + c.fours ? 4 : 2, words = bits / 2;
            for (int word = 0; word < words; ++word)
                for (int part = 0; part < 8 / bits; ++part)
                    for (int i = 0; i < 4; ++i, ++at) {
                        // What is no number becomes the least.
                        const float y = x[chunk * 16 + (i * (8 / bits) + part) * words + word] * (1.0f / unit),
                                    held = y > most_of_two_bytes     ? most_of_two_bytes
                                           : y >= -most_of_two_bytes ? y
                                                                     : -most_of_two_bytes;
                        const int whole = static_cast<int>(held + (held < 0.0f ? -0.5f : 0.5f)),
                                  upper = (whole + 128) >> 8;
                        auto& tile = b_.factors[set][at / numbers_a_tile];
                        tile[row][at % numbers_a_tile] = static_cast<int8_t>(upper);
                        tile[heads_a_tile + row][at % numbers_a_tile] = static_cast<int8_t>(whole - 256 * upper);
                        middle += static_cast<float>(whole) * 0.5f * static_cast<float>((1 << bits) - 1);
                    }
        }
        for (; at < tiles_ * numbers_a_tile; ++at) {
            auto& tile = b_.factors[set][at / numbers_a_tile];
            tile[row][at % numbers_a_tile] = tile[heads_a_tile + row][at % numbers_a_tile] = 0;
        }
        const float inverse = 1.0f / r_.scale[head];
        unit_[head] = _mm512_set1_ps(unit * inverse);
        start_[head] = _mm512_set1_ps(-middle * unit * inverse);
    }

    void unpack(int64_t first, uint8_t (*to)[4 * block]) const {
        using I = Avx512Bf16;
        const CodeRows& c = r_.codes;
        const uint8_t* rows[block];
        for (int k = 0; k < block; ++k) rows[k] = c.codes + (first + k < r_.n ? first + k : r_.n - 1) * c.row_bytes;
        const __m512i fours = _mm512_set1_epi8(15), twos = _mm512_set1_epi8(3);
        for (int from = 0; from < words_; from += 8) {
            I::U w[8];
            const int some = words_ - from < 8 ? words_ - from : 8;
            for (int k = 0; k < block; ++k) rows[k] += from == 0 ? 0 : 32;
            I::columns(rows, some, w);
            for (int k = 0; k < some; ++k) {
                const auto word = reinterpret_cast<__m512i>(w[k]);
                if (from + k < words_of_eights_) {
                    _mm512_store_si512(*to++, word);
                } else if (from + k < words_of_fours_) {
                    _mm512_store_si512(*to++, _mm512_and_si512(word, fours));
                    _mm512_store_si512(*to++, _mm512_and_si512(_mm512_srli_epi32(word, 4), fours));
                } else {
                    _mm512_store_si512(*to++, _mm512_and_si512(word, twos));
                    _mm512_store_si512(*to++, _mm512_and_si512(_mm512_srli_epi32(word, 2), twos));
                    _mm512_store_si512(*to++, _mm512_and_si512(_mm512_srli_epi32(word, 4), twos));
                    _mm512_store_si512(*to++, _mm512_and_si512(_mm512_srli_epi32(word, 6), twos));
                }
            }
        }
    }

    void multiply(const uint8_t (*codes)[4 * block], const int8_t (*factors)[16][numbers_a_tile],
                  int32_t (*sums)[block]) const {
        SAKUIN_AMX_ZERO(0);
        for (int tile = 0; tile < tiles_; ++tile) {
            SAKUIN_AMX_LOAD(4, factors[tile][0], numbers_a_tile);
            SAKUIN_AMX_LOAD(5, codes[16 * tile], 4 * block);
            SAKUIN_AMX_ADD_SIGNED(0, 4, 5);
        }
        SAKUIN_AMX_STORE(0, sums[0], 4 * block);
    }

    // Adds a block's sums to its 16-bit scores.
    void add(int64_t first, const int32_t (&sums)[2][16][block]) const {
        const int64_t left = r_.n - first;
        const auto here = static_cast<__mmask16>(left < block ? (1u << left) - 1u : 0xffffu);
        for (int g = 0; g < r_.group; ++g) {
            const auto& rows = sums[g / heads_a_tile];
            const __m512i upper = _mm512_load_si512(rows[g % heads_a_tile]),
                          lower = _mm512_load_si512(rows[heads_a_tile + g % heads_a_tile]);
            uint16_t* z = r_.z + (first / 32 * r_.group + g) * 32 + first % 32;
            const __m512i old = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(z)));
            const __m512 x =
                _mm512_fmadd_ps(both(upper, lower), unit_[g], _mm512_add_ps(_mm512_cvtepi32_ps(old), start_[g]));
            // NaN becomes 0.
            const __m512 held = _mm512_min_ps(_mm512_max_ps(x, _mm512_setzero_ps()), _mm512_set1_ps(65535.0f));
            _mm256_mask_storeu_epi16(z, here, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(held)));
        }
    }

    // 256 * upper + lower, which fits into 32 bits for 256 numbers: 256 * 255 * 127 * 256.
    __m512 both(__m512i upper, __m512i lower) const {
        if (tiles_ * numbers_a_tile <= 256)
            return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(upper, 8), lower));
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(lower));
    }

    const RescoreAll& r_;
    const int words_of_eights_, words_of_fours_, words_;  // where words of each kind end
    const int tiles_;
    CodeBuffers& b_ = buffers();
    __m512 unit_[max_group], start_[max_group];  // of the codes' sums, in units of the 16-bit scores
};

}  // namespace
}  // namespace sakuin
