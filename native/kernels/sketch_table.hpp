// Builds the table of the `sketch` kernels for one instruction set.
// Included only by the files compiled per instruction set.
#pragma once

#include "kernels/attend_all.hpp"
#include "kernels/sketch_codes.hpp"
#include "kernels/sketch_keys.hpp"
#include "kernels/sketch_rescore.hpp"
#include "kernels/sketch_rows.hpp"
#include "kernels/sketch_scan.hpp"

namespace sakuin {

template <class I>
constexpr SketchKernels make_sketch_table() {
    using Keys = SketchKeys<I>;
    using Rows = SketchRows<I>;
    return SketchKernels{
        .project = &Keys::project,
        .moments = &Keys::moments,
        .prepare_scan = &SketchScan<I>::prepare,
        .scan = &SketchScan<I>::scan,
        .list_sums = &Keys::list_sums,
        .find_reach = &Keys::find_reach,
        .rescore = &SketchRescore<I>::rescore,
        .score_codes = &SketchCodes<I>::score,
        .attend_all = &AttendAllKeys<I>::attend_all,
        .score_rows = &Rows::score_rows,
        .weights = &SketchRescore<I>::weights,
        .add_rows = &Rows::add_rows,
        .add_value_codes = &Rows::add_value_codes,
    };
}

template <class I>
constexpr SketchKernels sketch_table = make_sketch_table<I>();

}  // namespace sakuin
