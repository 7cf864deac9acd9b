// Products of weights with up to eight rows of x by tiles of whole numbers: as GemvKernels has them (gemv_args.hpp).
#pragma once

#include "kernels/gemv_args.hpp"

namespace sakuin {

int gemv_tiles_from(int type);
int gemv_tiles_of_type(int type);
void gemv_arrange(const GemvRange& p, GemvTile* to);
void gemv_tiles(const GemvRange& p, const GemvTile* x);

}  // namespace sakuin
