// Single operations of the vector type over whole arrays, which the tests hold against scalar code, two of which (to
// float32) are used for queries, and the two roofs that benchmarks measure against.
#pragma once

#include "kernels/simd.hpp"

namespace sakuin {

template <class I>
struct Probe {
    using F = typename I::F;
    using U = typename I::U;
    static constexpr int L = I::lanes;

    static void exp2(const float* x, float* y, size_t n, bool exact) {
        for (size_t i = 0; i < n; i += L) {
            const int m = n - i < L ? static_cast<int>(n - i) : L;
            const F v = I::load(x + i, m);
            I::store(y + i, exact ? I::template exp2<true>(v) : I::template exp2<false>(v), m);
        }
    }
    static void bf16_to_f32(const uint16_t* x, float* y, size_t n) {
        size_t i = 0;
        for (; i + L <= n; i += L) I::store(y + i, I::load_bf16(x + i));
        if (i < n) {
            uint16_t part[L] = {};
            __builtin_memcpy(part, x + i, (n - i) * 2);
            I::store(y + i, I::load_bf16(part), static_cast<int>(n - i));
        }
    }
    static void fp16_to_f32(const uint16_t* x, float* y, size_t n) {
        size_t i = 0;
        for (; i + L <= n; i += L) I::store(y + i, I::load_fp16(x + i));
        if (i < n) I::store(y + i, I::load_fp16(x + i, static_cast<int>(n - i)), static_cast<int>(n - i));
    }
    static void transpose(const uint32_t* x, uint32_t* y) {
        U rows[L];
        for (int i = 0; i < L; ++i) rows[i] = I::load_u32(x + i * L);
        I::transpose(rows);
        for (int i = 0; i < L; ++i) I::store_u32(y + i * L, rows[i]);
    }
    static void reduce(const float* x, size_t n, float* sum, float* max) {
        F s{}, m = I::set1(-__builtin_inff());
        for (size_t i = 0; i < n; i += L) {
            s += I::load(x + i);
            m = I::max(m, I::load(x + i));
        }
        *sum = I::hsum(s);
        *max = I::hmax(m);
    }
    static void look_up(const uint8_t* codes, const uint16_t* table, bool high, const uint16_t* z, uint16_t* entries,
                        uint32_t* mask) {
        const auto t = I::table16(table);
        const auto found = high ? I::template entries<4>(codes, t) : I::template entries<0>(codes, t);
        I::store(entries, found);
        *mask = I::at_least(z, found);
    }

    static uint64_t read_all(const void* p, size_t bytes) {
        const char* at = static_cast<const char*>(p);
        U acc[4] = {};
        for (size_t i = 0; i < bytes; i += 256) {
            __builtin_prefetch(at + i + 4096, 0, 3);
            __builtin_prefetch(at + i + 4096 + 64, 0, 3);
            __builtin_prefetch(at + i + 4096 + 128, 0, 3);
            __builtin_prefetch(at + i + 4096 + 192, 0, 3);
            for (int j = 0; j < 256 / (L * 4); ++j) acc[j % 4] ^= I::load_u32(at + i + static_cast<size_t>(j) * L * 4);
        }
        const U all = acc[0] ^ acc[1] ^ acc[2] ^ acc[3];
        uint64_t sum = 0;
        for (int i = 0; i < L; ++i) sum += all[i];
        return sum;
    }
    static float multiply_add(int64_t rounds) {
        F acc[12], a = I::set1(0.999f), b = I::set1(1e-3f);
        for (int i = 0; i < 12; ++i) acc[i] = I::set1(static_cast<float>(i));
        for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
            for (int i = 0; i < 12; ++i) acc[i] = I::fma(acc[i], a, b);
        }
        F sum{};
        for (int i = 0; i < 12; ++i) sum += acc[i];
        return I::hsum(sum);
    }
};

}  // namespace sakuin
