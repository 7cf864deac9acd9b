// Builds the table of kernels for one instruction set. Included only by the files compiled per instruction set.
#pragma once

#include "kernels/flat.hpp"
#include "kernels/flat_mass.hpp"
#include "kernels/kernels.hpp"
#include "kernels/nearest.hpp"
#include "kernels/probe.hpp"
#include "kernels/seal.hpp"
#include "kernels/sketch_table.hpp"

namespace sakuin {

template <class I>
constexpr Kernels make_table() {
    return Kernels{
        .name = I::name,
        .lanes = I::lanes,
        .flat_scratch = &Flat<I>::scratch,
        .flat_range = &Flat<I>::range,
        .flat_mass = &Flat<I>::mass,
        .flat_kept_mass = &FlatMass<I>::kept_mass,
        .sketch = &sketch_table<I>,
        .seal = &seal_table<I>,
        .nearest = &NearestRows<I>::nearest,
        .read_all = &Probe<I>::read_all,
        .multiply_add = &Probe<I>::multiply_add,
        .bf16_to_f32 = &Probe<I>::bf16_to_f32,
        .fp16_to_f32 = &Probe<I>::fp16_to_f32,
        .exp2 = &Probe<I>::exp2,
        .transpose = &Probe<I>::transpose,
        .reduce = &Probe<I>::reduce,
        .look_up = &Probe<I>::look_up,
    };
}

}  // namespace sakuin
