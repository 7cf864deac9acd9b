// Products with a few rows: weights of 8 bits against sums in double, and all types by every set of kernels against
// single rows by the plainest; what ggml's types mean is compared with its own functions from Python
// (tests/backends/llama_cpp/test_gemv.py).
#include "ggml/gemv.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tests/check.hpp"

namespace sakuin {
namespace {

using testing::Random;

struct Type {
    int number;
    int64_t block, bytes;
};
constexpr Type q8_0{8, 32, 34};
const Type types[] = {{2, 32, 18}, {3, 32, 20},    {6, 32, 22},    {7, 32, 24},
                      q8_0,        {12, 256, 144}, {13, 256, 176}, {14, 256, 210}};

// Any codes; the halves that scale them are small numbers, wherever they stand in a block.
std::vector<char> weights(const Type& type, int64_t rows, int64_t depth, Random& random) {
    std::vector<char> out(static_cast<size_t>(rows * depth / type.block * type.bytes));
    for (char& c : out) c = static_cast<char>(static_cast<int>(random.normal() * 40.0f));
    const uint16_t scale = 0x2c00;  // 1/16
    for (size_t at = 0; at < out.size(); at += static_cast<size_t>(type.bytes)) {
        std::memcpy(&out[at + (type.number == 14 ? 208 : 0)], &scale, 2);
        if (type.number != 14 && type.bytes != 18 && type.bytes != 22 && type.bytes != 34)
            std::memcpy(&out[at + 2], &scale, 2);
    }
    return out;
}

std::vector<float> product(const GemvKernels& kernels, const Type& type, const std::vector<char>& w,
                           const std::vector<float>& x, int64_t rows, int64_t width, int n_threads) {
    const int64_t depth = static_cast<int64_t>(x.size()) / rows;
    std::vector<float> out(static_cast<size_t>(rows * width + 1), 7.0f);
    ggml::GemvJob job{
        {},
        {},
        {w.data(), depth / type.block * type.bytes, width, depth, {type.number, type.block, type.bytes, nullptr}}};
    for (int64_t i = 0; i < rows; ++i) job.x.push_back(x.data() + i * depth), job.out.push_back(out.data() + i * width);
    ggml::Gemv gemv(kernels);
    gemv.multiply({job}, false, n_threads);
    CHECK(out.back() == 7.0f, std::string(kernels.name) + " writes behind its rows");
    return out;
}

std::vector<float> numbers(int64_t n, Random& random) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = random.normal();
    return x;
}

TEST(products_of_few_rows_are_those_of_the_rounded_numbers) {
    Random random(3);
    for (const GemvKernels* kernels : gemv_kernels())
        for (const int64_t rows : {1, 2, 3, 8, 11, 33}) {
            const int64_t depth = 96, width = 37;
            const std::vector<char> w = weights(q8_0, width, depth, random);
            const std::vector<float> x = numbers(rows * depth, random);
            const std::vector<float> out = product(*kernels, q8_0, w, x, rows, width, 1);
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < width; ++j) {
                    double sum = 0;
                    for (int64_t k = 0; k < depth; k += 32) {
                        const float* const from = &x[static_cast<size_t>(i * depth + k)];
                        float most = 0;
                        for (int n = 0; n < 32; ++n) most = std::max(most, std::fabs(from[n]));
                        for (int64_t n = 0; n < 32; ++n)
                            sum += std::nearbyint(from[n] * (127.0f / most)) * static_cast<double>(most / 127.0f) *
                                   static_cast<signed char>(w[static_cast<size_t>((j * 3 + k / 32) * 34 + 2 + n)]) / 16;
                    }
                    const double got = static_cast<double>(out[static_cast<size_t>(i * width + j)]);
                    CHECK(std::fabs(got - sum) < 1e-3, std::string(kernels->name) + ": " + std::to_string(got - sum));
                }
        }
}

TEST(kernels_for_few_rows_agree) {
    Random random(5);
    if (gemv_kernels().empty()) return;
    for (const Type& type : types)
        for (const int64_t rows : {2, 4, 8, 21, 40})
            for (const int64_t depth : {int64_t{256}, type.block * 5})
                for (const int64_t width : {5, 100}) {
                    const std::vector<char> w = weights(type, width, depth, random);
                    const std::vector<float> x = numbers(rows * depth, random);
                    // One row at a time: with several, kernels lay them out in other ways.
                    std::vector<float> plain;
                    for (int64_t i = 0; i < rows; ++i) {
                        const std::vector<float> row(x.begin() + i * depth, x.begin() + (i + 1) * depth);
                        const std::vector<float> out = product(*gemv_kernels().back(), type, w, row, 1, width, 1);
                        plain.insert(plain.end(), out.begin(), out.end() - 1);
                    }
                    for (const GemvKernels* kernels : gemv_kernels())
                        for (const int n_threads : {1, 3}) {
                            const std::vector<float> out = product(*kernels, type, w, x, rows, width, n_threads);
                            double worst = 0, most = 1;
                            for (size_t i = 0; i < plain.size(); ++i) {
                                worst = std::max(worst, std::fabs(static_cast<double>(out[i] - plain[i])));
                                most = std::max(most, std::fabs(static_cast<double>(plain[i])));
                            }
                            CHECK(worst < 1e-5 * most, std::string(kernels->name) + ", type " +
                                                           std::to_string(type.number) + ": " + std::to_string(worst));
                        }
                }
}

}  // namespace
}  // namespace sakuin
