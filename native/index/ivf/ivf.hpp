// The `ivf` index: keys in lists by k-means, the lists with the best centroids attended exactly, the others estimated
// by their centroid and mean value or left out (docs/indexes.md). Knows nothing of Python.
#pragma once

#include <cstdint>
#include <vector>

#include "index/rows.hpp"
#include "kernels/kernels.hpp"

namespace sakuin {

// One sealed segment: pointers to memory that somebody else keeps alive. A head's keys and values stand list after
// list, so that a probed list is a straight read. Every head has the same number of lists; some may be empty.
struct IvfSegment {
    int64_t heads, n, lists, head_dim, value_dim;
    DType dtype;
    const void *keys, *values;   // (heads, n, head_dim), (heads, n, value_dim)
    const int32_t* order;        // (heads, n): position in the segment of the row
    const int32_t* start;        // (heads, lists + 1): the first row of each list; the last is n
    const float* mean;           // (heads, head_dim): near the mean of the keys, to measure centroids from
    const uint16_t* centroid;    // (heads, lists, head_dim) bf16: the mean key of each list minus `mean`
    const uint16_t* mean_value;  // (heads, lists, value_dim) bf16
    const uint16_t* spread;      // (heads, head_dim, head_dim) bf16: mean of r r^T, r a key minus its list's centroid
};

// Throws std::invalid_argument, with a sentence, where a number of order or start leads out of its array. All others
// may be anything: they change results and nothing else.
void check_contents(const IvfSegment& segment);

// Fills everything of `segment`; the pointers are written through. Without a base its lists come from k-means over keys
// (heads, segment.n, head_dim), which come with values (value_dim), of its dtype in order of position: Lloyd's
// algorithm for `iterations` rounds on a sample of the keys, from keys evenly spaced in the segment. The result is the
// same for any number of threads.
//
// With a base, an older segment, the new one holds the base's tokens and after them segment.n - base->n new ones, and
// has the base's lists and segment.lists - base->lists new ones, found by k-means over the new keys alone. A new key
// then goes to the nearest list, old or new; old keys stay where they are. So adding a few keys costs little.
struct IvfSeal {
    const Kernels* kernels;
    const void *keys, *values;
    const IvfSegment* base;  // or null; of the segment's heads, head_dims and dtype, and of fewer tokens and lists
    int iterations;
    int n_threads;
};
void seal_ivf(const IvfSeal&, const IvfSegment& segment);

struct IvfAttend : RowCall {
    std::vector<const IvfSegment*> segments;
    // Each query head probes the lists with the largest q.centroid: `probes` lists that are not empty, or, where that
    // is 0, until `budget` tokens are reached. What one query head probes, its group attends.
    int64_t probes, budget;
};

void attend_ivf(IvfAttend&);

// The k tokens with the largest q.k in the lists that each query head probes, in as many more of the next best as hold
// k tokens: scores and tokens (heads * group, t, k). k is at most the number of tokens.
void search_ivf(const IvfAttend&, int64_t k, float* scores, int64_t* tokens);

}  // namespace sakuin
