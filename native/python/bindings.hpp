// One function per index, and one for the device of llama.cpp, that adds native entry points to the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace sakuin {

void bind_flat(nanobind::module_& m);
void bind_ggml(nanobind::module_& m);
void bind_ggml_product(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_ivf(nanobind::module_& m);
void bind_prefill(nanobind::module_& m);
void bind_sketch(nanobind::module_& m);
void bind_sketch_steps(nanobind::module_& m);

}  // namespace sakuin
