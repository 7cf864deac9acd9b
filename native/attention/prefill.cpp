#include "attention/prefill.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

#include "parallel.hpp"

namespace sakuin {
namespace {

constexpr float log2e = 1.44269504f;
constexpr int64_t tile = prefill_tile, column = prefill_column, block = prefill_block;
// Bytes of packed keys and values of one KV head that are gone over at a time: half of a core's L2 cache, less what
// else is in it. Where there are more, each query's sum waits in `out`.
constexpr int64_t panel_bytes = 1 << 20;

size_t at(int64_t i) { return static_cast<size_t>(i); }
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
const char* row_of(const void* data, DType dtype, int64_t offset) {
    return static_cast<const char*>(data) + offset * dtype_size(dtype);
}

// Memory that begins at a cache line and is not initialised.
template <class T>
class Buffer {
public:
    explicit Buffer(int64_t n)
        : data_(static_cast<T*>(std::aligned_alloc(64, at(round_up(n * int64_t{sizeof(T)}, 64))))) {
        if (data_ == nullptr) throw std::bad_alloc();
    }
    T* get() const { return data_.get(); }

private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
};

class Prefill {
public:
    explicit Prefill(const PrefillCall& call)
        : c_(call), k_(*call.kernels), dim_(round_up(call.head_dim, 32)), value_dim_(round_up(call.value_dim, 32)),
          rows_(call.group * call.t), sums_(call.n_kv_heads * rows_), shifts_(call.n_kv_heads * rows_) {
        for (const PrefillBlock& b : c_.blocks) {
            starts_.push_back(n_);
            n_ += b.n;
        }
        const int64_t most = std::max(block, panel_bytes / ((dim_ + value_dim_) * 2) / block * block);
        const int64_t panels = (n_ + most - 1) / most;
        panel_ = round_up((n_ + panels - 1) / panels, block);
        keys_stride_ = panel_ * dim_ + prefill_unit * 2;
    }

    void run() {
        const Buffer<uint16_t> keys(c_.n_kv_heads * keys_stride_), values(c_.n_kv_heads * panel_ * value_dim_);
        const int64_t tiles = (rows_ + tile - 1) / tile;
        // As much as leaves room for keys and values in the cache, and enough tasks for every thread.
        const int64_t fitting = std::max<int64_t>(1, 512 / std::max(dim_, value_dim_)),
                      enough = tiles * c_.n_kv_heads / (c_.n_threads * 8);
        const int64_t together = std::clamp<int64_t>(std::min(fitting, enough), 1, prefill_most_tiles);
        const int64_t tasks = (tiles + together - 1) / together;
        for (int64_t first = 0; first < n_; first += panel_) {
            const int64_t n = std::min(panel_, n_ - first), blocks = (n + block - 1) / block;
            parallel_for(c_.n_kv_heads * blocks, c_.n_threads, [&](int64_t i) {
                const int64_t head = i / blocks, start = i % blocks * block;
                pack(head, first, start, std::min(block, n - start), keys.get() + head * keys_stride_,
                     values.get() + head * panel_ * value_dim_);
            });
            parallel_for(c_.n_kv_heads * tasks, c_.n_threads, [&](int64_t i) {
                const int64_t head = i / tasks, start = i % tasks * together;
                attend(head, start * tile, std::min(together, tiles - start), first, n,
                       keys.get() + head * keys_stride_, values.get() + head * panel_ * value_dim_);
            });
        }
    }

private:
    // Keys and values start ... start + n of the panel that begins at token `first`, at most a block.
    void pack(int64_t head, int64_t first, int64_t start, int64_t n, uint16_t* keys, uint16_t* values) const {
        PrefillPack k{}, v{};
        k.head_dim = static_cast<int>(c_.head_dim), k.dim = static_cast<int>(dim_);
        v.head_dim = static_cast<int>(c_.value_dim), v.dim = static_cast<int>(value_dim_);
        auto at_block = std::upper_bound(starts_.begin(), starts_.end(), first + start) - starts_.begin() - 1;
        for (int64_t from = 0; from < n; from += column) {
            for (int64_t i = 0; i < column; ++i) {
                k.rows[i] = v.rows[i] = nullptr;
                if (from + i >= n) continue;
                const int64_t token = first + start + from + i;
                while (token >= starts_[at(at_block)] + c_.blocks[at(at_block)].n) ++at_block;
                const PrefillBlock& b = c_.blocks[at(at_block)];
                const int64_t row = token - starts_[at(at_block)];
                k.rows[i] = row_of(b.keys, b.key_dtype, head * b.key_head_stride + row * b.key_stride);
                v.rows[i] = row_of(b.values, b.value_dtype, head * b.value_head_stride + row * b.value_stride);
                k.dtypes[i] = b.key_dtype;
                v.dtypes[i] = b.value_dtype;
            }
            k.to = keys + (start + from) * dim_;
            v.to = values + start * value_dim_ + from / column * 2 * prefill_unit;
            k_.pack_keys(k);
            k_.pack_values(v);
        }
    }

