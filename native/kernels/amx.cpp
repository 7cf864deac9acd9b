#include "kernels/amx.hpp"

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sakuin {

bool may_use_amx() {
#if defined(__linux__) && defined(__x86_64__)
    static const bool may = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        constexpr unsigned bf16 = 1u << 22, tiles = 1u << 24;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & bf16) == 0 || (d & tiles) == 0) return false;
        constexpr long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        return syscall(SYS_arch_prctl, ask, tile_data) == 0;
    }();
    return may;
#else
    return false;
#endif
}

}  // namespace sakuin
