// The kernel of the `sketch` index that scores found keys again from their codes, in whole numbers: a code times a 16-bit query
// coordinate, summed in 32 bits, twice as many products an instruction as floats. Included only by the files compiled per
// instruction set (see simd.hpp).
#pragma once

#include "kernels/simd.hpp"
#include "kernels/sketch_args.hpp"

namespace sakuin {

template <class I>
struct SketchCodes {
    // Vectors of 256 bits at every instruction set: they hold one chunk of 16 numbers.
    typedef uint16_t Codes __attribute__((vector_size(32)));
    typedef int32_t Sums __attribute__((vector_size(32)));
    typedef float Floats16 __attribute__((vector_size(64)));
    template <int N>
    struct Row;  // what belongs to one key: a number for each of N query heads
    static constexpr int ahead = 16;                       // rows that are fetched before they are needed
    static constexpr int most = 8 * 16 * 16;               // numbers of a tile's queries at the largest head_dim

    // A chunk of 16 numbers of `Bits` bits is Bits / 2 words of 32 bits; number l stands in word l % words at bit Bits * (l / words).
    // Unpacking repeats the words over the vector as halves, moves each number to the top of its half by a multiplication
    // (AVX2 shifts all halves alike) and down again. `number_at` says which number comes to stand where.
    template <int Bits>
    static SAKUIN_INLINE Codes unpack(const uint8_t* p) {
        if constexpr (Bits == 8) {
            typedef uint8_t Bytes __attribute__((vector_size(16)));
            Bytes b;
            __builtin_memcpy(&b, p, sizeof b);
            return __builtin_convertvector(b, Codes);
        } else {
            constexpr int halves = Bits;  // twice as many as words
            Codes w, lift;
            if constexpr (Bits == 4) {
                typedef uint64_t L __attribute__((vector_size(32)));
                uint64_t two;
                __builtin_memcpy(&two, p, 8);
                w = reinterpret_cast<Codes>(L{} + two);
            } else {
                typedef uint32_t L __attribute__((vector_size(32)));
                uint32_t one;
                __builtin_memcpy(&one, p, 4);
                w = reinterpret_cast<Codes>(L{} + one);
            }
            for (int i = 0; i < 16; ++i) lift[i] = static_cast<uint16_t>(1u << (16 - Bits - Bits * (i / halves)));
            return (w * lift) >> (16 - Bits);
        }
    }
    template <int Bits>
    static constexpr int number_at(int i) {
        if (Bits == 8) return i / 4 + 4 * (i % 4);
        const int words = Bits / 2, half = i % (2 * words), word = half / 2, field = i / (2 * words) + (half % 2) * (16 / Bits);
        return field * words + word;
    }

    // sums + the products of neighbours, added in pairs.
    static SAKUIN_INLINE Sums dot(Sums sums, Codes codes, Codes query) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
        return reinterpret_cast<Sums>(_mm256_dpwssd_epi32(reinterpret_cast<__m256i>(sums), reinterpret_cast<__m256i>(codes), reinterpret_cast<__m256i>(query)));
#elif defined(__AVX2__)
        return sums + reinterpret_cast<Sums>(_mm256_madd_epi16(reinterpret_cast<__m256i>(codes), reinterpret_cast<__m256i>(query)));
#else
        const Sums a = reinterpret_cast<Sums>(codes), b = reinterpret_cast<Sums>(query);
        return sums + (a & 0xffff) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
    }

    // The projected queries of a tile of query heads, the coordinates in the order of `unpack`: each head's chunk k beside the others',
    // so that one address serves all. In steps of `unit` (one a query head). A sum stays below 2^31: 16 chunks of 255 times 2^15.
    struct Queries {
        alignas(32) int16_t p[most];
        float unit[8], start[8];  // start: the score of a row whose numbers are all 0, without the sketch
    };
    template <int G>
    static void prepare(const CodeRows& r, int first, Queries& q) {
        const int chunks = r.eights + r.fours + r.twos;
        for (int g = 0; g < 8; ++g) q.unit[g] = q.start[g] = 0.0f;
        for (int g = 0; g < G; ++g) {
            const float* from = r.p + (first + g) * r.head_dim;
            float p[most / 8];
            Floats16 most_of = {}, middle = {};
            for (int k = 0; k < chunks; ++k) {
                Floats16 x;
                for (int i = 0; i < 16; ++i) {
                    const int16_t c = r.coordinate[k * 16 + i];
                    x[i] = c < 0 ? 0.0f : from[c];
                }
                Floats16 step;
                __builtin_memcpy(&step, r.step + k * 16, sizeof step);
                x *= step;
                __builtin_memcpy(p + k * 16, &x, sizeof x);
                middle += x * (k < r.eights ? 127.5f : k < r.eights + r.fours ? 7.5f : 1.5f);
                x = x < 0.0f ? -x : x;
                most_of = x > most_of ? x : most_of;
            }
            float largest = 0.0f;
            for (int i = 0; i < 16; ++i) {
                largest = most_of[i] > largest ? most_of[i] : largest;
                q.start[g] -= middle[i];
            }
            if (!(largest > 0.0f)) largest = 1.0f;
            const float inverse = 32767.0f / largest;
            q.unit[g] = largest / 32767.0f;
            for (int k = 0; k < chunks; ++k) {
                int16_t* to = q.p + (k * G + g) * 16;
                if (k < r.eights)
                    reorder<8>(p + k * 16, inverse, to);
                else if (k < r.eights + r.fours)
                    reorder<4>(p + k * 16, inverse, to);
                else
                    reorder<2>(p + k * 16, inverse, to);
            }
        }
    }

