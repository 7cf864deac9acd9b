// Products of weights with up to eight rows of x by tiles of whole numbers: as GemvKernels has them (gemv_args.hpp).
#pragma once

#include "kernels/gemv_args.hpp"

namespace sakuin {

int gemv_tiles_from(int type);
int64_t gemv_tile_bytes(int type, int64_t depth, int n_rows);
void gemv_to_tiles(const GemvRange& p, int row, void* to);
void gemv_tiles(const GemvRange& p, const void* x);

}  // namespace sakuin
