// The kernel of the `sketch` index that attends all keys of a segment at once, by the scores it is given and by value
// codes, both read in order. Weights become whole numbers of 16 bits, an upper and a lower byte, so that values are
// summed by products of bytes. Included only by files compiled for one instruction set (see simd.hpp).
#pragma once

#include "kernels/limits.hpp"
#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"
#include "kernels/sketch_codes.hpp"
#include "kernels/sketch_rescore.hpp"
#include "kernels/sketch_rows.hpp"

namespace sakuin {

// Some keys on their way through the stages: few enough to stay in the cache.
struct alignas(64) KeysAtOnce {
    static constexpr int keys = 256, most_columns = static_cast<int>(most_head_dim), heads_a_set = 8;

    float weights[max_group][keys];  // in the end times the step of the key's value code
    float low[keys], step[keys];
    int8_t factors[max_group / heads_a_set][2 * heads_a_set][keys];  // of eight heads the upper bytes, then the lower
    float unit[max_group];                                           // of the factors
    uint8_t codes[keys / 4 * most_columns * 4];                      // (keys / 4, columns, 4): a number a byte
    float sums[max_group][most_columns];                             // over all keys so far
};

template <class I>
struct AttendAllKeys {
    using F = typename I::F;
    using U = typename I::U;
    using S = typename I::S;
    static constexpr int lanes = I::lanes, keys = KeysAtOnce::keys, block = 32;
    typedef int8_t Lower __attribute__((vector_size(lanes)));
    typedef uint8_t Bytes __attribute__((vector_size(16)));

    // What all keys add up to for one query head.
    struct Sums {
        F total = {}, squares = {}, base = {};
    };

    static void attend_all(AttendAll& a) {
        if (a.codes != nullptr) SketchCodes<I>::score_all(*a.codes);
        attend_all(a, [](int64_t, int64_t) {}, interleave, multiply);
    }

    // `score` makes the scores of some keys those by codes, before they are used.
    template <class Score, class Interleave, class Multiply>
    static void attend_all(AttendAll& a, const Score& score, const Interleave& interleave, const Multiply& multiply) {
        KeysAtOnce& b = buffers();
        const int group = a.map.group, columns = static_cast<int>(a.value_bytes) * 2;
        Sums sums[max_group] = {};
        for (int g = 0; g < group; ++g)
            for (int c = 0; c < columns; ++c) b.sums[g][c] = 0.0f;
        a.n_exact = 0;
        uint16_t limit[16];
        for (uint16_t i = 0; i < 16; ++i) limit[i] = i < SketchRescore<I>::past_scale ? 1 : 0;
        const typename I::Table16 limits = I::table16(limit);
        for (int64_t first = 0; first < a.n; first += keys) {
            const int here = a.n - first < keys ? static_cast<int>(a.n - first) : keys;
            score(first, first + here);
            read_params(a, first, here, b);
            for (int from = 0; from < here; from += block) {
                if (a.map.softcap > 0.0f)
                    weigh<true>(a, first + from, limits, b, from);
                else
                    weigh<false>(a, first + from, limits, b, from);
                // What the next keys need is asked for while there is much to compute.
                prefetch(a.value_codes + (first + keys + from) * a.value_bytes, block * a.value_bytes);
                prefetch(a.value_params + (first + keys + from) * 2, block * 4);
                if (a.codes != nullptr)
                    prefetch(a.codes->codes.codes + (first + keys + from) * a.codes->codes.row_bytes,
                             block * a.codes->codes.row_bytes);
            }
            for (int g = 0; g < group; ++g) {
                for (int k = (here + block - 1) / block * block; k < keys; k += lanes) I::store(b.weights[g] + k, F{});
                round(b, g, sums[g]);
            }
            interleave(a, first, here, columns, b.codes);
            multiply(b, group, columns);
        }
        for (int g = 0; g < padded(group); ++g) {
            a.total[g] = g < group ? I::hsum(sums[g].total) : 0.0f;
            a.squares[g] = g < group ? I::hsum(sums[g].squares) : 0.0f;
        }
        for (int g = 0; g < group; ++g) {
            const float lowest = I::hsum(sums[g].base);
            for (int c = 0; c < columns; ++c)
                if (const int j = number_of(c, columns); j < a.value_dim)
                    a.out[g * a.value_dim + j] += b.sums[g][c] + lowest;
        }
    }