    // fresh (m, padded): the scores of the found keys by their codes, softcap and all else left out.
    static void score(const Rescore& r) {
        float* fresh = r.fresh;
        for (int g = 0; g < r.map.group; g += 8) switch (r.map.group - g < 8 ? r.map.group - g : 8) {
                case 1: tile<4, 1>(r, g, fresh); break;
                case 2: tile<4, 2>(r, g, fresh); break;
                case 3: tile<4, 3>(r, g, fresh); break;
                case 4: tile<4, 4>(r, g, fresh); break;
                case 5: tile<8, 5>(r, g, fresh); break;
                case 6: tile<8, 6>(r, g, fresh); break;
                case 7: tile<8, 7>(r, g, fresh); break;
                case 8: tile<8, 8>(r, g, fresh); break;
            }
    }

private:
    template <int Bits>
    static SAKUIN_INLINE void reorder(const float* p, float inverse, int16_t* to) {
        for (int i = 0; i < 16; ++i) {
            const float x = p[number_at<Bits>(i)] * inverse;
            to[i] = static_cast<int16_t>(static_cast<int32_t>(x + (x < 0.0f ? -0.5f : 0.5f)));
        }
    }

    // G query heads from `first`, in rows of N; what fills a row up has unit, scale and bias 0.
    template <int N, int G>
    static void tile(const Rescore& r, int first, float* fresh) {
        using Floats = typename Row<N>::Floats;
        const CodeRows& c = r.codes;
        const int width = padded(r.map.group);
        Queries q;
        prepare<G>(c, first, q);
        Floats unit, scale, bias;
        for (int g = 0; g < N; ++g) {
            unit[g] = q.unit[g];
            scale[g] = r.map.scale[first + g];
            bias[g] = r.map.bias[first + g] + q.start[g];
        }
        for (int64_t i = 0; i < r.m; ++i) {
            if (i + ahead < r.m) {  // a row may lie on two lines
                const uint8_t* later = c.codes + static_cast<int64_t>(r.index[i + ahead]) * c.row_bytes;
                I::prefetch(later);
                I::prefetch(later + c.row_bytes - 1);
            }
            const uint8_t* row = c.codes + static_cast<int64_t>(r.index[i]) * c.row_bytes;
            Sums sums[N] = {};
            const int16_t* query = q.p;
            const auto chunk = [&](Codes x) {
                for (int g = 0; g < G; ++g) {
                    Codes y;
                    __builtin_memcpy(&y, query + g * 16, sizeof y);
                    sums[g] = dot(sums[g], x, y);
                }
                query += G * 16;
            };
            for (int k = 0; k < c.eights; ++k, row += 16) chunk(unpack<8>(row));
            for (int k = 0; k < c.fours; ++k, row += 8) chunk(unpack<4>(row));
            for (int k = 0; k < c.twos; ++k, row += 4) chunk(unpack<2>(row));
            typename Row<N>::Halves z;
            __builtin_memcpy(&z, r.rows + i * width + first, sizeof z);
            const Floats by_sketch = __builtin_convertvector(__builtin_convertvector(z, typename Row<N>::Whole), Floats) * scale + bias;
            const Floats x = __builtin_convertvector(total<N>(sums), Floats) * unit + by_sketch;
            __builtin_memcpy(fresh + i * width + first, &x, sizeof x);
        }
    }

    // One sum for each of N vectors.
    template <int N>
    static SAKUIN_INLINE typename Row<N>::Whole total(const Sums (&x)[N]) {
#if defined(__AVX2__)
        __m256i quads[N / 4];  // in each 128-bit half: parts of four sums
        for (int k = 0; k < N / 4; ++k) {
            const __m256i *v = reinterpret_cast<const __m256i*>(x) + 4 * k;
            quads[k] = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
        }
        if constexpr (N == 4) {
            return reinterpret_cast<typename Row<N>::Whole>(_mm_add_epi32(_mm256_castsi256_si128(quads[0]), _mm256_extracti128_si256(quads[0], 1)));
        } else {
            return reinterpret_cast<typename Row<N>::Whole>(_mm256_add_epi32(_mm256_permute2x128_si256(quads[0], quads[1], 0x20),
                                                                           _mm256_permute2x128_si256(quads[0], quads[1], 0x31)));
        }
#else
        typename Row<N>::Whole sums = {};
        for (int g = 0; g < N; ++g)
            for (int i = 0; i < 8; ++i) sums[g] += x[g][i];
        return sums;
#endif
    }
};

template <class I>
template <int N>
struct SketchCodes<I>::Row {
    typedef float Floats __attribute__((vector_size(N * 4)));
    typedef int32_t Whole __attribute__((vector_size(N * 4)));
    typedef uint16_t Halves __attribute__((vector_size(N * 2)));
};

}  // namespace sakuin
