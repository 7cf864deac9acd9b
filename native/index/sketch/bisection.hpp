// Which keys of a `sketch` segment share a list. Numbers in, numbers out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sakuin {

// Features of keys as the bisection reads them: one row a key, padded with zeros to whole vectors.
class FeatureRows {
public:
    FeatureRows(int64_t n, int64_t width);
    // Sets feature `column` of every key to scale * x.
    void set(int64_t column, const float* x, float scale);

    const float* row(int32_t i) const { return data_.data() + static_cast<size_t>(i) * static_cast<size_t>(stride_); }
    int64_t size() const { return n_; }
    int64_t width() const { return width_; }

private:
    int64_t n_, width_, stride_;
    std::vector<float> data_;
};

// The keys in the order of lists of 64 that lie close together:
// halved where the features spread most, until a list is left.
std::vector<int32_t> bisect(const FeatureRows& features);

}  // namespace sakuin
