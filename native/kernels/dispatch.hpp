// Which instruction set's kernels run: the best that this CPU has, or a lower one that SAKUIN_ISA or a caller names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernels.hpp"

namespace sakuin {

// Names of the instruction sets that this build and this CPU can run, lowest first.
const std::vector<std::string>& available_isas();

// The kernels of `isa`; with an empty name those of SAKUIN_ISA if it is set, else the best. Throws
// std::invalid_argument with a sentence that names the value and what the machine has.
const Kernels& kernels(std::string_view isa = {});

// to[n] = the first n numbers at `from`, in float32.
void widen(const Kernels&, const void* from, DType dtype, float* to, size_t n);

}  // namespace sakuin
