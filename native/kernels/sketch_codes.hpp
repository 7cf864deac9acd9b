// The kernel of the `sketch` index that scores keys again from their codes, in whole numbers, a key a lane: codes of
// two or four bits times factors of eight, four products a unit; codes of eight bits times factors of sixteen. Where
// all keys of a segment are scored, factors have sixteen bits throughout, in two bytes, as they have by tiles. Included
// only by the files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/limits.hpp"
#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_rows.hpp"

namespace sakuin {

template <class I>
struct SketchCodes {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    using H = typename I::H;
    static constexpr int lanes = I::lanes;
    static constexpr int most_numbers = static_cast<int>(most_head_dim);  // of a row
    static constexpr int ahead = 2;  // blocks of keys whose rows are fetched before they are needed

    // fresh (group, stride): the scores of the found keys by their codes, softcap and all else left out.
    static void score(const Rescore& r) {
        SketchRows<I>::in_tiles(r.map.group, [&]<int G>(int first) { tile<G>(r, first); });
    }

    static void score_all(const RescoreAll& r) {
        SketchRows<I>::in_tiles(r.group, [&]<int G>(int first) { tile_of_all<G>(r, first); });
    }

private:
    // Chunk c of 16 numbers of `bits` bits is bits / 2 words; number l stands in word l % words at bit bits * (l /
    // words). A word is taken apart into parts: of 8 bits into its even and its odd bytes, each with factors of 16
    // bits; of 4 and 2 bits into fields of its four bytes. This is the number that stands in field `i` of part `part`
    // of word `word`.
    static SAKUIN_INLINE int number(int bits, int word, int part, int i) {
        const int words = bits / 2;
        if (bits == 8) return (2 * i + part) * words + word;
        return (i * (8 / bits) + part) * words + word;
    }

    // The projected queries of a tile of query heads, as factors for each part of each word in turn: heads side by
    // side, and where they are fine the upper bytes of all heads before the lower ones.
    template <int G, bool Fine>
    struct Queries {
        uint32_t words[most_numbers / 2 * G * (Fine ? 2 : 1)];
        // start: the score of a row whose numbers are all 0, without the sketch.
        float unit_of_eights[G], unit[G], start[G];
    };

    template <int G, bool Fine>
    static void prepare(const CodeRows& r, int first, Queries<G, Fine>& q) {
        const int eights = r.eights * 16, all = (r.eights + r.fours + r.twos) * 16;
        for (int g = 0; g < G; ++g) {
            const float* p = r.p + (first + g) * r.head_dim;
            float x[most_numbers], middle = 0.0f;
            for (int i = 0; i < all; ++i) x[i] = r.coordinate[i] < 0 ? 0.0f : p[r.coordinate[i]] * r.step[i];
            int16_t whole[most_numbers];
            q.unit_of_eights[g] = round(x, eights, 32767.0f, whole);
            q.unit[g] = round(x + eights, all - eights, Fine ? most_of_two_bytes : 127.0f, whole + eights);
            for (int i = 0; i < all; ++i) {
                const int c = i / 16;
                middle +=
                    static_cast<float>(whole[i]) *
                    (c < r.eights ? 127.5f * q.unit_of_eights[g] : (c < r.eights + r.fours ? 7.5f : 1.5f) * q.unit[g]);
            }
            q.start[g] = -middle;
            uint32_t* to = q.words + g;
            for (int c = 0; c < all / 16; ++c) {
                const int bits = c < r.eights ? 8 : c < r.eights + r.fours ? 4 : 2;
                for (int word = 0; word < bits / 2; ++word)
                    for (int part = 0; part < (bits == 8 ? 2 : 8 / bits); ++part) {
                        uint32_t low = 0, high = 0;
                        for (int i = 0; i < (bits == 8 ? 2 : 4); ++i) {
                            const int factor = whole[c * 16 + number(bits, word, part, i)], upper = (factor + 128) >> 8;
                            low |= bits == 8 ? (static_cast<uint32_t>(factor) & 0xffffu) << (16 * i)
                                             : (static_cast<uint32_t>(factor) & 0xffu) << (8 * i);
                            high |= (static_cast<uint32_t>(upper) & 0xffu) << (8 * i);
                        }
                        if (Fine && bits < 8) {
                            *to = high;
                            to += G;
                        }
                        *to = low;
                        to += G;
                    }
            }
        }
    }
    // Rounds n numbers (a multiple of 16) to whole multiples, at most `most`, of what is returned.
    static SAKUIN_INLINE float round(const float* x, int n, float most, int16_t* whole) {
        F largest = {};
        for (int i = 0; i < n; i += lanes) largest = I::max(largest, I::max(I::load(x + i), -I::load(x + i)));
        float unit = I::hmax(largest) * (1.0f / most);
        if (!(unit > 1e-30f)) unit = 1.0f;
        for (int i = 0; i < n; i += lanes) {
            // Clamped, and what is no number with it: infinities end so.
            const F y = I::min(I::max(I::load(x + i) * (1.0f / unit), I::set1(-most)), I::set1(most));
            const H half =
                __builtin_convertvector(__builtin_convertvector(y + (y < 0.0f ? I::set1(-0.5f) : I::set1(0.5f)), S), H);
            __builtin_memcpy(whole + i, &half, sizeof half);
        }
        return unit;
    }

