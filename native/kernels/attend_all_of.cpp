#include "kernels/attend_all_of.hpp"

#include "kernels/amx.hpp"
#include "kernels/dispatch.hpp"

namespace sakuin {

#if defined(SAKUIN_X86)
void attend_all_amx(AttendAll&);
#endif

void (*attend_all_of(const SketchKernels& k))(AttendAll&) {
#if defined(SAKUIN_X86)
    static const SketchKernels* const with_tiles =
        available_isas().back() == "avx512bf16" && __builtin_cpu_supports("avx512vbmi") && may_use_amx_int8()
            ? kernels("avx512bf16").sketch
            : nullptr;
    if (&k == with_tiles) return &attend_all_amx;
#endif
    return k.attend_all;
}

}  // namespace sakuin
