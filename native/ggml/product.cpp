#include "ggml/product.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "parallel.hpp"

namespace sakuin::ggml {
namespace {

constexpr int64_t large_page = 2 << 20;     // bytes
constexpr int64_t piece_numbers = 8 << 20;  // of a weight, packed at a time

int64_t blocks(int64_t n) { return (n + product_block - 1) / product_block; }

// Blocks begin .. end.
struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
    Range part(int64_t i, int64_t n) const { return {begin + size() * i / n, begin + size() * (i + 1) / n}; }
};

// How the rows and columns of a product are cut into tasks. Tasks side by side share columns: a thread's part of the
// weight stays in its cache.
struct Cut {
    int64_t high, wide;  // blocks
    int64_t across, down;

    Cut(int64_t n_rows, int64_t n_columns, int n_threads) : high(blocks(n_rows)), wide(blocks(n_columns)) {
        const int64_t wanted = n_threads > 1 ? 4 * n_threads : 1;
        across = parts_of(wide, high, wanted);
        down = parts_of(high, across, wanted);
    }

    int64_t tasks() const { return across * down; }
    Range rows(int64_t task) const { return Range{0, high}.part(task % down, down); }
    Range columns(int64_t task) const { return Range{0, wide}.part(task / down, across); }

private:
    static constexpr int64_t most = product_most_blocks;

    // So many parts of `n` blocks that with `others` times as many tasks all threads are busy.
    static int64_t parts_of(int64_t n, int64_t others, int64_t wanted) {
        return std::min(n, std::max((n + most - 1) / most, (wanted + others - 1) / others));
    }
};

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
    const int64_t size = product_block_size(w.depth), wide = blocks(w.width);
    const int64_t piece = std::clamp<int64_t>(piece_numbers / size, 1, wide);
    x_.get(blocks(x.n) * size);
    weight_.get(piece * size);
    for (int64_t first = 0; first < wide; first += piece) {
        const int64_t column = first * product_block;
        Weight some = w;
        some.data += column * w.row_bytes, some.width = std::min(piece * product_block, w.width - column);
        pack(x, some, same || first > 0, n_threads);
        multiply_packed(x.n, some, out, column, n_threads);
    }
}

void Products::pack(const Inputs& x, const Weight& w, bool same, int n_threads) {
    const int64_t size = product_block_size(w.depth);
    const int64_t inputs = same ? 0 : blocks(x.n);
    parallel_for(inputs + blocks(w.width), n_threads, [&](int64_t i) {
        const bool is_row = i < inputs;
        const int64_t block = is_row ? i : i - inputs, first = block * product_block;
        if (is_row) {
            ProductInputs p{{}, w.depth, x_.get(0) + block * size};
            for (int64_t r = 0; r < product_block && first + r < x.n; ++r)
                p.rows[r] = x.rows != nullptr ? x.rows[first + r] : x.data + (first + r) * x.stride;
            kernels_.pack_inputs(p);
        } else {
            kernels_.pack_weights({&w.format, w.data + first * w.row_bytes, w.row_bytes,
                                   std::min<int64_t>(product_block, w.width - first), w.depth,
                                   weight_.get(0) + block * size});
        }
    });
}

void Products::multiply_packed(int64_t n_rows, const Weight& w, const Outputs& out, int64_t column, int n_threads) {
    const int64_t size = product_block_size(w.depth);
    const Cut cut(n_rows, w.width, n_threads);
    parallel_for(cut.tasks(), n_threads, [&](int64_t i) {
        const Range rows = cut.rows(i), columns = cut.columns(i);
        const int64_t first = rows.begin * product_block, left = columns.begin * product_block;
        ProductRange p{};
        p.x = x_.get(0) + rows.begin * size, p.weight = weight_.get(0) + columns.begin * size;
        p.steps = product_steps(w.depth);
        p.n_rows = std::min(rows.end * product_block, n_rows) - first;
        p.n_columns = std::min(columns.end * product_block, w.width) - left;
        std::vector<float*> each;
        if (out.rows != nullptr) {
            for (int64_t r = 0; r < p.n_rows; ++r) each.push_back(out.rows[first + r] + column + left);
            p.out_rows = each.data();
        } else {
            p.out = out.data + first * out.stride + column + left, p.stride = out.stride;
        }
        thread_local Packed sums;
        p.sums = reinterpret_cast<float*>(sums.get(2 * product_most_blocks * product_most_blocks * product_sums));
        kernels_.multiply(p);
    });
}

}  // namespace sakuin::ggml
