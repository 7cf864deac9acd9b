#include "kernels/gemv.hpp"

#include <string>

#include "kernels/amx.hpp"
#include "kernels/dispatch.hpp"

namespace sakuin {

#if defined(SAKUIN_X86)
extern const GemvKernels gemv_avx512vnni, gemv_amx;
#endif

const std::vector<const GemvKernels*>& gemv_kernels() {
    static const std::vector<const GemvKernels*> all = [] {
        std::vector<const GemvKernels*> found;
#if defined(SAKUIN_X86)
        // The set with BF16 has VNNI, and so have CPUs before it.
        const std::string& best = available_isas().back();
        if (best == "avx512bf16" || (best == "avx512" && __builtin_cpu_supports("avx512vnni"))) {
            if (may_use_amx_int8()) found.push_back(&gemv_amx);
            found.push_back(&gemv_avx512vnni);
        }
#endif
        return found;
    }();
    return all;
}

const GemvKernels* gemv_kernels(std::string_view name) {
    const auto& all = gemv_kernels();
    // A lower instruction set that is asked for has no kernels here.
    if (name.empty()) return all.empty() || available_isas().back() != kernels().name ? nullptr : all.front();
    for (const GemvKernels* k : all)
        if (name == k->name) return k;
    return nullptr;
}

}  // namespace sakuin
