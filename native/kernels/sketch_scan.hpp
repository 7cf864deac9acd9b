// The scan of the `sketch` index: every key's score by its sketch, for a group's query heads together. A sketch's
// numbers are evenly spaced, so a score is a sum of whole numbers: codes of two or four bits times factors of eight,
// four products a 32-bit lane, a key a lane. Included only by the files compiled per instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_rows.hpp"

namespace sakuin {

template <class I>
struct SketchScan {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    using Keys32 = typename I::Keys32;
    static constexpr int lanes = I::lanes;

    // --- queries -----------------------------------------------------------------------------------------------------
    static void prepare(const ScanQuery& a) {
        const int quads = a.subs / 4;
        for (int k = 0; k < quads; ++k) {
            uint8_t first[4], second[4];
            for (int i = 0; i < 4; ++i) {
                const bool two = a.coordinate[2 * (4 * k + i) + 1] >= 0;
                first[i] = two ? 3 : 15;
                second[i] = two ? 3 : 0;
            }
            __builtin_memcpy(a.masks + 2 * k, first, 4);
            __builtin_memcpy(a.masks + 2 * k + 1, second, 4);
        }
        for (int g = 0; g < a.group; ++g) one_head(a, g);
    }

    // --- the scan ----------------------------------------------------------------------------------------------------
    static void scan(const Scan& a) {
        SketchRows<I>::in_tiles(a.group, [&]<int G>(int g) { tile<G>(a, g); });
    }

private:
    static constexpr float top_code(bool two) { return two ? 3.0f : 15.0f; }

    static void one_head(const ScanQuery& a, int g) {
        const float* p = a.p + g * a.head_dim;
        float x[2][most_subs];
        F most = {}, span = {};
        for (int s = 0; s < a.subs; ++s) {
            const int second = a.coordinate[2 * s + 1];
            x[0][s] = p[a.coordinate[2 * s]] * a.step[2 * s];
            x[1][s] = second < 0 ? 0.0f : p[second] * a.step[2 * s + 1];
        }
        for (int s = 0; s < a.subs; s += lanes) {
            const int here = a.subs - s < lanes ? a.subs - s : lanes;
            const F first = I::load(x[0] + s, here), second = I::load(x[1] + s, here);
            const F size = I::max(first, -first), other = I::max(second, -second), top = tops(a, s, here);
            most = I::max(most, I::max(size, other));
            span = I::fma(size, top, I::fma(other, I::set1(3.0f), span));
        }
        // Factors take 8 bits, sums 16; rounding adds 4,000 to them at the most sub-quantizers.
        const float scale = unit_of(I::hmax(most) * (1.0f / 127.0f), I::hsum(span) * (1.0f / 61000.0f)),
                    inverse = 1.0f / scale;
        F least = {}, middle = {}, lost = {};
        int8_t factor[2][most_subs];
        for (int s = 0; s < a.subs; s += lanes) {
            const int here = a.subs - s < lanes ? a.subs - s : lanes;
            const F top = tops(a, s, here);
            for (int i = 0; i < 2; ++i) {
                const F levels = i == 0 ? top : I::set1(3.0f), exact = I::load(x[i] + s, here) * inverse;
                // Through clamped numbers: what is none becomes the least of them.
                const S rounded = nearest(I::min(I::max(exact, I::set1(-127.0f)), I::set1(127.0f)));
                const F q = __builtin_convertvector(rounded, F), rest = exact - q;
                least = I::fma(I::min(q, F{}), levels, least);
                middle = I::fma(q * 0.5f, levels, middle);
                // Codes lie some fifth of their range around the middle of it.
                lost = I::fma(rest * rest, levels * levels * 0.04f, lost);
                typedef int8_t Bytes __attribute__((vector_size(lanes)));
                const Bytes bytes = __builtin_convertvector(rounded, Bytes);
                __builtin_memcpy(factor[i] + s, &bytes, static_cast<size_t>(here));
            }
        }
        for (int k = 0; k < a.subs / 4; ++k)
            for (int i = 0; i < 2; ++i) __builtin_memcpy(a.words + (2 * k + i) * a.group + g, factor[i] + 4 * k, 4);
        const float start = -I::hsum(least);
        a.start[g] = static_cast<int32_t>(start);
        a.scale[g] = scale;
        a.bias[g] -= scale * (start + I::hsum(middle));
        a.variance[g] += scale * scale * I::hsum(lost);
    }
    // A whole number of 128ths that is not below either number:
    // so are exponentials whole multiples of sums (ScoreMap::rate).
    static SAKUIN_INLINE float unit_of(float a, float b) {
        const float least = a > b ? a : b;
        // Nobody takes exponentials of such sums; not a number included.
        if (!(least < 128.0f)) return least < 1e38f ? least : 1e38f;
        const float whole = static_cast<float>(static_cast<int32_t>(least * 128.0f));
        return (whole < least * 128.0f || whole < 1.0f ? whole + 1.0f : whole) * (1.0f / 128.0f);
    }
    static SAKUIN_INLINE F tops(const ScanQuery& a, int s, int n) {
        float top[lanes] = {};
        for (int i = 0; i < n; ++i) top[i] = top_code(a.coordinate[2 * (s + i) + 1] >= 0);
        return I::load(top);
    }
    static SAKUIN_INLINE S nearest(F x) {
        return __builtin_convertvector(x + (x < 0.0f ? I::set1(-0.5f) : I::set1(0.5f)), S);
    }

