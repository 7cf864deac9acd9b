#include "kernels/table.hpp"

namespace sakuin {

extern const Kernels kernels_avx512bf16;
const Kernels kernels_avx512bf16 = make_table<Avx512Bf16>();

}  // namespace sakuin
