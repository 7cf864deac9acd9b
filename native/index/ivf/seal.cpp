// Sealing a segment of `ivf`, or adding to one: k-means per KV head, then keys and values in the order of their lists.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "index/arithmetic.hpp"
#include "index/ivf/ivf.hpp"
#include "kernels/dispatch.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

// Keys per list that the centroids are found from.
constexpr int64_t sampled = 16;
// Keys that `spread` is found from.
constexpr int64_t spread_rows = 4096;
constexpr int64_t block_rows = 256;

// The k-means of one head, over the new keys.
struct Head {
    int64_t head;
    std::vector<float> mean;  // (head_dim): what is subtracted from keys, so that far from 0 nothing is rounded away
    std::vector<float> centroids;   // (lists, head_dim), less the mean; the base's lists come first
    std::vector<float> transposed;  // (head_dim, padded)
    std::vector<float> half_norms;  // (padded)
    int64_t padded;
    std::vector<uint32_t> list;  // of each new row, or of each sampled one
};

class Sealer {
public:
    Sealer(const IvfSeal& a, const IvfSegment& s)
        : a_(a), s_(s), d_(s.head_dim), base_lists_(a.base != nullptr ? a.base->lists : 0),
          base_n_(a.base != nullptr ? a.base->n : 0), lists_(s.lists - base_lists_), n_(s.n - base_n_),
          sample_(std::min(n_, lists_ * sampled)), heads_(at(s.heads)) {
        for (int64_t h = 0; h < s.heads; ++h) heads_[at(h)].head = h;
    }

    void run() {
        each([this](Head& h) { begin(h); });
        for (int i = 0; i < a_.iterations && lists_ > 1; ++i) {
            assign(sample_);
            each([this](Head& h) { move(h); });
        }
        if (base_lists_ > 0) each([this](Head& h) { transpose(h, 0, s_.lists); });
        assign(n_);
        each([this](Head& h) { write(h); });
    }

private:
    template <class Fn>
    void each(const Fn& fn) {
        parallel_for(s_.heads, a_.n_threads, [&](int64_t h) { fn(heads_[at(h)]); });
    }

    // Row i of m new rows that are evenly spaced.
    int64_t evenly(int64_t i, int64_t m) const { return i * n_ / m; }

    int64_t key_bytes() const { return d_ * dtype_size(s_.dtype); }
    int64_t value_bytes() const { return s_.value_dim * dtype_size(s_.dtype); }
    const char* new_row(const void* rows, int64_t row_bytes, int64_t head, int64_t row) const {
        return static_cast<const char*>(rows) + (head * n_ + row) * row_bytes;
    }
    const char* new_key(int64_t head, int64_t row) const { return new_row(a_.keys, key_bytes(), head, row); }
    char* row_of(const void* rows, int64_t row_bytes, int64_t head, int64_t row) const {
        return static_cast<char*>(const_cast<void*>(rows)) + (head * s_.n + row) * row_bytes;
    }
    char* key_of(int64_t head, int64_t row) const { return row_of(s_.keys, key_bytes(), head, row); }
    char* value_of(int64_t head, int64_t row) const { return row_of(s_.values, value_bytes(), head, row); }
    void read_centred(const Head& h, const char* row, float* to) const {
        widen(*a_.kernels, row, s_.dtype, to, at(d_));
        for (int64_t j = 0; j < d_; ++j) to[j] -= h.mean[at(j)];
    }

    void begin(Head& h) const {
        if (base_n_ > 0) {
            const float* mean = a_.base->mean + h.head * d_;
            h.mean.assign(mean, mean + d_);
        } else {
            std::vector<double> sum(at(d_), 0.0);
            std::vector<float> x(at(d_));
            for (int64_t i = 0; i < n_; ++i) {
                widen(*a_.kernels, new_key(h.head, i), s_.dtype, x.data(), at(d_));
                for (int64_t j = 0; j < d_; ++j) sum[at(j)] += static_cast<double>(x[at(j)]);
            }
            for (const double all : sum) h.mean.push_back(static_cast<float>(all / static_cast<double>(n_)));
        }
        h.centroids.resize(at(s_.lists * d_));
        for (int64_t i = 0; i < base_lists_ * d_; ++i)
            h.centroids[at(i)] = from_bf16(a_.base->centroid[h.head * base_lists_ * d_ + i]);
        for (int64_t l = 0; l < lists_; ++l)
            read_centred(h, new_key(h.head, evenly(l, lists_)), h.centroids.data() + (base_lists_ + l) * d_);
        h.list.resize(at(n_));
        transpose(h, base_lists_, lists_);
    }

