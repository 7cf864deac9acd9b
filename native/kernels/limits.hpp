// The shapes that the kernels cover. Python has these numbers from here (python/bindings.cpp).
#pragma once

#include <cstdint>

namespace sakuin {

// Numbers of a key and of a value, which may differ: multiples of `head_dim_step`.
constexpr int64_t least_head_dim = 8, most_head_dim = 576, head_dim_step = 8;
// Query heads of a KV head.
constexpr int64_t most_group = 128;

constexpr bool is_head_dim(int64_t d) { return d >= least_head_dim && d <= most_head_dim && d % head_dim_step == 0; }

}  // namespace sakuin
