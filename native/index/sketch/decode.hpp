// One whole step of decoding over a chain of `sketch` segments: the static tokens exactly, the segments by attend.cpp,
// merged.
#pragma once

#include "index/flat/flat.hpp"
#include "index/sketch/sketch.hpp"

namespace sakuin {

// a: the step over the segments, `out` and the others as they will be of the whole; its static_lse, static_out, beside
// and mass are set here. f: the static tokens, sink and recent; its out, lse and mass are set here.
// mass: (heads, mass_stride) of all tokens in order of the sequence, or null; a.mass_stride is its stride.
// With no segments it is the static tokens alone, and only out and lse are written.
void decode_sketch(SketchAttend& a, FlatArgs& f, float* mass);

}  // namespace sakuin
