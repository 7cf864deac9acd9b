#include "kernels/table.hpp"

namespace sakuin {

extern const Kernels kernels_portable;
const Kernels kernels_portable = make_table<Portable>();

}  // namespace sakuin
