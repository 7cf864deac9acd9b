// Memory that runs out when it is told to: this program's operator new counts, and fails.
#pragma once

#include <cstdint>

namespace sakuin::fuzz {

// From now on the n-th allocation (0 is the next) throws std::bad_alloc, and with `for_good` all after it.
void fail_at(int64_t n, bool for_good);
// Nothing fails any more; how many allocations there were.
int64_t stop_failing();

}  // namespace sakuin::fuzz