    // Rows start ... of the KV head (all positions of its first query head, then of the next) over the panel of n keys
    // that begins at token `first`.
    void attend(int64_t head, int64_t start, int64_t tiles, int64_t first, int64_t n, const uint16_t* keys,
                const uint16_t* values) {
        const int64_t n_rows = tiles * tile, real = std::min(n_rows, rows_ - start);
        const Buffer<uint16_t> q(n_rows * dim_);
        const Buffer<float> out(n_rows * value_dim_), sum(n_rows * 16), shift(n_rows);
        const Buffer<int32_t> seen(n_rows);
        float *sums = sums_.get() + head * rows_ + start, *shifts = shifts_.get() + head * rows_ + start;
        std::fill_n(out.get(), n_rows * value_dim_, 0.0f);
        std::fill_n(sum.get(), n_rows * 16, 0.0f);
        std::fill_n(shift.get(), n_rows, 0.0f);
        int32_t most = 0;
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t last = n_ - c_.t + (start + std::min(r, real - 1)) % c_.t;
            seen.get()[r] = static_cast<int32_t>(std::clamp<int64_t>(last + 1 - first, 0, n));
            most = std::max(most, seen.get()[r]);
            if (first == 0 || r >= real) continue;
            std::copy_n(out_row(head, start + r), c_.value_dim, out.get() + r * value_dim_);
            sum.get()[r * 16] = sums[r];
            shift.get()[r] = shifts[r];
        }
        if (most > 0) {
            pack_queries(head, start, n_rows, real, q.get());
            k_.attend({q.get(), keys, values, static_cast<int>(dim_), static_cast<int>(value_dim_),
                       static_cast<int>(tiles), static_cast<int>((n + column - 1) / column), seen.get(), first == 0,
                       c_.scaling, c_.softcap, out.get(), sum.get(), shift.get()});
        }
        for (int64_t r = 0; r < real; ++r) {
            sums[r] = 0.0f;
            for (int64_t i = 0; i < 16; ++i) sums[r] += sum.get()[r * 16 + i];
            shifts[r] = shift.get()[r];
            const float factor = first + n < n_ ? 1.0f : normalize(head, start + r, sums[r], shifts[r]);
            float* to = out_row(head, start + r);
            for (int64_t i = 0; i < c_.value_dim; ++i) to[i] = out.get()[r * value_dim_ + i] * factor;
        }
    }

    void pack_queries(int64_t head, int64_t start, int64_t n_rows, int64_t real, uint16_t* to) const {
        PrefillPack p{};
        p.head_dim = static_cast<int>(c_.head_dim);
        p.dim = static_cast<int>(dim_);
        std::fill_n(p.dtypes, tile, c_.q_dtype);
        for (int64_t r = 0; r < n_rows; r += tile) {
            for (int64_t i = 0; i < tile; ++i) {
                const int64_t row = start + r + i, query_head = head * c_.group + row / c_.t;
                p.rows[i] = r + i < real
                                ? row_of(c_.q, c_.q_dtype, query_head * c_.q_head_stride + row % c_.t * c_.q_stride)
                                : nullptr;
            }
            p.to = to + r * dim_;
            k_.pack_queries(p);
        }
    }

    float* out_row(int64_t head, int64_t row) const {
        return c_.out + (head * c_.group + row / c_.t) * c_.out_head_stride + row % c_.t * c_.out_stride;
    }

    // What the sum over values is multiplied with at last: 1 / sum, the sink in it.
    float normalize(int64_t head, int64_t row, float sum, float shift) const {
        if (c_.sinks == nullptr) return 1.0f / sum;
        const float sink = c_.sinks[head * c_.group + row / c_.t] * log2e;
        const float most = std::max(sink, shift);
        return std::exp2(shift - most) / (sum * std::exp2(shift - most) + std::exp2(sink - most));
    }

    const PrefillCall& c_;
    const PrefillKernels& k_;
    const int64_t dim_, value_dim_, rows_;
    std::vector<int64_t> starts_;  // of the blocks
    int64_t n_ = 0, panel_ = 0, keys_stride_ = 0;
    Buffer<float> sums_, shifts_;  // (n_kv_heads, rows), between panels
};

}  // namespace

void prefill_attention(const PrefillCall& call) {
    if (call.t > 0) Prefill(call).run();
}

}  // namespace sakuin
