// Keys and values in i8 are multiplied as they are: what they stand for (Int8Scales) is a matter of the query before,
// of a constant per query head afterwards, and of the weights that values are multiplied by.
#include "index/sketch/exact.hpp"

#include <algorithm>
#include <cmath>

#include "index/arithmetic.hpp"
#include "kernels/dispatch.hpp"

namespace sakuin {
namespace {

const void* of_head(const SketchSegment& s, const void* rows, int64_t width, int64_t head) {
    return static_cast<const char*>(rows) + head * s.n * width * dtype_size(s.dtype);
}

// A row of keys as the numbers that it stands for.
void read_key(const SketchSegment& s, int64_t head, int64_t row, std::vector<double>& key, std::vector<float>& held) {
    const int64_t d = s.shape.head_dim;
    const char* const from = static_cast<const char*>(of_head(s, s.keys, d, head)) + row * d * dtype_size(s.dtype);
    if (s.dtype == DType::i8) {
        const float *scale = s.scales.key_scale + head * d, *zero = s.scales.key_zero + head * d;
        for (int64_t j = 0; j < d; ++j)
            key[at(j)] = static_cast<double>(reinterpret_cast<const int8_t*>(from)[j]) * static_cast<double>(scale[j]) +
                         static_cast<double>(zero[j]);
        return;
    }
    widen(kernels(), from, s.dtype, held.data(), at(d));
    std::copy(held.begin(), held.end(), key.begin());
}

// Scores that left float32, as sums of large products may, once more in double. Whoever holds a number that is none
// keeps it.
void saturate(const SketchSegment& s, int64_t head, const float* q, const uint32_t* index, int64_t m, int group,
              float* scores) {
    const int64_t d = s.shape.head_dim, width = padded(group);
    bool odd = false;
    for (int64_t i = 0; i < m * width; ++i) odd |= !(std::abs(scores[i]) <= most_score);
    if (!odd) return;
    std::vector<double> key(at(d));
    std::vector<float> held(at(d));
    for (int64_t i = 0; i < m; ++i) {
        bool read = false;
        for (int64_t g = 0; g < group; ++g) {
            float& score = scores[i * width + g];
            if (std::abs(score) <= most_score) continue;
            if (!read) read_key(s, head, index[i], key, held);
            read = true;
            double sum = 0.0;
            for (int64_t j = 0; j < d; ++j) sum += static_cast<double>(q[g * d + j]) * key[at(j)];
            score = std::isnan(sum) ? static_cast<float>(sum)
                                    : static_cast<float>(std::clamp<double>(sum, -static_cast<double>(most_score),
                                                                            static_cast<double>(most_score)));
        }
    }
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
    if (m == 0) return;
    if (s.dtype != DType::i8) {
        score(q);
        return saturate(s, head, q, index, m, group, scores);
    }
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
    saturate(s, head, q, index, m, group, scores);
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
