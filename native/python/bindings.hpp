// One function per index that adds its native entry points to the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace sakuin {

void bind_flat(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_ivf(nanobind::module_& m);
void bind_sketch(nanobind::module_& m);

}  // namespace sakuin
