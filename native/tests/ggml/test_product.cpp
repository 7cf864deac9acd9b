// Products of plain fp32 weights against sums in double, for every set of kernels that this machine has; quantized
// weights are compared with ggml's own functions from Python (tests/backends/llama_cpp/test_products.py).
#include "ggml/product.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tests/check.hpp"

namespace sakuin {
namespace {

using testing::Random;

float rounded(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct Case {
    int64_t rows, depth, width;
};

void compare(const ProductKernels& kernels, const Case& c, int n_threads, bool scattered) {
    Random random(7);
    std::vector<float> x(static_cast<size_t>(c.rows * c.depth)), w(static_cast<size_t>(c.width * c.depth));
    for (float& v : x) v = rounded(random.normal());
    for (float& v : w) v = rounded(random.normal());
    std::vector<float> out(static_cast<size_t>((c.rows + 1) * c.width), 7.0f);
    ggml::Products products(kernels);
    const ggml::Weight weight{
        reinterpret_cast<const char*>(w.data()), c.depth * 4, c.width, c.depth, {0, 1, 4, nullptr}};
    std::vector<const float*> from;
    std::vector<float*> to;
    for (int64_t i = 0; i < c.rows; ++i) {  // the last row first
        from.push_back(x.data() + (c.rows - 1 - i) * c.depth);
        to.push_back(out.data() + (c.rows - 1 - i) * c.width);
    }
    if (scattered)
        products.multiply({nullptr, 0, c.rows, from.data()}, weight, {nullptr, 0, to.data()}, false, n_threads);
    else
        products.multiply({x.data(), c.depth, c.rows}, weight, {out.data(), c.width}, false, n_threads);
    double worst = 0;
    for (int64_t i = 0; i < c.rows; ++i)
        for (int64_t j = 0; j < c.width; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < c.depth; ++k)
                sum += static_cast<double>(x[static_cast<size_t>(i * c.depth + k)]) *
                       static_cast<double>(w[static_cast<size_t>(j * c.depth + k)]);
            worst = std::max(worst, std::fabs(sum - static_cast<double>(out[static_cast<size_t>(i * c.width + j)])));
        }
    const std::string what = std::string(kernels.name) + " " + std::to_string(c.rows) + " x " +
                             std::to_string(c.depth) + " x " + std::to_string(c.width);
    CHECK(worst < 1e-5 * static_cast<double>(c.depth), what + ": " + std::to_string(worst));
    for (int64_t j = 0; j < c.width; ++j)
        CHECK(out[static_cast<size_t>(c.rows * c.width + j)] == 7.0f, what + " writes behind its rows");
}

TEST(products_of_all_kernels) {
    for (const ProductKernels* kernels : product_kernels())
        for (const Case& c : {Case{1, 1, 1}, {33, 31, 65}, {70, 700, 40}, {300, 64, 290}, {40, 2500, 70}})
            for (const int n_threads : {1, 3})
                for (const bool scattered : {false, true}) compare(*kernels, c, n_threads, scattered);
}

}  // namespace
}  // namespace sakuin
