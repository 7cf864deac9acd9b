// Sealing a segment of `ivf`: k-means per KV head, then keys and values in the order of their lists.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "index/ivf.hpp"
#include "kernels/dispatch.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

// Keys per list that the centroids are found from.
constexpr int64_t sampled = 32;
// Keys that `spread` is found from.
constexpr int64_t spread_rows = 4096;
constexpr int64_t block_rows = 256;

size_t at(int64_t i) { return static_cast<size_t>(i); }

uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f7f0000u) bits = (bits & 0x80000000u) | 0x7f7f0000u;  // rounded up it would be infinite
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// The k-means of one head.
struct Head {
    int64_t head;
    std::vector<float> mean;        // (head_dim)
    std::vector<float> centroids;   // (lists, head_dim), less the mean
    std::vector<float> transposed;  // (head_dim, padded)
    std::vector<float> half_norms;  // (padded)
    std::vector<uint32_t> list;     // of each row, or of each sampled one
};

class Sealer {
public:
    Sealer(const IvfSeal& a, const IvfSegment& s)
        : a_(a), s_(s), d_(s.head_dim), padded_((s.lists + nearest_strip - 1) / nearest_strip * nearest_strip),
          sample_(std::min(s.n, s.lists * sampled)), heads_(at(s.heads)) {
        for (int64_t h = 0; h < s.heads; ++h) heads_[at(h)].head = h;
    }

    void run() {
        each([this](Head& h) { begin(h); });
        for (int i = 0; i < a_.iterations && s_.lists > 1; ++i) {
            assign(sample_);
            each([this](Head& h) { move(h); });
        }
        assign(s_.n);
        each([this](Head& h) { write(h); });
    }

private:
    template <class Fn>
    void each(const Fn& fn) {
        parallel_for(s_.heads, a_.n_threads, [&](int64_t h) { fn(heads_[at(h)]); });
    }

    // Row i of m rows that are evenly spaced over the segment.
    int64_t evenly(int64_t i, int64_t m) const { return i * s_.n / m; }

    void read(const void* rows, int64_t head, int64_t row, float* to) const {
        widen(*a_.kernels, static_cast<const char*>(rows) + (head * s_.n + row) * d_ * dtype_size(s_.dtype), s_.dtype, to, at(d_));
    }
    void read_centred(const Head& h, int64_t row, float* to) const {
        read(a_.keys, h.head, row, to);
        for (int64_t j = 0; j < d_; ++j) to[j] -= h.mean[at(j)];
    }

    void begin(Head& h) const {
        std::vector<double> sum(at(d_), 0.0);
        std::vector<float> x(at(d_));
        for (int64_t i = 0; i < s_.n; ++i) {
            read(a_.keys, h.head, i, x.data());
            for (int64_t j = 0; j < d_; ++j) sum[at(j)] += static_cast<double>(x[at(j)]);
        }
        h.mean.resize(at(d_));
        for (int64_t j = 0; j < d_; ++j) h.mean[at(j)] = static_cast<float>(sum[at(j)] / static_cast<double>(s_.n));
        h.centroids.resize(at(s_.lists * d_));
        for (int64_t l = 0; l < s_.lists; ++l) read_centred(h, evenly(l, s_.lists), h.centroids.data() + l * d_);
        h.list.resize(at(s_.n));
        transpose(h);
    }

    void transpose(Head& h) const {
        h.transposed.assign(at(d_ * padded_), 0.0f);
        h.half_norms.assign(at(padded_), std::numeric_limits<float>::infinity());
        for (int64_t l = 0; l < s_.lists; ++l) {
            float norm = 0.0f;
            for (int64_t j = 0; j < d_; ++j) {
                const float x = h.centroids[at(l * d_ + j)];
                h.transposed[at(j * padded_ + l)] = x;
                norm += x * x;
            }
            h.half_norms[at(l)] = norm * 0.5f;
        }
    }

    // Finds the list of each of `m` rows that are evenly spaced over the segment.
    void assign(int64_t m) {
        const int64_t blocks = (m + block_rows - 1) / block_rows;
        parallel_for(s_.heads * blocks, a_.n_threads, [&](int64_t i) {
            Head& h = heads_[at(i / blocks)];
            const int64_t first = i % blocks * block_rows, rows = std::min(block_rows, m - first);
            std::vector<float> x(at(rows * d_));
            for (int64_t r = 0; r < rows; ++r) read_centred(h, evenly(first + r, m), x.data() + r * d_);
            a_.kernels->nearest({x.data(), rows, d_, h.transposed.data(), h.half_norms.data(), padded_, h.list.data() + first});
        });
    }