    // Which number of a row stands in column `c`: the lower halves of all bytes come first. Byte 4 w + i of a chunk of
    // 16 numbers holds numbers 4 i + w and 4 i + w + 2 (SketchRows::unpack4).
    static int number_of(int c, int columns) {
        const int upper = c >= columns / 2, byte = c - upper * (columns / 2);
        return byte / 8 * 16 + byte % 4 * 4 + byte % 8 / 4 + 2 * upper;
    }

private:
    // Not inlined: else its address is asked for again in every loop.
    [[gnu::noinline]] static KeysAtOnce& buffers() {
        static thread_local KeysAtOnce b;
        return b;
    }

    static SAKUIN_INLINE void prefetch(const void* p, int64_t bytes) {
        for (int64_t i = 0; i < bytes; i += 64) I::prefetch(static_cast<const char*>(p) + i);
    }

    static void read_params(const AttendAll& a, int64_t first, int here, KeysAtOnce& b) {
        const uint16_t* params = a.value_params + 2 * first;
        for (int i = 0; i < here; ++i) {
            b.low[i] = SketchRows<I>::bf16(params[2 * i]);
            b.step[i] = SketchRows<I>::bf16(params[2 * i + 1]);
        }
        for (int i = here; i < keys; ++i) b.low[i] = b.step[i] = 0.0f;
    }

    // The weights of a block of keys. Those that are to be attended exactly are noted, and weigh nothing here.
    // `limits`: 0 for a residue length past the scale, else 1.
    template <bool Capped>
    static SAKUIN_INLINE void weigh(AttendAll& a, int64_t first, const typename I::Table16& limits, KeysAtOnce& b,
                                    int from) {
        const ScoreMap& m = a.map;
        const uint16_t* z = m.z + first * m.group;
        const uint8_t* lengths = a.sketch + (first / list_size + 1) * a.list_bytes - 32;
        F best[block / lanes] = {};
        for (int g = 0; g < m.group; ++g) {
            const F scale = I::set1(m.scale[g]), bias = I::set1(m.bias[g]), lse = I::set1(a.lse[g]),
                    share = I::set1(a.share[g]);
            for (int k = 0; k < block; k += lanes) {
                const F x = SketchRescore<I>::score(z + g * block + k, scale, bias);
                const F weight = SketchRescore<I>::raise((Capped ? SketchRescore<I>::capped(x, m.softcap) : x) - lse);
                best[k / lanes] = I::max(weight * share, best[k / lanes]);
                I::store(b.weights[g] + from + k, weight);
            }
        }
        const uint32_t there = a.n - first < block ? (1u << (a.n - first)) - 1u : ~0u;
        static constexpr uint16_t zero[block] = {};
        uint32_t exact = I::at_least(zero, first % list_size == 0 ? I::template entries<0>(lengths, limits)
                                                                  : I::template entries<4>(lengths, limits));
        for (int k = 0; k < block; k += lanes) exact |= I::mask_above(best[k / lanes], a.exact_above) << k;
        exact &= there;
        for (int k = 0; k < block; k += lanes) {
            const U index = reinterpret_cast<U>(I::iota()) + static_cast<uint32_t>(first + k);
            a.n_exact += I::keep(a.exact + a.n_exact, index, exact >> k & ((1u << lanes) - 1u));
        }
        for (uint32_t none = exact | ~there; none != 0; none &= none - 1)
            for (int g = 0; g < m.group; ++g) b.weights[g][from + __builtin_ctz(none)] = 0.0f;
    }

    // Adds up one head's weights; times their keys' steps they become whole multiples of a unit, with which the largest
    // is at the end of what 16 bits hold.
    static SAKUIN_INLINE void round(KeysAtOnce& b, int g, Sums& sums) {
        float* w = b.weights[g];
        Sums now = sums;
        F largest = {};
        for (int k = 0; k < keys; k += lanes) {
            const F x = I::load(w + k), scaled = x * I::load(b.step + k);
            now.total += x;
            now.squares = I::fma(x, x, now.squares);
            now.base = I::fma(x, I::load(b.low + k), now.base);
            largest = I::max(scaled, largest);
            I::store(w + k, scaled);
        }
        sums = now;
        float unit = I::hmax(largest) * (1.0f / most_of_two_bytes);
        if (!(unit > 1e-30f)) unit = 1.0f;
        b.unit[g] = unit;
        const F inverse = I::set1(1.0f / unit);
        int8_t* upper = b.factors[g / KeysAtOnce::heads_a_set][g % KeysAtOnce::heads_a_set];
        int8_t* lower = upper + KeysAtOnce::heads_a_set * keys;
        for (int k = 0; k < keys; k += lanes) {
            // Damaged steps may be anything; what is no number becomes 0.
            const F y = I::min(I::max(I::fma(I::load(w + k), inverse, I::set1(0.5f)), F{}), I::set1(most_of_two_bytes));
            const S whole = __builtin_convertvector(y, S), high = (whole + 128) >> 8;
            const Lower a = __builtin_convertvector(high, Lower), c = __builtin_convertvector(whole, Lower);
            __builtin_memcpy(upper + k, &a, sizeof a);
            __builtin_memcpy(lower + k, &c, sizeof c);
        }
    }

