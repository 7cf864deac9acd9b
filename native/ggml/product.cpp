#include "ggml/product.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "parallel.hpp"

namespace sakuin::ggml {
namespace {

constexpr int64_t large_page = 2 << 20;                 // bytes
constexpr int64_t piece_numbers = 8 << 20;              // of a weight, packed at a time
constexpr int64_t most_rows = 256, most_columns = 256;  // of a task

int64_t blocks(int64_t n) { return (n + product_block - 1) / product_block; }

// How `n` blocks are cut: into so many parts of at most `most` that all tasks, `others` times as many, keep the threads
// busy.
int64_t parts_of(int64_t n, int64_t most, int64_t others, int64_t wanted) {
    const int64_t least = (n + most - 1) / most;
    return std::min(n, std::max(least, (wanted + others - 1) / others));
}

}  // namespace

void Packed::Free::operator()(uint16_t* p) const { std::free(p); }

uint16_t* Packed::get(int64_t n) {
    if (n > size_) {
        data_.reset();
        size_ = 0;
        const auto bytes = static_cast<size_t>((n * 2 + large_page - 1) / large_page * large_page);
        data_.reset(static_cast<uint16_t*>(std::aligned_alloc(large_page, bytes)));
        if (data_ == nullptr) throw std::bad_alloc();
        madvise(data_.get(), bytes, MADV_HUGEPAGE);
        size_ = n;
    }
    return data_.get();
}

void Products::multiply(const Inputs& x, const Weight& w, const Outputs& out, bool same, int n_threads) {
    const int64_t size = product_block_size(w.depth);
    const int64_t input_blocks = same ? 0 : blocks(x.n);
    const int64_t piece = std::max<int64_t>(1, piece_numbers / size);
    uint16_t* const to = x_.get(blocks(x.n) * size);
    uint16_t* const packed = weight_.get(std::min(piece, blocks(w.width)) * size);
    for (int64_t first = 0; first < blocks(w.width); first += piece) {
        const int64_t column = first * product_block;
        const int64_t n_columns = std::min(piece * product_block, w.width - column);
        const int64_t inputs = first == 0 ? input_blocks : 0;
        parallel_for(inputs + blocks(n_columns), n_threads, [&](int64_t i) {
            if (i < inputs) {
                ProductInputs p{{}, w.depth, to + i * size};
                for (int64_t r = 0; r < product_block && i * product_block + r < x.n; ++r) {
                    const int64_t row = i * product_block + r;
                    p.rows[r] = x.rows != nullptr ? x.rows[row] : x.data + row * x.stride;
                }
                kernels_.pack_inputs(p);
            } else {
                const int64_t at = (i - inputs) * product_block;
                kernels_.pack_weights({&w.format, w.data + (column + at) * w.row_bytes, w.row_bytes,
                                       std::min<int64_t>(product_block, n_columns - at), w.depth,
                                       packed + (i - inputs) * size});
            }
        });
        Outputs part = out;
        std::vector<float*> rows;
        if (out.rows != nullptr) {
            for (int64_t i = 0; i < x.n; ++i) rows.push_back(out.rows[i] + column);
            part.rows = rows.data();
        } else {
            part.data += column;
        }
        multiply_packed(x, w.depth, n_columns, part, n_threads);
    }
}

void Products::multiply_packed(const Inputs& x, int64_t depth, int64_t n_columns, const Outputs& out, int n_threads) {
    const int64_t size = product_block_size(depth);
    uint16_t *const inputs = x_.get(0), *const weight = weight_.get(0);
    const int64_t high = blocks(x.n), wide = blocks(n_columns);
    const int64_t wanted = n_threads > 1 ? 4 * n_threads : 1;
    const int64_t across = parts_of(wide, most_columns / product_block, high, wanted);
    const int64_t down = parts_of(high, most_rows / product_block, across, wanted);
    // Tasks side by side share columns: a thread's part of the weight stays in its cache.
    parallel_for(down * across, n_threads, [&](int64_t i) {
        const int64_t row = high * (i % down) / down, row_end = high * (i % down + 1) / down;
        const int64_t column = wide * (i / down) / across, column_end = wide * (i / down + 1) / across;
        ProductRange p{};
        p.x = inputs + row * size, p.weight = weight + column * size;
        p.steps = product_steps(depth);
        p.n_rows = std::min(row_end * product_block, x.n) - row * product_block;
        p.n_columns = std::min(column_end * product_block, n_columns) - column * product_block;
        std::vector<float*> rows;
        if (out.rows != nullptr) {
            for (int64_t r = 0; r < p.n_rows; ++r)
                rows.push_back(out.rows[row * product_block + r] + column * product_block);
            p.out_rows = rows.data();
        } else {
            p.out = out.data + row * product_block * out.stride + column * product_block;
            p.stride = out.stride;
        }
        kernels_.multiply(p);
    });
}

}  // namespace sakuin::ggml
