// Products of weights with several rows of x by panels of 16 rows of the weight: as GemvKernels has them
// (gemv_args.hpp).
#pragma once

#include "kernels/gemv_args.hpp"

namespace sakuin {

int gemv_panels_from(int type);
int64_t gemv_panel_bytes(int type, int64_t depth, int n_rows);
void gemv_to_blocks(const GemvRange& p, int row, void* to);
void gemv_panels(const GemvRange& p, const void* x);

}  // namespace sakuin
