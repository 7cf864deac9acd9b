// Searches over chosen rows: what every index shares that returns the keys with the largest inner products.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "index/arithmetic.hpp"
#include "index/rows.hpp"

namespace sakuin {
namespace {

constexpr int64_t block_rows = 1024;  // scored at a time

}  // namespace

float tamed(const float* q, int64_t head_dim, float* to) {
    constexpr float most = 1 << 20;
    float largest = 0.0f;
    for (int64_t j = 0; j < head_dim; ++j) largest = std::max(largest, std::abs(q[j]));
    const int bits = largest > most && std::isfinite(largest) ? std::ilogb(largest) : 0;
    for (int64_t j = 0; j < head_dim; ++j) to[j] = bits == 0 ? q[j] : std::ldexp(q[j], -bits);
    return std::ldexp(1.0f, bits);
}

float untamed(float score, float unit) {
    constexpr float most = std::numeric_limits<float>::max();
    return std::isnan(score) ? -most : std::min(std::max(score * unit, -most), most);
}

void search_rows(const Kernels& kernels, const float* query, int64_t head_dim, const std::vector<RowPick>& picks,
                 int64_t k, float* scores, int64_t* tokens) {
    constexpr int64_t width = 4;  // padded(1)
    const int d = static_cast<int>(head_dim);
    std::vector<std::pair<float, int64_t>> found;
    std::vector<float> block(at((block_rows + 4) * width));
    std::vector<uint32_t> straight(at(block_rows));
    std::iota(straight.begin(), straight.end(), 0u);
    for (const RowPick& p : picks)
        for (int64_t from = 0; from < p.m; from += block_rows) {
            const RowStore& s = *p.store;
            const int64_t m = std::min(block_rows, p.m - from), row_bytes = head_dim * dtype_size(s.dtype);
            if (p.rows != nullptr)
                kernels.sketch->score_rows(query, s.keys, s.dtype, d, p.rows + from, m, 1, block.data());
            else
                kernels.sketch->score_rows(query, static_cast<const char*>(s.keys) + (p.begin + from) * row_bytes,
                                           s.dtype, d, straight.data(), m, 1, block.data());
            for (int64_t i = 0; i < m; ++i) {
                const float score = block[at(i * width)];
                // What is not a number has no place in an order.
                found.emplace_back(std::isnan(score) ? nothing : score,
                                   s.token(p.rows != nullptr ? p.rows[from + i] : p.begin + from + i));
            }
        }
    const auto better = [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    // Fewer than k there are only where nobody checked what was picked.
    const int64_t there = std::min<int64_t>(k, static_cast<int64_t>(found.size()));
    std::partial_sort(found.begin(), found.begin() + there, found.end(), better);
    for (int64_t i = 0; i < k; ++i) {
        scores[i] = i < there ? found[at(i)].first : nothing;
        tokens[i] = i < there ? found[at(i)].second : 0;
    }
}

}  // namespace sakuin