    // A key's codes in words of four nibbles: those without second coordinates come first. Sums in pairs are widened
    // where a run ends, so that they fit into 16 bits: a pair of codes adds 2 * 15 * 127 at most, or 4 * 3 * 127 where
    // all four hold two coordinates.
    struct Words {
        int n, plain = 0, end[most_subs / 4];
        explicit Words(const Scan& a) : n(a.subs / 4) {
            while (plain < n && a.masks[2 * plain + 1] == 0) ++plain;
            int most = 0, runs = 0;
            for (int k = 0; k < n; ++k) {
                const int here = (a.masks[2 * k + 1] == 0x03030303u ? 4 * 3 : 2 * 15) * 127;
                if (most + here > 32767) {
                    end[runs++] = k;
                    most = 0;
                }
                most += here;
            }
            end[runs] = n;
        }
    };

    // G query heads from `g`. A block of 32 keys is subs / 4 times 64 bytes: byte 4 l + i holds in its low nibble
    // number i of key 8 (l / 4) + l % 4, in its high one that of the key four further on,
    // as packing sums brings them together (simd.hpp).
    template <int G>
    static void tile(const Scan& a, int g) {
        const Words words(a);
        Keys32 most[G];
        for (int i = 0; i < G; ++i) most[i] = I::keys32(0);
        for (int64_t l = 0; l < a.lists; ++l)
            for (int half = 0; half < 2; ++half) {
                const uint8_t* codes = a.sketch + l * a.list_bytes + half * words.n * 64;
                uint16_t* to = a.z + ((2 * l + half) * a.group + g) * 32;
                block<G>(a, codes, g, words, [&](int i, Keys32 z) {
                    I::store(to + i * 32, z);
                    most[i] = I::max(most[i], z);
                });
            }
        for (int i = 0; i < G; ++i) {
            uint16_t all[32];
            I::store(all, most[i]);
            uint16_t largest = 0;
            for (const uint16_t v : all) largest = v > largest ? v : largest;
            a.largest[g + i] = largest;
        }
    }

    // The words [from, to) of G heads; `seconds` says which coordinates of them.
    template <int G>
    static SAKUIN_INLINE void add_words(const Scan& a, const uint8_t* codes, int g, int from, int to, bool seconds,
                                        U (&low)[G], U (&high)[G]) {
        const uint32_t shift = seconds ? 2 : 0;
        for (int k = from; k < to; ++k) {
            const U c = I::load_u32(codes + k * 64), mask = U{} + a.masks[2 * k + seconds];
            const uint32_t* words = a.words + (2 * k + seconds) * a.group + g;
            const U x = (c >> shift) & mask, y = (c >> (4 + shift)) & mask;
            for (int i = 0; i < G; ++i) {
                const U factors = U{} + words[i];
                low[i] = I::add_bytes(low[i], x, factors);
                high[i] = I::add_bytes(high[i], y, factors);
            }
        }
    }

    // Calls put(head, scores) for the 32 keys of a block.
    template <int G, class Fn>
    static SAKUIN_INLINE void block(const Scan& a, const uint8_t* codes, int g, const Words& words, const Fn& put) {
        U low[I::pieces][G], high[I::pieces][G];
        for (int piece = 0; piece < I::pieces; ++piece, codes += sizeof(U)) {
            U x[G], y[G];
            for (int i = 0; i < G; ++i) x[i] = y[i] = U{} + static_cast<uint32_t>(a.start[g + i]);
            if constexpr (!I::sums_in_pairs) {
                add_words<G>(a, codes, g, 0, words.n, false, x, y);
                add_words<G>(a, codes, g, words.plain, words.n, true, x, y);
            } else {
                for (int run = 0, from = 0; from < words.n; from = words.end[run++]) {
                    U of_x[G] = {}, of_y[G] = {};
                    add_words<G>(a, codes, g, from, words.end[run], false, of_x, of_y);
                    add_words<G>(a, codes, g, from > words.plain ? from : words.plain, words.end[run], true, of_x,
                                 of_y);
                    for (int i = 0; i < G; ++i) {
                        x[i] = I::widen_pairs(x[i], of_x[i]);
                        y[i] = I::widen_pairs(y[i], of_y[i]);
                    }
                }
            }
            for (int i = 0; i < G; ++i) low[piece][i] = x[i], high[piece][i] = y[i];
        }
        for (int i = 0; i < G; ++i) {
            U x[I::pieces], y[I::pieces];
            for (int piece = 0; piece < I::pieces; ++piece) x[piece] = low[piece][i], y[piece] = high[piece][i];
            put(i, I::pack(x, y));
        }
    }
};

}  // namespace sakuin
