// Which kernels the attention of prefill runs on: some machines have some, others none, where torch's own attention is
// used instead (sakuin/attention/exact.py).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/prefill_args.hpp"

namespace sakuin {

// Names of those that this machine can run, slowest first.
std::vector<std::string> prefill_isas();

// The kernels of `isa`; with an empty name the best, or what SAKUIN_ISA allows if it is set (it knows no "amx", which
// is therefore off). Null: there are none. Throws std::invalid_argument for a name that this machine has not.
const PrefillKernels* prefill_kernels(std::string_view isa = {});

}  // namespace sakuin
