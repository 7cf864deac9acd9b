// Sixteen rows of a weight, unpacked and turned: a lane is a row, so that one instruction multiplies four numbers of
// each with the same four of a row of x, and whole-number sums of 32 numbers need no other lane. AVX-512 with VNNI.
#pragma once

#include "kernels/gemv_types.hpp"

namespace sakuin::gemv {

constexpr int panel_rows = 16;

// Of 32 numbers, or 256 where a type's blocks are so long.
template <class Type>
struct alignas(64) Panel {
    static constexpr int blocks = Type::bytes > 100 ? 8 : 1;  // of 32 numbers
    static constexpr int parts = Type::scaled == 16 ? 2 : 1;  // of each, with a scale of their own
    __m512i codes[blocks][8];                                 // four numbers of each row
    __m512 scales[blocks][parts];                             // of rows
    __m512 least[Type::minima == 0 ? 1 : blocks];             // what codes begin at
};

using PanelRows = const char* [panel_rows];

// Four of 16 bytes at a distance of four rows, side by side.
inline __m512i every_fourth(const PanelRows& at, int first, int64_t offset) {
    __m512i all = _mm512_castsi128_si512(bytes16(at[first] + offset));
    all = _mm512_inserti32x4(all, bytes16(at[first + 4] + offset), 1);
    all = _mm512_inserti32x4(all, bytes16(at[first + 8] + offset), 2);
    return _mm512_inserti32x4(all, bytes16(at[first + 12] + offset), 3);
}

// 16 bytes of each row: vector k has the k-th four of all rows.
inline void turned16(const PanelRows& at, int64_t offset, __m512i* to) {
    const __m512i a = every_fourth(at, 0, offset), b = every_fourth(at, 1, offset);
    const __m512i c = every_fourth(at, 2, offset), d = every_fourth(at, 3, offset);
    const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    const __m512i AB = _mm512_unpackhi_epi32(a, b), CD = _mm512_unpackhi_epi32(c, d);
    to[0] = _mm512_unpacklo_epi64(ab, cd), to[1] = _mm512_unpackhi_epi64(ab, cd);
    to[2] = _mm512_unpacklo_epi64(AB, CD), to[3] = _mm512_unpackhi_epi64(AB, CD);
}
inline void turned32(const PanelRows& at, int64_t offset, __m512i* to) {
    turned16(at, offset, to);
    turned16(at, offset + 16, to + 4);
}

inline __m512i low_nibbles(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline __m512i high_nibbles(__m512i x) { return low_nibbles(_mm512_srli_epi32(x, 4)); }

// Halves of all rows, and pairs of them.
inline __m512 halves(const PanelRows& at, int64_t offset) {
    alignas(32) uint16_t each[panel_rows];
    for (int r = 0; r < panel_rows; ++r) each[r] = half(at[r] + offset);
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(each)));
}
inline __m512i words(const PanelRows& at, int64_t offset) {
    alignas(64) uint32_t each[panel_rows];
    for (int r = 0; r < panel_rows; ++r) each[r] = word(at[r] + offset);
    return _mm512_load_si512(each);
}
inline __m512 first_of(__m512i pairs) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)); }
inline __m512 second_of(__m512i pairs) { return first_of(_mm512_srli_epi32(pairs, 16)); }

// 32 codes of four bits, 16 bytes of each row.
inline void unpack_nibbles(const PanelRows& at, int64_t offset, __m512i* to) {
    __m512i four[4];
    turned16(at, offset, four);
    for (int k = 0; k < 4; ++k) to[k] = low_nibbles(four[k]), to[k + 4] = high_nibbles(four[k]);
}
// fifths: a bit for each of the 32 codes of a row.
inline void add_fifths(__m512i fifths, __m512i* to) {
    const __m512i own = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
        const __m512i byte =
            _mm512_shuffle_epi8(fifths, _mm512_add_epi8(own, _mm512_set1_epi8(static_cast<char>(k / 2))));
        const __m512i bits = _mm512_set1_epi32(k % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010));
        to[k] = _mm512_mask_add_epi8(to[k], _mm512_test_epi8_mask(byte, bits), to[k], _mm512_set1_epi8(16));
    }
}

