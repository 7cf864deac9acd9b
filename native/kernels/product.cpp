#include "kernels/product.hpp"

#include "kernels/amx.hpp"
#include "kernels/dispatch.hpp"

namespace sakuin {

#if defined(SAKUIN_X86)
extern const ProductKernels product_amx, product_avx512bf16;
#endif

const std::vector<const ProductKernels*>& product_kernels() {
    static const std::vector<const ProductKernels*> all = [] {
        std::vector<const ProductKernels*> found;
#if defined(SAKUIN_X86)
        if (available_isas().back() == product_avx512bf16.name) {
            if (may_use_amx()) found.push_back(&product_amx);
            found.push_back(&product_avx512bf16);
        }
#endif
        return found;
    }();
    return all;
}

const ProductKernels* product_kernels(std::string_view name) {
    const auto& all = product_kernels();
    // A lower instruction set that is asked for has no kernels here.
    if (name.empty()) return all.empty() || available_isas().back() != kernels().name ? nullptr : all.front();
    for (const ProductKernels* k : all)
        if (name == k->name) return k;
    return nullptr;
}

}  // namespace sakuin
