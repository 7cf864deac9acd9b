// Which kernels multiply weights with many rows (product_args.hpp).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/product_args.hpp"

namespace sakuin {

// Those of this machine, best first; none where only plain AVX-512 or less is there.
const std::vector<const ProductKernels*>& product_kernels();

// The kernels of `name`, with an empty one the best that SAKUIN_ISA allows; null where there are none.
const ProductKernels* product_kernels(std::string_view name);

}  // namespace sakuin
