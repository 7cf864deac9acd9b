// What a stored segment is checked for before anybody reads it: numbers that lead to other places.
#include <stdexcept>
#include <string>
#include <vector>

#include "index/ivf/ivf.hpp"

namespace sakuin {
namespace {

void need(bool ok, const char* what) {
    if (!ok)
        throw std::invalid_argument(std::string("the segment's tensor '") + what +
                                    "' holds a number out of range: the data is damaged");
}

}  // namespace

void check_contents(const IvfSegment& s) {
    for (int64_t h = 0; h < s.heads; ++h) {
        // Every position once: what is attended of one row must not count for another.
        std::vector<bool> seen(static_cast<size_t>(s.n), false);
        for (int64_t i = 0; i < s.n; ++i) {
            const int32_t at = s.order[h * s.n + i];
            need(at >= 0 && at < s.n && !seen[static_cast<size_t>(at)], "order");
            seen[static_cast<size_t>(at)] = true;
        }
        const int32_t* start = s.start + h * (s.lists + 1);
        need(start[0] == 0 && start[s.lists] == s.n, "start");
        for (int64_t l = 0; l < s.lists; ++l) need(start[l] <= start[l + 1], "start");
    }
}

}  // namespace sakuin
