// The `nearest` kernel: which of many centroids each row lies closest to. Centroids lie in lanes, so that no product
// needs a horizontal sum; a tile of rows times a strip of centroids stays in registers.
#pragma once

#include "kernels/nearest_args.hpp"
#include "kernels/simd.hpp"

namespace sakuin {

template <class I>
struct NearestRows {
    using F = typename I::F;
    using U = typename I::U;
    static constexpr int L = I::lanes;
    // Vectors of centroids in a strip; with R rows as many sums as there are registers for.
    static constexpr int V = L == 16 ? 4 : 2;
    static_assert(nearest_strip % (V * L) == 0);

    template <int R>
    static void tile(const Nearest& a, int64_t row) {
        F best[R];
        U which[R] = {};
        for (int r = 0; r < R; ++r) best[r] = I::set1(-__builtin_inff());
        const float* x = a.rows + row * a.head_dim;
        for (int64_t c = 0; c < a.padded; c += V * L) {
            F sum[R][V];
            for (int v = 0; v < V; ++v) {
                const F half = I::load(a.half_norms + c + v * L);
                for (int r = 0; r < R; ++r) sum[r][v] = -half;
            }
            for (int64_t j = 0; j < a.head_dim; ++j) {
                F k[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) k[v] = I::load(a.centroids + j * a.padded + c + v * L);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const F b = I::set1(x[r * a.head_dim + j]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) sum[r][v] = I::fma(b, k[v], sum[r][v]);
                }
            }
            for (int v = 0; v < V; ++v) {
                const U at = U{} + static_cast<uint32_t>(c + v * L);
                for (int r = 0; r < R; ++r) {
                    which[r] = sum[r][v] > best[r] ? at : which[r];
                    best[r] = sum[r][v] > best[r] ? sum[r][v] : best[r];
                }
            }
        }
        for (int r = 0; r < R; ++r) {
            // Lanes hold the first of their own bests; of equal lanes the first centroid counts,
            // whatever the number of lanes.
            float most = -__builtin_inff();
            uint32_t list = 0;
            for (int l = 0; l < L; ++l) {
                const uint32_t here = which[r][l] + static_cast<uint32_t>(l);
                if (best[r][l] > most || (best[r][l] == most && here < list)) {
                    most = best[r][l];
                    list = here;
                }
            }
            a.list[row + r] = most > -__builtin_inff() ? list : 0;
        }
    }

    static void nearest(const Nearest& a) {
        int64_t row = 0;
        for (; row + 4 <= a.m; row += 4) tile<4>(a, row);
        for (; row < a.m; ++row) tile<1>(a, row);
    }
};

}  // namespace sakuin
