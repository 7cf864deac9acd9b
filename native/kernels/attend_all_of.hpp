// Which function attends all keys of a segment (AttendAll).
#pragma once

#include "kernels/sketch_args.hpp"

namespace sakuin {

// The fastest that goes with these kernels: by tiles of 8-bit numbers where CPU and system have them, else their own.
void (*attend_all_of(const SketchKernels&))(AttendAll&);

}  // namespace sakuin
