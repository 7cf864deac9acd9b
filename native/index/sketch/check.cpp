// What a stored segment is checked for before anybody reads it: numbers that lead a kernel to other places.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "index/sketch/sketch.hpp"

namespace sakuin {
namespace {

void need(bool ok, const char* what) {
    if (!ok)
        throw std::invalid_argument(std::string("the segment's tensor '") + what +
                                    "' holds a number out of range: the data is damaged");
}

}  // namespace

void check_shape(const SketchSegment& s) {
    const int64_t d = s.shape.head_dim, subs = s.shape.subs;
    if (s.n > most_tokens)
        throw std::invalid_argument("a segment holds at most " + std::to_string(most_tokens) + " tokens, got " +
                                    std::to_string(s.n));
    if (subs < 4 || subs > std::min<int64_t>(4 * d, most_subs) || subs % 4 != 0)
        throw std::invalid_argument("the sub-quantizers of a sketch are a multiple of 4, got " + std::to_string(subs));
}

void check_contents(const SketchSegment& s) {
    for (int64_t i = 0; i < s.heads * s.n; ++i) need(s.order[i] < s.n, "order");
    for (int64_t i = 0; i < s.heads * s.shape.subs * 2; ++i)
        need(s.sub_coordinate[i] < s.shape.head_dim && s.sub_coordinate[i] >= (i % 2 == 0 ? 0 : -1), "sub_coordinate");
    for (int64_t i = 0; i < s.heads * s.shape.chunks() * 16; ++i)
        need(s.code_coordinate[i] >= -1 && s.code_coordinate[i] < s.shape.head_dim, "code_coordinate");
    for (int64_t h = 0; h < s.heads; ++h) {
        const int32_t* p = s.code_plan + h * 3;
        for (int i = 0; i < 3; ++i) need(p[i] >= 0 && p[i] <= s.shape.chunks(), "code_plan");
        need(p[0] + p[1] + p[2] <= s.shape.chunks() && p[0] * 16 + p[1] * 8 + p[2] * 4 <= s.shape.code_bytes,
             "code_plan");
    }
}

}  // namespace sakuin
