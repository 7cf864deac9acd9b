#include "kernels/prefill_dispatch.hpp"

#include <cstdlib>
#include <stdexcept>

#include "kernels/amx.hpp"
#include "kernels/dispatch.hpp"

namespace sakuin {

#if defined(SAKUIN_X86)
extern const PrefillKernels prefill_avx512bf16, prefill_amx;
#endif

namespace {

std::vector<const PrefillKernels*> runnable() {
    std::vector<const PrefillKernels*> found;
#if defined(SAKUIN_X86)
    __builtin_cpu_init();
    bool bf16 = __builtin_cpu_supports("avx512vbmi") != 0;
    if (bf16) {
        bf16 = false;
        for (const std::string& isa : available_isas()) bf16 = bf16 || isa == "avx512bf16";
    }
    if (bf16) found.push_back(&prefill_avx512bf16);
    if (bf16 && may_use_amx()) found.push_back(&prefill_amx);
#endif
    return found;
}

const std::vector<const PrefillKernels*>& all() {
    static const std::vector<const PrefillKernels*> found = runnable();
    return found;
}

const PrefillKernels* named(std::string_view name) {
    for (const PrefillKernels* k : all())
        if (name == k->name) return k;
    return nullptr;
}

}  // namespace

std::vector<std::string> prefill_isas() {
    std::vector<std::string> names;
    for (const PrefillKernels* k : all()) names.emplace_back(k->name);
    return names;
}

const PrefillKernels* prefill_kernels(std::string_view isa) {
    if (isa.empty()) {
        const char* forced = std::getenv("SAKUIN_ISA");
        if (forced != nullptr && *forced != '\0') return named(forced);
        return all().empty() ? nullptr : all().back();
    }
    const PrefillKernels* k = named(isa);
    if (k == nullptr) {
        std::string have;
        for (const std::string& name : prefill_isas()) have += (have.empty() ? "" : ", ") + name;
        throw std::invalid_argument("isa is '" + std::string(isa) +
                                    "', for which prefill has no kernels here; it has " +
                                    (have.empty() ? "none" : have));
    }
    return k;
}

}  // namespace sakuin