    // Centroids to the mean of their sampled rows; one that has none stays where it is.
    void move(Head& h) const {
        std::vector<float> sums(h.centroids.size(), 0.0f), x(at(d_));
        std::vector<int64_t> count(at(s_.lists), 0);
        for (int64_t i = 0; i < sample_; ++i) {
            const int64_t l = h.list[at(i)];
            read_centred(h, evenly(i, sample_), x.data());
            ++count[at(l)];
            for (int64_t j = 0; j < d_; ++j) sums[at(l * d_ + j)] += x[at(j)];
        }
        for (int64_t l = 0; l < s_.lists; ++l)
            if (count[at(l)] > 0)
                for (int64_t j = 0; j < d_; ++j) h.centroids[at(l * d_ + j)] = sums[at(l * d_ + j)] / static_cast<float>(count[at(l)]);
        transpose(h);
    }

    template <class T>
    T* out(const T* p, int64_t head, int64_t per_head) const {
        return const_cast<T*>(p) + head * per_head;
    }

    void write(Head& h) const {
        const int64_t row_bytes = d_ * dtype_size(s_.dtype), n = s_.n;
        int32_t *start = out(s_.start, h.head, s_.lists + 1), *order = out(s_.order, h.head, n);
        std::fill_n(start, s_.lists + 1, 0);
        for (int64_t i = 0; i < n; ++i) ++start[h.list[at(i)] + 1];
        for (int64_t l = 0; l < s_.lists; ++l) start[l + 1] += start[l];
        std::vector<int32_t> next(start, start + s_.lists);
        std::copy_n(h.mean.data(), d_, out(s_.mean, h.head, d_));
        for (int64_t i = 0; i < n; ++i) order[next[h.list[at(i)]]++] = static_cast<int32_t>(i);

        std::vector<float> x(at(d_)), key(at(d_)), value(at(d_));
        for (int64_t l = 0; l < s_.lists; ++l) {
            std::fill(key.begin(), key.end(), 0.0f);
            std::fill(value.begin(), value.end(), 0.0f);
            const float share = 1.0f / static_cast<float>(std::max(start[l + 1] - start[l], 1));
            for (int64_t r = start[l]; r < start[l + 1]; ++r) {
                const int64_t from = (h.head * n + order[r]) * row_bytes, to = (h.head * n + r) * row_bytes;
                std::memcpy(static_cast<char*>(const_cast<void*>(s_.keys)) + to, static_cast<const char*>(a_.keys) + from, at(row_bytes));
                std::memcpy(static_cast<char*>(const_cast<void*>(s_.values)) + to, static_cast<const char*>(a_.values) + from, at(row_bytes));
                read_centred(h, order[r], x.data());
                for (int64_t j = 0; j < d_; ++j) key[at(j)] += x[at(j)] * share;
                read(a_.values, h.head, order[r], x.data());
                for (int64_t j = 0; j < d_; ++j) value[at(j)] += x[at(j)] * share;
            }
            uint16_t *c = out(s_.centroid, h.head, s_.lists * d_) + l * d_, *v = out(s_.mean_value, h.head, s_.lists * d_) + l * d_;
            for (int64_t j = 0; j < d_; ++j) {
                h.centroids[at(l * d_ + j)] = key[at(j)];
                c[j] = to_bf16(key[at(j)]);
                v[j] = to_bf16(value[at(j)]);
            }
        }
        write_spread(h);
    }

    void write_spread(const Head& h) const {
        const int64_t m = std::min(s_.n, spread_rows);
        std::vector<float> x(at(d_)), sum(at(d_ * d_), 0.0f);
        for (int64_t i = 0; i < m; ++i) {
            const int64_t row = evenly(i, m);
            read_centred(h, row, x.data());
            const float* centroid = h.centroids.data() + h.list[at(row)] * d_;
            for (int64_t j = 0; j < d_; ++j) x[at(j)] -= centroid[j];
            for (int64_t j = 0; j < d_; ++j) {
                float* to = sum.data() + j * d_;
                const float scale = x[at(j)];
                for (int64_t k = 0; k < d_; ++k) to[k] += scale * x[at(k)];
            }
        }
        uint16_t* to = out(s_.spread, h.head, d_ * d_);
        for (size_t i = 0; i < sum.size(); ++i) to[i] = to_bf16(sum[i] / static_cast<float>(m));
    }

    const IvfSeal& a_;
    const IvfSegment& s_;
    const int64_t d_, padded_, sample_;
    std::vector<Head> heads_;
};

}  // namespace

void seal_ivf(const IvfSeal& a, const IvfSegment& s) { Sealer(a, s).run(); }

}  // namespace sakuin
