// Segments of `sketch` for tests, with arrays exactly as long as they must be.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "index/sketch/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

namespace sakuin::testing {

// A segment with the keys' own axes as its basis, sealed from keys and values in float32.
struct Sealed {
    SketchSegment s{};
    Floats keys, values, key_rows, value_rows, mean, sub_step, residue, code_step;
    Floats within, code_residue;
    std::vector<int32_t> plan;
    std::vector<uint16_t> order, basis, value_params, list_params, tilt;
    std::vector<SketchSpread> spread;
    std::vector<uint8_t> sketch, codes, value_codes, list_codes;
    std::vector<int16_t> sub_coordinate, code_coordinate;

    // value_dim 0: d.
    Sealed(Random& random, int64_t heads, int64_t n, int64_t d, int64_t subs, int64_t code_bytes, int threads,
           int64_t value_dim = 0) {
        s.shape = {d, value_dim == 0 ? d : value_dim, subs, code_bytes};
        s.heads = heads;
        s.n = n;
        s.dtype = DType::f32;
        keys = normals(random, heads * n * d);
        values = normals(random, heads * n * s.shape.value_dim);
        for (size_t i = 0; i < keys.size(); ++i)
            keys[i] = keys[i] / (1.0f + static_cast<float>(i % at(d)) * 0.2f) + 2.0f;
        mean.assign(at(heads * d), 0.0f);
        Floats y(keys.size()), weight(at(heads * d), 1.0f), features(at(heads * 2 * n), 0.0f);
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t j = 0; j < d; ++j) {
                float& m = mean[at(h * d + j)];
                for (int64_t i = 0; i < n; ++i) m += keys[at((h * n + i) * d + j)] / static_cast<float>(n);
                for (int64_t i = 0; i < n; ++i) y[at((h * d + j) * n + i)] = keys[at((h * n + i) * d + j)] - m;
                for (int64_t i = 0; i < d; ++i) basis.push_back(fp16(i == j ? 1.0f : 0.0f));
            }
        const int64_t lists = lists_of(n), width = s.shape.chunks() * 16;
        const auto allocate = [](auto& x, const auto*& p, int64_t size) {
            x.resize(at(size));
            p = x.data();
        };
        key_rows.resize(keys.size());
        value_rows.resize(values.size());
        s.keys = key_rows.data();
        s.values = value_rows.data();
        s.mean = mean.data();
        s.basis = basis.data();
        allocate(order, s.order, heads * n);
        allocate(sketch, s.sketch, heads * lists * s.shape.list_bytes());
        allocate(sub_coordinate, s.sub_coordinate, heads * subs * 2);
        allocate(sub_step, s.sub_step, heads * subs * 2);
        allocate(residue, s.residue, heads * d);
        allocate(codes, s.codes, heads * n * code_bytes);
        allocate(plan, s.code_plan, heads * 3);
        allocate(code_coordinate, s.code_coordinate, heads * width);
        allocate(code_step, s.code_step, heads * width);
        allocate(value_codes, s.value_codes, heads * n * s.shape.value_bytes());
        allocate(value_params, s.value_params, heads * n * 2);
        allocate(list_codes, s.list_codes, heads * lists * s.shape.value_bytes());
        allocate(list_params, s.list_params, heads * lists * 2);
        allocate(within, s.within, heads * d);
        allocate(code_residue, s.code_residue, heads * d);
        allocate(tilt, s.tilt, heads * s.shape.leading() * s.shape.value_dim);
        allocate(spread, s.spread, heads);
        SealArgs a{};
        a.kernels = &kernels();
        a.y = y.data();
        a.weight = weight.data();
        a.features = features.data();
        a.n_features = 2;
        a.keys = keys.data();
        a.values = values.data();
        a.values_f32 = values.data();
        seal_sketch(a, s, threads);
    }

    // Keeps keys and values in 8 bits from now on; `keys` and `values` become what the numbers stand for.
    void to_int8(Random& random) {
        const int64_t d = s.shape.head_dim, width = s.shape.value_dim;
        for (const int64_t size : {s.heads * d, s.heads * d, s.heads * s.n}) {
            scales.emplace_back();
            for (int64_t i = 0; i < size; ++i) scales.back().push_back(0.04f + 0.01f * random.unit());
        }
        key_numbers.resize(key_rows.size());
        value_numbers.resize(value_rows.size());
        for (size_t i = 0; i < key_rows.size(); ++i) {
            const size_t row = i / at(d), channel = row / at(s.n) * at(d) + i % at(d);
            const size_t place = (row / at(s.n) * at(s.n) + at(order[row])) * at(d) + i % at(d);
            key_numbers[i] = static_cast<int8_t>(
                std::lround(std::clamp((key_rows[i] - scales[1][channel]) / scales[0][channel], -127.0f, 127.0f)));
            keys[place] = scales[1][channel] + scales[0][channel] * static_cast<float>(key_numbers[i]);
        }
        for (size_t i = 0; i < value_rows.size(); ++i) {
            const size_t row = i / at(width);
            value_numbers[i] =
                static_cast<int8_t>(std::lround(std::clamp(value_rows[i] / scales[2][row], -127.0f, 127.0f)));
            values[(row / at(s.n) * at(s.n) + at(order[row])) * at(width) + i % at(width)] =
                scales[2][row] * static_cast<float>(value_numbers[i]);
        }
        s.dtype = DType::i8;
        s.keys = key_numbers.data();
        s.values = value_numbers.data();
        s.scales = {scales[0].data(), scales[1].data(), scales[2].data()};
    }
    std::vector<Floats> scales;
    std::vector<int8_t> key_numbers, value_numbers;
};

}  // namespace sakuin::testing
