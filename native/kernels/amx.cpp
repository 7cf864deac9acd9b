#include "kernels/amx.hpp"

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sakuin {

namespace {

// Whether CPU and system let tiles be used, and of which numbers: bits of CPUID.
[[maybe_unused]] constexpr unsigned bf16 = 1u << 22, tiles = 1u << 24, int8 = 1u << 25;

unsigned usable() {
#if defined(__linux__) && defined(__x86_64__)
    static const unsigned found = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tiles) == 0) return 0u;
        constexpr long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        return syscall(SYS_arch_prctl, ask, tile_data) == 0 ? d & (bf16 | int8) : 0u;
    }();
    return found;
#else
    return 0;
#endif
}

}  // namespace

bool may_use_amx() { return (usable() & bf16) != 0; }

bool may_use_amx_int8() { return (usable() & int8) != 0; }

}  // namespace sakuin
