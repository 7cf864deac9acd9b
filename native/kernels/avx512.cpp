#include "kernels/table.hpp"

namespace sakuin {

extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = make_table<Avx512>();

}  // namespace sakuin
