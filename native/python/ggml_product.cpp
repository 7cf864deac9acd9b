// Python entry points of the products of quantized weights, for tests and for measuring: a session calls them natively.
#include "ggml/product.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "ggml/gemv.hpp"
#include "python/bindings.hpp"
#include "python/call.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

// ggml's number of a type, numbers and bytes of a block, and the address of its to_float.
using Format = std::tuple<int, int64_t, int64_t, uintptr_t>;

WeightFormat format_of(const Format& f) {
    const auto& [type, block, block_bytes, to_float] = f;
    if (block < 1 || block > 256) throw std::invalid_argument("a block has 1 to 256 numbers");
    return {type, block, block_bytes, reinterpret_cast<void (*)(const void*, float*, int64_t)>(to_float)};
}

const ProductKernels& kernels_of(std::string_view name) {
    const ProductKernels* const k = product_kernels(name);
    if (k == nullptr)
        throw std::invalid_argument("this machine has no kernels for products called '" + std::string(name) + "'");
    return *k;
}

class PyProducts {
public:
    explicit PyProducts(std::string_view kernels) : products_(kernels_of(kernels)) {}

    void multiply(nb::handle x, uintptr_t weight, const Format& format, nb::handle out, bool same, int n_threads) {
        const Tensor a = read_tensor(x, "x", 2);
        const Tensor c = read_tensor(out, "out", 2);
        if (a.dtype != DType::f32 || c.dtype != DType::f32 || a.shape[0] != c.shape[0])
            throw std::invalid_argument("x and out must be float32, with as many rows");
        const WeightFormat f = format_of(format);
        const ggml::Weight w{reinterpret_cast<const char*>(weight), a.shape[1] / f.block * f.block_bytes, c.shape[1],
                             a.shape[1], f};
        const Released release;
        products_.multiply({a.f32(), a.stride[0], a.shape[0]}, w, {c.f32(), c.stride[0]}, same, n_threads);
    }

private:
    ggml::Products products_;
};

class PyGemv {
public:
    explicit PyGemv(std::string_view kernels) : gemv_(kernels_of_few(kernels)) {}

    void multiply(nb::handle x, uintptr_t weight, const Format& format, nb::handle out, bool same, int n_threads) {
        const Tensor a = read_tensor(x, "x", 2);
        const Tensor c = read_tensor(out, "out", 2);
        if (a.dtype != DType::f32 || c.dtype != DType::f32 || a.shape[0] != c.shape[0])
            throw std::invalid_argument("x and out must be float32, with as many rows");
        const WeightFormat f = format_of(format);
        if (!gemv_.has(f.type, a.shape[1]))
            throw std::invalid_argument("rows of " + std::to_string(a.shape[1]) + " numbers in type " +
                                        std::to_string(f.type) + " have no kernel");
        ggml::GemvJob job{
            {},
            {},
            {reinterpret_cast<const char*>(weight), a.shape[1] / f.block * f.block_bytes, c.shape[1], a.shape[1], f}};
        for (int64_t i = 0; i < a.shape[0]; ++i) {
            job.x.push_back(a.f32() + i * a.stride[0]);
            job.out.push_back(c.f32() + i * c.stride[0]);
        }
        const Released release;
        gemv_.multiply({job}, same, n_threads);
    }

private:
    static const GemvKernels& kernels_of_few(std::string_view name) {
        const GemvKernels* const k = gemv_kernels(name);
        if (k == nullptr)
            throw std::invalid_argument("this machine has no kernels for few rows called '" + std::string(name) + "'");
        return *k;
    }

    ggml::Gemv gemv_;
};

void unpack(uintptr_t weight, const Format& format, nb::handle out, std::string_view kernels) {
    const Tensor t = read_tensor(out, "out", 1);
    if (t.dtype != DType::bf16) throw std::invalid_argument("out must be bfloat16");
    kernels_of(kernels).unpack(format_of(format), reinterpret_cast<const char*>(weight), t.shape[0],
                               static_cast<uint16_t*>(t.data));
}

template <class Kernels>
std::vector<std::string> names(const std::vector<const Kernels*>& all) {
    std::vector<std::string> out;
    for (const Kernels* k : all) out.emplace_back(k->name);
    return out;
}

}  // namespace

void bind_ggml_product(nb::module_& m) {
    m.def(
        "product_kernels", [] { return names(product_kernels()); },
        "Names of the kernels that multiply quantized weights with many rows here, best first.");
    nb::class_<PyProducts>(m, "GgmlProducts", "Products of a weight, as a GGUF file has it, with many rows, in bf16.")
        .def(nb::init<std::string_view>(), nb::arg("kernels") = "")
        .def(
            "multiply", &PyProducts::multiply, nb::arg("x"), nb::arg("weight"), nb::arg("format"), nb::arg("out"),
            nb::arg("same") = false, nb::arg("n_threads") = 1,
            "out[i, j] = x[i] . w[j]: x (rows, depth) and out (rows, width) fp32; weight the address of `width` rows,\n"
            "one after the other; format (type, numbers and bytes of a block, address of to_float). same: x is that\n"
            "of the call before.");
    m.def(
        "gemv_kernels", [] { return names(gemv_kernels()); },
        "Names of the kernels that multiply quantized weights with a few rows here, best first.");
    nb::class_<PyGemv>(m, "GgmlGemv", "Products of a weight, as a GGUF file has it, with a few rows, in 8 bits.")
        .def(nb::init<std::string_view>(), nb::arg("kernels") = "")
        .def("multiply", &PyGemv::multiply, nb::arg("x"), nb::arg("weight"), nb::arg("format"), nb::arg("out"),
             nb::arg("same") = false, nb::arg("n_threads") = 1,
             "As GgmlProducts.multiply. Rows of x are rounded to 8 bits, 32 numbers with a scale of their own.");
    m.def("ggml_unpack", &unpack, nb::arg("weight"), nb::arg("format"), nb::arg("out"), nb::arg("kernels") = "",
          "The numbers of a weight's row, in whole blocks, as bf16.");
}

}  // namespace sakuin
