#include "index/sketch/bisection.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "kernels/sketch_args.hpp"

namespace sakuin {
namespace {

typedef float Four __attribute__((vector_size(16)));
constexpr int64_t tile = 8;  // features in a pass: two vectors, whose sums stay in registers

Four load(const float* x) {
    Four v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

// Orders as the float does, both zeros alike.
uint32_t sortable(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0f);
    return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

class Bisection {
public:
    explicit Bisection(const FeatureRows& features)
        : features_(features), order_(static_cast<size_t>(features.size())), keys_(order_.size()) {
        std::iota(order_.begin(), order_.end(), 0);
        split(0, order_.size());
    }
    std::vector<int32_t> order() && { return std::move(order_); }

private:
    void split(size_t from, size_t to) {
        const size_t lists = (to - from + list_size - 1) / list_size;
        if (lists <= 1) return;
        const size_t middle = from + lists / 2 * list_size;
        if (const int64_t widest = widest_feature(from, to); widest >= 0) halve(from, middle, to, widest);
        split(from, middle);
        split(middle, to);
    }

    int64_t widest_feature(size_t from, size_t to) const {
        int64_t widest = -1;
        float most = -1.0f;
        for (int64_t first = 0; first < features_.width(); first += tile) {
            Four sum[2] = {}, squares[2] = {};
            for (size_t i = from; i < to; ++i) {
                const float* row = features_.row(order_[i]) + first;
                for (int k = 0; k < 2; ++k) {
                    const Four v = load(row + 4 * k);
                    sum[k] += v;
                    squares[k] += v * v;
                }
            }
            for (int64_t j = first; j < std::min(first + tile, features_.width()); ++j) {
                const int64_t k = (j - first) / 4, lane = j % 4;
                const float spread = squares[k][lane] - sum[k][lane] * sum[k][lane] / static_cast<float>(to - from);
                if (spread > most) {
                    most = spread;
                    widest = j;
                }
            }
        }
        return widest;
    }

    // The smaller numbers first; among equal ones the earlier keys.
    // One number holds both, so that each comparison is one.
    void halve(size_t from, size_t middle, size_t to, int64_t feature) {
        const auto begin = keys_.begin(), end = begin + static_cast<ptrdiff_t>(to - from);
        for (size_t i = from; i < to; ++i)
            keys_[i - from] = static_cast<uint64_t>(sortable(features_.row(order_[i])[feature])) << 32 |
                              static_cast<uint32_t>(order_[i]);
        std::nth_element(begin, begin + static_cast<ptrdiff_t>(middle - from), end);
        for (size_t i = from; i < to; ++i) order_[i] = static_cast<int32_t>(keys_[i - from] & 0xffffffffu);
    }

    const FeatureRows& features_;
    std::vector<int32_t> order_;
    std::vector<uint64_t> keys_;
};

}  // namespace

FeatureRows::FeatureRows(int64_t n, int64_t width)
    : n_(n), width_(width), stride_((width + tile - 1) / tile * tile), data_(static_cast<size_t>(n * stride_)) {}

void FeatureRows::set(int64_t column, const float* x, float scale) {
    float* to = data_.data() + column;
    for (int64_t i = 0; i < n_; ++i) to[i * stride_] = scale * x[i];
}

std::vector<int32_t> bisect(const FeatureRows& features) { return Bisection(features).order(); }

}  // namespace sakuin
