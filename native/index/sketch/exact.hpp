// True keys and values of a `sketch` segment, in whatever dtype they are kept.
#pragma once

#include <cstdint>
#include <vector>

#include "index/sketch/sketch.hpp"

namespace sakuin {

// Bytes read for the key and the value of `m` tokens of one KV head.
int64_t exact_bytes(const SketchSegment& segment, int64_t m);

// As SketchKernels::score_rows and add_rows, for one KV head of a segment;
// q (group, head_dim), rows as the segment holds them. Of finite numbers scores are finite, whatever their size: they
// saturate at most_score.
void score_exact(const SketchKernels&, const SketchSegment&, int64_t head, const float* q, const uint32_t* index,
                 int64_t m, int group, float* scores);
void add_exact(const SketchKernels&, const SketchSegment&, int64_t head, const uint32_t* index, int64_t m,
               const float* weights, int group, float* out);

}  // namespace sakuin
