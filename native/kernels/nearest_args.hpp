// Arguments of the `nearest` kernel, which k-means is made of.
#pragma once

#include <cstdint>

namespace sakuin {

constexpr int64_t nearest_strip = 64;  // centroids are filled up to a multiple of this

// For each row x the centroid c with the largest x.c - |c|^2 / 2, which is the nearest one; of equal ones the first.
struct Nearest {
    const float* rows;  // (m, head_dim)
    int64_t m, head_dim;
    const float* centroids;   // (head_dim, padded): a coordinate of all centroids, then the next
    const float* half_norms;  // (padded): half the squared length; +inf for what fills up
    int64_t padded;           // a multiple of nearest_strip
    uint32_t* list;           // out (m); 0 for a row that holds NaN
};

}  // namespace sakuin