    template <int G>
    static void tile(const Rescore& r, int first) {
        const CodeRows& c = r.codes;
        Queries<G, false> q;
        prepare(c, first, q);
        for (int64_t i = 0; i < r.m; i += lanes) {
            const int here = r.m - i < lanes ? static_cast<int>(r.m - i) : lanes;
            const uint8_t* rows[lanes];
            for (int k = 0; k < lanes; ++k)
                rows[k] = c.codes + static_cast<int64_t>(r.index[i + (k < here ? k : here - 1)]) * c.row_bytes;
            // A row may lie on two lines.
            for (int64_t k = i + ahead * lanes; k < i + (ahead + 1) * lanes && k < r.m; ++k) {
                const uint8_t* later = c.codes + static_cast<int64_t>(r.index[k]) * c.row_bytes;
                I::prefetch(later);
                I::prefetch(later + c.row_bytes - 1);
            }
            F scores[G];
            by_codes(c, q, rows, scores);
            for (int g = 0; g < G; ++g) {
                const int64_t at = (first + g) * r.row_stride + i;
                const F z = __builtin_convertvector(__builtin_convertvector(I::template read<H>(r.rows + at), S), F);
                I::store(r.fresh + (first + g) * r.stride + i,
                         I::fma(z, I::set1(r.map.scale[first + g]), scores[g] + r.map.bias[first + g]));
            }
        }
    }

    template <int G>
    static void tile_of_all(const RescoreAll& r, int first) {
        const CodeRows& c = r.codes;
        Queries<G, true> q;
        prepare(c, first, q);
        float inverse[G];
        for (int g = 0; g < G; ++g) inverse[g] = 1.0f / r.scale[first + g];
        for (int64_t i = 0; i < r.n; i += lanes) {
            const int here = r.n - i < lanes ? static_cast<int>(r.n - i) : lanes;
            const uint8_t* rows[lanes];
            for (int k = 0; k < lanes; ++k) rows[k] = c.codes + (i + (k < here ? k : here - 1)) * c.row_bytes;
            F scores[G];
            by_codes(c, q, rows, scores);
            uint16_t* z = r.z + (i / 32 * r.group + first) * 32 + i % 32;
            for (int g = 0; g < G; ++g, z += 32) {
                const F old = __builtin_convertvector(__builtin_convertvector(I::template read<H>(z), S), F);
                F x = I::fma(scores[g], I::set1(inverse[g]), old) + 0.5f;
                x = I::min(I::max(x, F{}), I::set1(65535.0f));  // NaN becomes 0
                if (here < lanes) x = I::select_first(here, x, old);
                const S whole = __builtin_convertvector(x, S);
                const H half = __builtin_convertvector(whole, H);
                __builtin_memcpy(z, &half, sizeof half);
            }
        }
    }

    // What the codes of so many rows as there are lanes add to their scores by sketch. Moves `rows` on.
    template <int G, bool Fine>
    static SAKUIN_INLINE void by_codes(const CodeRows& c, const Queries<G, Fine>& q, const uint8_t* (&rows)[lanes],
                                       F (&scores)[G]) {
        // Where words of each kind end.
        const int eights = c.eights * 4, fours = eights + c.fours * 2, words = fours + c.twos;
        U sums[G] = {}, upper[G] = {};
        F by_eights[G] = {};
        const uint32_t* factors = q.words;
        for (int from = 0; from < words; from += 8) {
            U w[8];
            const int some = words - from < 8 ? words - from : 8;
            for (int k = 0; k < lanes; ++k) rows[k] += from == 0 ? 0 : 32;
            I::columns(rows, some, w);
            // So many words that sums in pairs fit into 16 bits: 4 * 2 * 2 * 15 * 128.
            for (int k = 0; k < some; k += 4) {
                if (from + k < eights) {
                    for (int j = k; j < k + 4; ++j, factors += 2 * G)
                        for (int g = 0; g < G; ++g)
                            sums[g] = I::add_halves(I::add_halves(sums[g], w[j] & 0x00ff00ffu, U{} + factors[g]),
                                                    w[j] >> 8 & 0x00ff00ffu, U{} + factors[G + g]);
                    // So many words that sums fit into 32 bits: 64 * 4 * 255 * 32767.
                    if (from + k + 4 == eights || (from + k + 4) % 64 == 0)
                        for (int g = 0; g < G; ++g) {
                            by_eights[g] +=
                                __builtin_convertvector(reinterpret_cast<S>(sums[g]), F) * q.unit_of_eights[g];
                            sums[g] = U{};
                        }
                    continue;
                }
                U pairs[G] = {}, upper_pairs[G] = {};
                const auto multiply = [&](U part, U(&to)[G]) {
                    for (int g = 0; g < G; ++g) to[g] = I::add_bytes(to[g], part, U{} + factors[g]);
                    factors += G;
                };
                const auto add = [&](U part) {
                    if constexpr (Fine) multiply(part, I::sums_in_pairs ? upper_pairs : upper);
                    multiply(part, I::sums_in_pairs ? pairs : sums);
                };
                for (int j = k; j < k + 4 && j < some; ++j) {
                    if (from + j < fours) {
                        add(w[j] & 0x0f0f0f0fu);
                        add(w[j] >> 4 & 0x0f0f0f0fu);
                    } else {
                        add(w[j] & 0x03030303u);
                        add(w[j] >> 2 & 0x03030303u);
                        add(w[j] >> 4 & 0x03030303u);
                        add(w[j] >> 6 & 0x03030303u);
                    }
                }
                if constexpr (I::sums_in_pairs)
                    for (int g = 0; g < G; ++g) {
                        sums[g] = I::widen_pairs(sums[g], pairs[g]);
                        if constexpr (Fine) upper[g] = I::widen_pairs(upper[g], upper_pairs[g]);
                    }
            }
        }
        for (int g = 0; g < G; ++g)
            scores[g] = I::fma(__builtin_convertvector(reinterpret_cast<S>(sums[g] + (upper[g] << 8)), F),
                               I::set1(q.unit[g]), by_eights[g] + q.start[g]);
    }
};

}  // namespace sakuin
