// The table of kernels: what every instruction set provides, as plain function pointers and plain argument structs. The
// code above (native/index) sees only this and dispatch.hpp, never a vector type.
//
// To add a kernel: declare its arguments in a header of its own, add a pointer here, write it as a template on the
// instruction set, and name it in table.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/flat_args.hpp"
#include "kernels/nearest_args.hpp"
#include "kernels/seal_args.hpp"
#include "kernels/sketch_args.hpp"

namespace sakuin {

struct Kernels {
    const char* name;
    int lanes;

    // flat: see flat_args.hpp
    size_t (*flat_scratch)(const FlatRange&);
    void (*flat_range)(const FlatRange&);
    void (*flat_mass)(const FlatRange&);
    void (*flat_kept_mass)(const FlatRange&);

    const SketchKernels* sketch;  // see sketch_args.hpp
    const SealKernels* seal;      // see seal_args.hpp

    void (*nearest)(const Nearest&);  // see nearest_args.hpp

    // roofs, for benchmarks: reads `bytes` (a multiple of 256) once / runs `rounds` x 12 x lanes multiply-adds.
    uint64_t (*read_all)(const void* p, size_t bytes);
    float (*multiply_add)(int64_t rounds);

    // of any length; see `widen` in dispatch.hpp
    void (*bf16_to_f32)(const uint16_t* x, float* y, size_t n);
    void (*fp16_to_f32)(const uint16_t* x, float* y, size_t n);

    // single operations on whole arrays, for tests; n is any length unless stated
    void (*exp2)(const float* x, float* y, size_t n, bool exact);
    void (*transpose)(const uint32_t* x, uint32_t* y);                 // lanes x lanes
    void (*reduce)(const float* x, size_t n, float* sum, float* max);  // n a multiple of lanes
    // entries (32,): of a table of 16, by one nibble of each of 32 codes;
    // mask: of those z that are not below their entry
    void (*look_up)(const uint8_t* codes, const uint16_t* table, bool high, const uint16_t* z, uint16_t* entries,
                    uint32_t* mask);
};

}  // namespace sakuin