    // Takes the rows' bytes apart, and puts the same byte of four keys side by side.
    static void interleave(const AttendAll& a, int64_t first, int here, int columns, uint8_t* to) {
        const int bytes = columns / 2;
        for (int k = 0; k < keys; k += 4, to += 4 * columns) {
            const uint8_t* row[4];
            for (int i = 0; i < 4; ++i)  // past the end: of weight 0
                row[i] = a.value_codes + (first + (k + i < here ? k + i : here - 1)) * bytes;
            for (int at = 0; at < bytes; at += 16) {
                Bytes x[4] = {};
                for (int i = 0; i < 4; ++i)
                    if (bytes - at >= 16)
                        __builtin_memcpy(&x[i], row[i] + at, 16);
                    else
                        __builtin_memcpy(&x[i], row[i] + at, 8);
                const int some = bytes - at >= 16 ? 4 : 2;
                for (int part = 0; part < some; ++part) {
                    const Bytes four = quarter(x, part), low = four & 15, high = four >> 4;
                    __builtin_memcpy(to + 4 * at + 16 * part, &low, 16);
                    __builtin_memcpy(to + 4 * (bytes + at) + 16 * part, &high, 16);
                }
            }
        }
    }

    // Bytes 4 part .. 4 part + 3 of four rows, those of one place side by side.
    static SAKUIN_INLINE Bytes quarter(const Bytes (&x)[4], int part) {
        const auto pairs = [](Bytes a, Bytes b, bool upper) {
            return upper ? __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
                         : __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        };
        const Bytes a = pairs(x[0], x[1], part >= 2), b = pairs(x[2], x[3], part >= 2);
        return part % 2 == 0
                   ? __builtin_shufflevector(a, b, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23)
                   : __builtin_shufflevector(a, b, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31);
    }

    static void multiply(KeysAtOnce& b, int group, int columns) {
        for (int first = 0; first < group; first += KeysAtOnce::heads_a_set) {
            const int some = group - first < KeysAtOnce::heads_a_set ? group - first : KeysAtOnce::heads_a_set;
            const auto& factors = b.factors[first / KeysAtOnce::heads_a_set];
            SketchRows<I>::in_tiles(some, [&]<int G>(int at) {
                const int8_t* upper = factors[at];
                for (int c = 0; c < columns; c += lanes) add_column<G>(b, upper, first + at, c, columns);
            });
        }
    }

    // The sums of as many columns as there are lanes, for G heads.
    template <int G>
    static void add_column(KeysAtOnce& b, const int8_t* upper, int first, int column, int columns) {
        const uint8_t* codes = b.codes + 4 * column;
        U high[G] = {}, low[G] = {};
        constexpr int pairs = 8;  // so many sums in pairs fit into 16 bits: 8 * 2 * 15 * 128
        for (int k = 0; k < keys; k += 4 * pairs) {
            U high_pairs[G] = {}, low_pairs[G] = {};
            for (int i = k; i < k + 4 * pairs; i += 4, codes += 4 * columns) {
                const U x = I::load_u32(codes);
                for (int g = 0; g < G; ++g) {
                    U& h = I::sums_in_pairs ? high_pairs[g] : high[g];
                    U& l = I::sums_in_pairs ? low_pairs[g] : low[g];
                    h = I::add_bytes(h, x, U{} + four(upper + g * keys + i));
                    l = I::add_bytes(l, x, U{} + four(upper + (KeysAtOnce::heads_a_set + g) * keys + i));
                }
            }
            if constexpr (I::sums_in_pairs)
                for (int g = 0; g < G; ++g) {
                    high[g] = I::widen_pairs(high[g], high_pairs[g]);
                    low[g] = I::widen_pairs(low[g], low_pairs[g]);
                }
        }
        for (int g = 0; g < G; ++g) {
            float* to = b.sums[first + g] + column;
            const F sum = __builtin_convertvector(reinterpret_cast<S>((high[g] << 8) + low[g]), F);
            I::store(to, I::fma(sum, I::set1(b.unit[first + g]), I::load(to)));
        }
    }
    static SAKUIN_INLINE uint32_t four(const int8_t* p) {
        uint32_t x;
        __builtin_memcpy(&x, p, 4);
        return x;
    }
};

}  // namespace sakuin