    // Centroids `first` to first + lists - 1 as the kernel takes them.
    void transpose(Head& h, int64_t first, int64_t lists) const {
        h.padded = (lists + nearest_strip - 1) / nearest_strip * nearest_strip;
        h.transposed.assign(at(d_ * h.padded), 0.0f);
        h.half_norms.assign(at(h.padded), std::numeric_limits<float>::infinity());
        for (int64_t l = 0; l < lists; ++l) {
            float norm = 0.0f;
            for (int64_t j = 0; j < d_; ++j) {
                const float x = h.centroids[at((first + l) * d_ + j)];
                h.transposed[at(j * h.padded + l)] = x;
                norm += x * x;
            }
            h.half_norms[at(l)] = norm * 0.5f;
        }
        // A list of the base that is empty has no centroid that means anything.
        for (int64_t l = 0; first == 0 && l < base_lists_; ++l)
            if (base_start(h)[l] == base_start(h)[l + 1]) h.half_norms[at(l)] = std::numeric_limits<float>::infinity();
    }

    // Finds the list, among those that were transposed, of each of `m` new rows that are evenly spaced.
    void assign(int64_t m) {
        const int64_t blocks = (m + block_rows - 1) / block_rows;
        parallel_for(s_.heads * blocks, a_.n_threads, [&](int64_t i) {
            Head& h = heads_[at(i / blocks)];
            const int64_t first = i % blocks * block_rows, rows = std::min(block_rows, m - first);
            std::vector<float> x(at(rows * d_));
            for (int64_t r = 0; r < rows; ++r)
                read_centred(h, new_key(h.head, evenly(first + r, m)), x.data() + r * d_);
            a_.kernels->nearest(
                {x.data(), rows, d_, h.transposed.data(), h.half_norms.data(), h.padded, h.list.data() + first});
        });
    }

    // New centroids to the mean of their sampled rows; one that has none stays where it is.
    void move(Head& h) const {
        std::vector<float> sums(at(lists_ * d_), 0.0f), x(at(d_));
        std::vector<int64_t> count(at(lists_), 0);
        for (int64_t i = 0; i < sample_; ++i) {
            const int64_t l = h.list[at(i)];
            read_centred(h, new_key(h.head, evenly(i, sample_)), x.data());
            ++count[at(l)];
            for (int64_t j = 0; j < d_; ++j) sums[at(l * d_ + j)] += x[at(j)];
        }
        for (int64_t l = 0; l < lists_; ++l)
            if (count[at(l)] > 0)
                for (int64_t j = 0; j < d_; ++j)
                    h.centroids[at((base_lists_ + l) * d_ + j)] =
                        sums[at(l * d_ + j)] / static_cast<float>(count[at(l)]);
        transpose(h, base_lists_, lists_);
    }

    template <class T>
    static T* out(const T* p, int64_t head, int64_t per_head) {
        return const_cast<T*>(p) + head * per_head;
    }
    const int32_t* base_start(const Head& h) const { return a_.base->start + h.head * (base_lists_ + 1); }

