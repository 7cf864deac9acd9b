#include "kernels/dispatch.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace sakuin {

extern const Kernels kernels_portable, kernels_portable16;
#if defined(SAKUIN_X86)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512bf16;
#endif

namespace {

std::vector<const Kernels*> runnable() {
    std::vector<const Kernels*> found{&kernels_portable, &kernels_portable16};
#if defined(SAKUIN_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2) found.push_back(&kernels_avx2);
    if (avx512) found.push_back(&kernels_avx512);
    // The last is missing on Cooper Lake alone, which is served as one without BF16.
    if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512vbmi2"))
        found.push_back(&kernels_avx512bf16);
#endif
    return found;
}

const std::vector<const Kernels*>& all() {
    static const std::vector<const Kernels*> found = runnable();
    return found;
}

const Kernels& by_name(std::string_view name, const std::string& asked_by) {
    std::string have;
    for (const Kernels* k : all()) {
        if (name == k->name) return *k;
        have += (have.empty() ? "" : ", ") + std::string(k->name);
    }
    throw std::invalid_argument(asked_by + " is '" + std::string(name) +
                                "', which is not an instruction set of this machine; it has " + have);
}

const Kernels& best() {
    // portable16 exists for tests: plain code is faster eight lanes wide.
    return all().size() > 2 ? *all().back() : kernels_portable;
}

const Kernels& choose() {
    const char* forced = std::getenv("SAKUIN_ISA");
    return forced != nullptr && *forced != '\0' ? by_name(forced, "SAKUIN_ISA") : best();
}

const Kernels& chosen() {
    static const Kernels& k = choose();
    return k;
}

}  // namespace

const std::vector<std::string>& available_isas() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> out;
        for (const Kernels* k : all()) out.emplace_back(k->name);
        return out;
    }();
    return names;
}

const Kernels& kernels(std::string_view isa) { return isa.empty() ? chosen() : by_name(isa, "isa"); }

void widen(const Kernels& k, const void* from, DType dtype, float* to, size_t n) {
    if (dtype == DType::f32)
        std::memcpy(to, from, n * sizeof(float));
    else
        (dtype == DType::bf16 ? k.bf16_to_f32 : k.fp16_to_f32)(static_cast<const uint16_t*>(from), to, n);
}

}  // namespace sakuin