// A block of each row, at `offset`.
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q4_0>& to) {
    unpack_nibbles(at, offset + 2, to.codes[0]);
    to.scales[0][0] = halves(at, offset);
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q4_1>& to) {
    unpack_nibbles(at, offset + 4, to.codes[0]);
    const __m512i pairs = words(at, offset);
    to.scales[0][0] = first_of(pairs), to.least[0] = second_of(pairs);
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q5_0>& to) {
    unpack_nibbles(at, offset + 6, to.codes[0]);
    add_fifths(words(at, offset + 2), to.codes[0]);
    to.scales[0][0] = halves(at, offset);
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q5_1>& to) {
    unpack_nibbles(at, offset + 8, to.codes[0]);
    add_fifths(words(at, offset + 4), to.codes[0]);
    const __m512i pairs = words(at, offset);
    to.scales[0][0] = first_of(pairs), to.least[0] = second_of(pairs);
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q8_0>& to) {
    __m512i eight[8];
    turned32(at, offset + 2, eight);
    for (int k = 0; k < 8; ++k) to.codes[0][k] = _mm512_xor_si512(eight[k], _mm512_set1_epi8(static_cast<char>(0x80)));
    to.scales[0][0] = halves(at, offset);
}

// Scales and minima of the eight parts of a block of Q4_K or Q5_K: 6 bits each, behind two halves that scale them.
template <class Type>
inline void unpack_eight(const PanelRows& at, int64_t offset, Panel<Type>& to) {
    __m512i head[4];
    turned16(at, offset, head);
    const auto with = [](__m512i x, uint32_t mask) {
        return _mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(mask)));
    };
    const auto upper = [&](__m512i x) { return with(_mm512_srli_epi32(x, 2), 0x30303030); };
    const __m512i fours[4] = {with(head[1], 0x3f3f3f3f), _mm512_or_si512(with(head[3], 0x0f0f0f0f), upper(head[1])),
                              with(head[2], 0x3f3f3f3f),
                              _mm512_or_si512(with(_mm512_srli_epi32(head[3], 4), 0x0f0f0f0f), upper(head[2]))};
    const __m512 factor = first_of(head[0]), least = second_of(head[0]);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        const auto number = [&](__m512i four) {
            return _mm512_cvtepi32_ps(with(_mm512_srli_epi32(four, 8 * (j % 4)), 255));
        };
        to.scales[j][0] = _mm512_mul_ps(number(fours[j / 4]), factor);
        to.least[j] = _mm512_mul_ps(number(fours[2 + j / 4]), least);
    }
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q4_K>& to) {
    unpack_eight(at, offset, to);
    for (int j = 0; j < 8; j += 2) {
        __m512i eight[8];
        turned32(at, offset + 16 + 16 * j, eight);
        for (int k = 0; k < 8; ++k) {
            to.codes[j][k] = low_nibbles(eight[k]);
            to.codes[j + 1][k] = high_nibbles(eight[k]);
        }
    }
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q5_K>& to) {
    unpack_eight(at, offset, to);
    __m512i fifths[8];
    turned32(at, offset + 16, fifths);
    const __m512i bit = _mm512_set1_epi8(16);
    for (int j = 0; j < 8; j += 2) {
        __m512i eight[8];
        turned32(at, offset + 48 + 16 * j, eight);
        const __m512i turn = _mm512_set1_epi32(4 - j), next = _mm512_set1_epi32(3 - j);
        for (int k = 0; k < 8; ++k) {
            to.codes[j][k] =
                _mm512_ternarylogic_epi64(_mm512_rolv_epi32(fifths[k], turn), bit, low_nibbles(eight[k]), 0xea);
            to.codes[j + 1][k] =
                _mm512_ternarylogic_epi64(_mm512_rolv_epi32(fifths[k], next), bit, high_nibbles(eight[k]), 0xea);
        }
    }
}
inline void unpack(const PanelRows& at, int64_t offset, Panel<Q6_K>& to) {
    __m512i scales[4];
    turned16(at, offset + 192, scales);
    const __m512 factor = halves(at, offset + 208);
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
        const __m512i one = _mm512_srai_epi32(_mm512_slli_epi32(scales[j / 4], 24 - 8 * (j % 4)), 24);
        to.scales[j / 2][j % 2] = _mm512_mul_ps(_mm512_cvtepi32_ps(one), factor);
    }
    const __m512i two = _mm512_set1_epi8(0x30);
    for (int half_block = 0; half_block < 2; ++half_block) {
        __m512i high[8], low[8];
        turned32(at, offset + 128 + 32 * half_block, high);
        __m512i(*const codes)[8] = to.codes + 4 * half_block;
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            turned32(at, offset + 64 * half_block + 32 * j, low);
            for (int k = 0; k < 8; ++k) {
                const __m512i first = j == 0 ? _mm512_slli_epi32(high[k], 4) : _mm512_slli_epi32(high[k], 2);
                const __m512i third = j == 0 ? high[k] : _mm512_srli_epi32(high[k], 2);
                codes[j][k] = _mm512_ternarylogic_epi64(first, two, low_nibbles(low[k]), 0xea);
                codes[j + 2][k] = _mm512_ternarylogic_epi64(third, two, high_nibbles(low[k]), 0xea);
            }
        }
    }
}

}  // namespace sakuin::gemv
