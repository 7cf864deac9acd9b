// The kernels of `sketch` that score and add rows, stored or coded, on every instruction set against scalar loops.
// Buffers are exactly as long as they must be, so that a sanitizer sees any access beyond them.
#include "index/sketch/sketch.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

TEST(rows_of_every_dtype_are_scored_and_added) {
    Random random(7);
    const int64_t n = 40;
    const std::vector<uint32_t> index{39, 0, 7, 7, 12, 38};
    for (const DType t : {DType::f32, DType::bf16, DType::fp16, DType::i8})
        for (const int d : {8, 16, 24, 40, 64, 120, 256, 576})
            for (const int group : {1, 2, 5, 8, 16})
                for (const bool gather : {true, false}) {
                    const int64_t m = gather ? 6 : n;
                    Floats rows;
                    std::vector<uint8_t> stored(at(n * d * dtype_size(t)));
                    for (int64_t i = 0; i < n * d; ++i) {
                        rows.push_back(t == DType::i8 ? static_cast<float>(random.below(255) - 127) : coarse(random));
                        const uint16_t half = t == DType::bf16 ? bf16(rows.back()) : fp16(rows.back());
                        if (t == DType::f32)
                            std::memcpy(&stored[at(i * 4)], &rows.back(), 4);
                        else if (t == DType::i8)
                            stored[at(i)] = static_cast<uint8_t>(static_cast<int8_t>(rows.back()));
                        else
                            std::memcpy(&stored[at(i * 2)], &half, 2);
                    }
                    const int width = padded(group);
                    const Floats q = normals(random, group * d), weights = normals(random, width * m);
                    Floats want(at(width * m), 0.0f), sum(at(group * d), 1.0f);
                    for (int g = 0; g < group; ++g)
                        for (int64_t i = 0; i < m; ++i)
                            for (int j = 0; j < d; ++j) {
                                const float x = rows[at((gather ? index[at(i)] : i) * d + j)];
                                want[at(i * width + g)] += q[at(g * d + j)] * x;
                                sum[at(g * d + j)] += weights[at(i * width + g)] * x;
                            }
                    const double near = t == DType::i8 ? 2e-2 : 1e-3;  // numbers up to 127 instead of 2
                    each_isa([&](const SketchKernels& k, const std::string& isa) {
                        const std::string what =
                            isa + " d " + std::to_string(d) + " dtype " + std::to_string(static_cast<int>(t));
                        if (gather) {
                            Floats scores(want.size());
                            k.score_rows(q.data(), stored.data(), t, d, index.data(), m, group, scores.data());
                            CHECK(distance(scores, want) < near, what);
                        }
                        Floats out(sum.size(), 1.0f);
                        k.add_rows(stored.data(), t, d, gather ? index.data() : nullptr, m, weights.data(), group,
                                   out.data());
                        CHECK(distance(out, sum) < near, what);
                    });
                }
}

TEST(value_codes_are_added_for_every_head_dim) {
    Random random(8);
    const int64_t n = 20;
    for (const int d : {8, 16, 24, 64, 72, 256})
        for (const int group : {1, 3, 8, 16}) {
            const int64_t bytes = (d + 15) / 16 * 8, m = 7;
            const std::vector<uint8_t> codes = random_bytes(random, n * bytes);
            std::vector<uint16_t> params;
            for (int64_t i = 0; i < n * 2; ++i) params.push_back(bf16(coarse(random)));
            const std::vector<uint32_t> index{19, 0, 4, 4, 11, 2, 18};
            const int width = padded(group);
            const Floats weights = normals(random, width * m);
            Floats want(at(group * d), 0.5f);
            for (int g = 0; g < group; ++g)
                for (int64_t i = 0; i < m; ++i)
                    for (int j = 0; j < d; ++j) {
                        const uint32_t k = index[at(i)];
                        const float code = static_cast<float>(packed(codes.data() + k * bytes + j / 16 * 8, 4, j % 16));
                        want[at(g * d + j)] += weights[at(i * width + g)] *
                                               (from_bf16(params[2 * k]) + code * from_bf16(params[2 * k + 1]));
                    }
            each_isa([&](const SketchKernels& k, const std::string& isa) {
                Floats out(want.size(), 0.5f);
                k.add_value_codes(codes.data(), bytes, params.data(), d, index.data(), m, weights.data(), group,
                                  out.data());
                CHECK(distance(out, want) < 2e-3, isa + " d " + std::to_string(d));
                const std::vector<uint32_t> first{0, 1, 2, 3, 4, 5, 6};
                Floats listed(want.size(), 0.5f), counted(want.size(), 0.5f);
                k.add_value_codes(codes.data(), bytes, params.data(), d, first.data(), m, weights.data(), group,
                                  listed.data());
                k.add_value_codes(codes.data(), bytes, params.data(), d, nullptr, m, weights.data(), group,
                                  counted.data());
                CHECK(listed == counted, isa + " d " + std::to_string(d));
            });
        }
}
