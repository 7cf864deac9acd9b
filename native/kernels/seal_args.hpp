// The kernels that sealing a `sketch` segment spends its time in, as plain function pointers.
#pragma once

#include <cstdint>

namespace sakuin {

struct SealKernels {
    // The sum of x^2.
    float (*squares)(const float* x, int64_t n);
    // The sum of (|x| - inner)^4 over the numbers that lie beyond `range` either way.
    float (*beyond)(const float* x, int64_t n, float range, float inner);
    // codes[i] = the whole number nearest to x[i] * inverse + middle, from 0 to 2 * middle; x[i] becomes x[i] - (code -
    // middle) * step.
    void (*encode)(float* x, int64_t n, float inverse, float step, float middle, uint8_t* codes);
    // Four bits a number between the row's lowest and highest, 16 numbers in 8 bytes; params: lowest number and step in
    // bf16. The two are rounded first, so that the codes make up for it.
    void (*pack_row)(const float* row, int head_dim, uint8_t* codes, uint16_t* params);
};

}  // namespace sakuin
