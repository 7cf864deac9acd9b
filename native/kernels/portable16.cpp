#include "kernels/table.hpp"

namespace sakuin {

extern const Kernels kernels_portable16;
const Kernels kernels_portable16 = make_table<Portable16>();

}  // namespace sakuin