    // A list's rows are the base's, then the new ones.
    void write(Head& h) const {
        int32_t *start = out(s_.start, h.head, s_.lists + 1), *order = out(s_.order, h.head, s_.n);
        std::fill_n(start, s_.lists + 1, 0);
        for (int64_t l = 0; l < base_lists_; ++l) start[l + 1] = base_start(h)[l + 1] - base_start(h)[l];
        for (const uint32_t l : h.list) ++start[l + 1];
        for (int64_t l = 0; l < s_.lists; ++l) start[l + 1] += start[l];
        std::vector<int32_t> next(start, start + s_.lists);
        for (int64_t l = 0; l < base_lists_; ++l) {
            const int64_t from = base_start(h)[l], m = base_start(h)[l + 1] - from, row = h.head * base_n_ + from;
            std::copy_n(a_.base->order + row, m, order + start[l]);
            std::memcpy(key_of(h.head, start[l]), static_cast<const char*>(a_.base->keys) + row * key_bytes(),
                        at(m * key_bytes()));
            std::memcpy(value_of(h.head, start[l]), static_cast<const char*>(a_.base->values) + row * value_bytes(),
                        at(m * value_bytes()));
            next[at(l)] += static_cast<int32_t>(m);
        }
        for (int64_t i = 0; i < n_; ++i) {
            const int32_t to = next[h.list[at(i)]]++;
            order[to] = static_cast<int32_t>(base_n_ + i);
            std::memcpy(key_of(h.head, to), new_key(h.head, i), at(key_bytes()));
            std::memcpy(value_of(h.head, to), new_row(a_.values, value_bytes(), h.head, i), at(value_bytes()));
        }
        std::copy_n(h.mean.data(), d_, out(s_.mean, h.head, d_));
        for (int64_t l = 0; l < s_.lists; ++l) write_means(h, l, start[l], start[l + 1]);
        write_spread(h);
    }

    void write_means(Head& h, int64_t l, int64_t first, int64_t last) const {
        const int64_t width = s_.value_dim;
        uint16_t *c = out(s_.centroid, h.head, s_.lists * d_) + l * d_,
                 *v = out(s_.mean_value, h.head, s_.lists * width) + l * width;
        if (l < base_lists_ && last - first == base_start(h)[l + 1] - base_start(h)[l]) {
            std::copy_n(a_.base->centroid + (h.head * base_lists_ + l) * d_, d_, c);
            std::copy_n(a_.base->mean_value + (h.head * base_lists_ + l) * width, width, v);
            return;
        }
        std::vector<float> x(at(std::max(d_, width))), key(at(d_), 0.0f), value(at(width), 0.0f);
        const float share = 1.0f / static_cast<float>(std::max<int64_t>(last - first, 1));
        for (int64_t r = first; r < last; ++r) {
            read_centred(h, key_of(h.head, r), x.data());
            for (int64_t j = 0; j < d_; ++j) key[at(j)] += x[at(j)] * share;
            widen(*a_.kernels, value_of(h.head, r), s_.dtype, x.data(), at(width));
            for (int64_t j = 0; j < width; ++j) value[at(j)] += x[at(j)] * share;
        }
        for (int64_t j = 0; j < d_; ++j) {
            h.centroids[at(l * d_ + j)] = key[at(j)];
            c[j] = to_bf16(key[at(j)]);
        }
        for (int64_t j = 0; j < width; ++j) v[j] = to_bf16(value[at(j)]);
    }

    // That of the base by its number of tokens, that of the new rows from a sample.
    void write_spread(const Head& h) const {
        const int64_t m = std::min(n_, spread_rows);
        std::vector<float> x(at(d_)), sum(at(d_ * d_), 0.0f);
        for (int64_t i = 0; i < m; ++i) {
            const int64_t row = evenly(i, m);
            read_centred(h, new_key(h.head, row), x.data());
            const float* centroid = h.centroids.data() + h.list[at(row)] * d_;
            for (int64_t j = 0; j < d_; ++j) x[at(j)] -= centroid[j];
            for (int64_t j = 0; j < d_; ++j) {
                float* to = sum.data() + j * d_;
                const float scale = x[at(j)];
                for (int64_t k = 0; k < d_; ++k) to[k] += scale * x[at(k)];
            }
        }
        const float share = static_cast<float>(n_) / static_cast<float>(s_.n);
        uint16_t* to = out(s_.spread, h.head, d_ * d_);
        for (int64_t i = 0; i < d_ * d_; ++i) {
            const float before = base_n_ > 0 ? from_bf16(a_.base->spread[h.head * d_ * d_ + i]) * (1.0f - share) : 0.0f;
            to[i] = to_bf16(before + sum[at(i)] / static_cast<float>(m) * share);
        }
    }

    const IvfSeal& a_;
    const IvfSegment& s_;
    const int64_t d_, base_lists_, base_n_, lists_, n_, sample_;
    std::vector<Head> heads_;
};

}  // namespace

void seal_ivf(const IvfSeal& a, const IvfSegment& s) { Sealer(a, s).run(); }

}  // namespace sakuin
