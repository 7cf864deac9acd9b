#include "ggml/rows.hpp"

#include <cstring>
#include <vector>

#include "kernels/product.hpp"
#include "parallel.hpp"

namespace sakuin::ggml {
namespace {

constexpr int64_t worth_threads = 1 << 16;  // numbers

// Of this machine; null where it has none for bf16.
const ProductKernels* fast() {
    static const ProductKernels* const kernels = product_kernels("");
    return kernels;
}

void narrow_plainly(const float* from, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        std::memcpy(&bits, from + i, sizeof bits);
        const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        // What is no number stays none: rounding up could carry its last bits into the sign.
        const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
        to[i] = static_cast<uint16_t>(is_nan ? (bits >> 16 | 0x40) : rounded);
    }
}

void narrow(const float* from, int64_t n, uint16_t* to) {
    if (fast() != nullptr)
        fast()->to_bf16(from, n, to);
    else
        narrow_plainly(from, n, to);
}

// Pairs (2i, 2i + 1) of the first `rotary` numbers to halves.
template <class T>
void part_pairs(const T* from, T* to, int64_t width, int64_t rotary) {
    const int64_t half = rotary / 2;
    for (int64_t i = 0; i < half; ++i) to[i] = from[2 * i], to[half + i] = from[2 * i + 1];
    std::memcpy(to + rotary, from + rotary, static_cast<size_t>(width - rotary) * sizeof(T));
}

template <class T>
void arrange_as(const SideBySide& from, T* to) {
    const auto* const data = static_cast<const T*>(from.data);
    for (int64_t h = 0; h < from.heads; ++h)
        for (int64_t i = 0; i < from.t; ++i) {
            const T* const row = data + i * from.row_stride + h * from.head_dim;
            T* const target = to + (h * from.t + i) * from.head_dim;
            if (from.rotary > 0)
                part_pairs(row, target, from.head_dim, from.rotary);
            else
                std::memcpy(target, row, static_cast<size_t>(from.head_dim) * sizeof(T));
        }
}

// Calls fn(first, end) for ranges of 0 .. n, on threads where there is enough to do.
template <class Fn>
void in_ranges(int64_t n, int64_t numbers, int n_threads, const Fn& fn) {
    const int64_t pieces = numbers < worth_threads ? 1 : std::min<int64_t>(n, 4 * n_threads);
    parallel_for(pieces, n_threads, [&](int64_t i) { fn(n * i / pieces, n * (i + 1) / pieces); });
}

}  // namespace

void convert(const FloatRows& from, void* to, DType dtype, int n_threads) {
    const int64_t rows = from.heads * from.t;
    in_ranges(rows, rows * from.width, n_threads, [&](int64_t first, int64_t end) {
        std::vector<float> parted(static_cast<size_t>(from.rotary > 0 ? from.width : 0));
        for (int64_t i = first; i < end; ++i) {
            const float* row = from.data + (i / from.t) * from.head_stride + (i % from.t) * from.row_stride;
            if (from.rotary > 0) {
                part_pairs(row, parted.data(), from.width, from.rotary);
                row = parted.data();
            }
            if (dtype == DType::bf16)
                narrow(row, from.width, static_cast<uint16_t*>(to) + i * from.width);
            else
                std::memcpy(static_cast<float*>(to) + i * from.width, row,
                            static_cast<size_t>(from.width) * sizeof(float));
        }
    });
}

void arrange(const SideBySide& from, void* to, DType dtype) {
    if (dtype == DType::bf16)
        arrange_as(from, static_cast<uint16_t*>(to));
    else
        arrange_as(from, static_cast<float*>(to));
}

void unpack_rows(const PackedRows& from, void* to, DType dtype, int n_threads) {
    in_ranges(from.n, from.n * from.depth, n_threads, [&](int64_t first, int64_t end) {
        std::vector<float> row(static_cast<size_t>(from.depth));
        for (int64_t i = first; i < end; ++i) {
            const char* const packed = from.data + i * from.row_bytes;
            float* const wide = dtype == DType::f32 ? static_cast<float*>(to) + i * from.depth : row.data();
            if (from.to_float != nullptr)
                from.to_float(packed, wide, from.depth);
            else
                std::memcpy(wide, packed, static_cast<size_t>(from.depth) * sizeof(float));
            if (dtype == DType::bf16) narrow(wide, from.depth, static_cast<uint16_t*>(to) + i * from.depth);
        }
    });
}

}  // namespace sakuin::ggml
