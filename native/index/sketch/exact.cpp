// Keys and values in i8 are multiplied as they are: what they stand for (Int8Scales) is a matter of the query before,
// of a constant per query head afterwards, and of the weights that values are multiplied by.
#include "index/sketch/exact.hpp"

namespace sakuin {
namespace {

const void* of_head(const SketchSegment& s, const void* rows, int64_t width, int64_t head) {
    return static_cast<const char*>(rows) + head * s.n * width * dtype_size(s.dtype);
}

}  // namespace

int64_t exact_bytes(const SketchSegment& s, int64_t m) {
    const int64_t rows = m * (s.shape.head_dim + s.shape.value_dim) * dtype_size(s.dtype);
    return s.dtype == DType::i8 && m > 0 ? rows + 4 * m + 8 * s.shape.head_dim : rows;
}

void score_exact(const SketchKernels& k, const SketchSegment& s, int64_t head, const float* q, const uint32_t* index,
                 int64_t m, int group, float* scores) {
    const int64_t d = s.shape.head_dim;
    const auto score = [&](const float* query) {
        k.score_rows(query, of_head(s, s.keys, d, head), s.dtype, static_cast<int>(d), index, m, group, scores);
    };
    if (s.dtype != DType::i8) return score(q);
    if (m == 0) return;
    const float *scale = s.scales.key_scale + head * d, *zero = s.scales.key_zero + head * d;
    std::vector<float> scaled(static_cast<size_t>(group * d));
    float bias[max_group] = {};
    for (int64_t g = 0; g < group; ++g)
        for (int64_t j = 0; j < d; ++j) {
            scaled[static_cast<size_t>(g * d + j)] = q[g * d + j] * scale[j];
            bias[g] += q[g * d + j] * zero[j];
        }
    score(scaled.data());
    const int width = padded(group);
    for (int64_t i = 0; i < m; ++i)
        for (int g = 0; g < width; ++g) scores[i * width + g] += bias[g];
}

void add_exact(const SketchKernels& k, const SketchSegment& s, int64_t head, const uint32_t* index, int64_t m,
               const float* weights, int group, float* out) {
    const auto add = [&](const float* w) {
        const int64_t width = s.shape.value_dim;
        k.add_rows(of_head(s, s.values, width, head), s.dtype, static_cast<int>(width), index, m, w, group, out);
    };
    if (s.dtype != DType::i8) return add(weights);
    const float* scale = s.scales.value_scale + head * s.n;
    const size_t width = static_cast<size_t>(padded(group)), rows = static_cast<size_t>(m);
    std::vector<float> scaled(rows * width);
    for (size_t i = 0; i < rows; ++i)
        for (size_t g = 0; g < width; ++g) scaled[i * width + g] = weights[i * width + g] * scale[index[i]];
    add(scaled.data());
}

}  // namespace sakuin
