// Which kernels multiply weights with a few rows (gemv_args.hpp).
#pragma once

#include <string_view>
#include <vector>

#include "kernels/gemv_args.hpp"

namespace sakuin {

// Those of this machine, best first; none where it has no whole-number products.
const std::vector<const GemvKernels*>& gemv_kernels();

// The kernels of `name`, with an empty one the best that SAKUIN_ISA allows; null where there are none.
const GemvKernels* gemv_kernels(std::string_view name);

}  // namespace sakuin
