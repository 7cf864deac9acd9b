#include "kernels/table.hpp"

namespace sakuin {

extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = make_table<Avx2>();

}  // namespace sakuin
