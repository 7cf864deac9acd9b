// The Python module: which kernels run, what they could reach, and one `bind_*` for each kind of index, in
// files of their own.
#include "python/bindings.hpp"
#include "python/call.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels/dispatch.hpp"
#include "kernels/limits.hpp"
#include "parallel.hpp"
#include "python/tensor.hpp"

namespace sakuin {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check_threads(int n_threads) {
    if (n_threads < 1) throw std::invalid_argument("n_threads must be at least 1, got " + std::to_string(n_threads));
}

// Bytes a second of reading the memory of `x` once on n_threads threads.
double read_rate(nb::handle x, int n_threads, std::string_view isa) {
    const Tensor t = read_tensor(x, "x", 1);
    const char* p = static_cast<const char*>(t.data);
    const int64_t bytes = t.shape[0] * dtype_size(t.dtype), piece = 1 << 18;
    check_threads(n_threads);
    if (bytes < piece)
        throw std::invalid_argument("x must hold at least " + std::to_string(piece) + " bytes, got " +
                                    std::to_string(bytes));
    const Kernels& k = kernels(isa);
    const Released release;
    const auto start = std::chrono::steady_clock::now();
    parallel_for(bytes / piece, n_threads, [&](int64_t i) { k.read_all(p + i * piece, static_cast<size_t>(piece)); });
    return static_cast<double>(bytes / piece * piece) / seconds_since(start);
}

// Multiply-adds a second of fp32 numbers in registers on n_threads threads.
double multiply_add_rate(int n_threads, std::string_view isa) {
    check_threads(n_threads);
    const Kernels& k = kernels(isa);
    const int64_t rounds = 1 << 20;
    const Released release;
    const auto start = std::chrono::steady_clock::now();
    parallel_for(n_threads, n_threads, [&](int64_t) { k.multiply_add(rounds); });
    return static_cast<double>(rounds) * 12 * k.lanes * n_threads / seconds_since(start);
}

constexpr const char* no_memory =
    "there is not enough memory for this part of the context; free some, or take a smaller context or model";

}  // namespace
}  // namespace sakuin

NB_MODULE(_native, m) {
    using namespace sakuin;
    m.doc() = "sakuin's native core: arrays in, arrays out.";
    // Python may end with objects of ours alive (Ctrl-C: the traceback holds the cache), which is nobody's mistake;
    // a test switches the warnings on, and sees that a run that ends well leaves no object behind.
    nb::set_leak_warnings(false);
    m.def("set_leak_warnings", &nb::set_leak_warnings, nb::arg("on"),
          "Whether objects that outlive Python are listed at exit.");
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const std::bad_alloc&) {
            PyErr_SetString(PyExc_MemoryError, no_memory);
        } catch (const std::length_error&) {
            PyErr_SetString(PyExc_MemoryError, no_memory);
        }
    });
    kernels();  // a SAKUIN_ISA that this machine does not have is refused at import
    m.attr("LEAST_HEAD_DIM") = least_head_dim;
    m.attr("MOST_HEAD_DIM") = most_head_dim;
    m.attr("HEAD_DIM_STEP") = head_dim_step;
    m.attr("MOST_GROUP") = most_group;
    m.def("isa", [] { return std::string(kernels().name); }, "Name of the instruction set whose kernels are in use.");
    m.def("isas", &available_isas, "Names of the instruction sets that this machine can run, for the `isa` arguments.");
    m.def("parallel_runtime", &parallel_runtime,
          "What runs native tasks: torch's OpenMP runtime or a pool of our own.");
    m.def("read_rate", &read_rate, nb::arg("x"), nb::arg("n_threads"), nb::arg("isa") = "",
          "Bytes a second of one plain read of the tensor `x` (one dimension).");
    m.def("multiply_add_rate", &multiply_add_rate, nb::arg("n_threads"), nb::arg("isa") = "",
          "fp32 multiply-adds a second, in registers.");
    bind_flat(m);
    bind_ggml(m);
    bind_ggml_product(m);
    bind_graph(m);
    bind_ivf(m);
    bind_prefill(m);
    bind_sketch(m);
    bind_sketch_steps(m);
}
