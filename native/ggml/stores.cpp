#include "ggml/stores.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace sakuin::ggml {

void Stores::note(const Library& library, const Tensor* store) {
    if (store->data == nullptr || store->buffer == nullptr) return;
    if (library.buffer_get_type(store->buffer) != library.cpu_buffer_type()) return;
    auto* const data = static_cast<char*>(store->data);
    const auto same = [&](const Store& s) { return s.data == data; };
    if (std::none_of(stores_.begin(), stores_.end(), same))
        stores_.push_back({data, static_cast<int64_t>(store->nb[max_dims - 1]) * store->ne[max_dims - 1]});
}

int64_t Stores::give_back() const {
    int64_t n = 0;
#if defined(__linux__)  // elsewhere MADV_DONTNEED means other things
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    for (const Store& store : stores_) {
        const auto address = reinterpret_cast<uintptr_t>(store.data);
        const uintptr_t skipped = (page - address % page) % page;
        const auto size = static_cast<uintptr_t>(store.n_bytes);
        if (size < skipped + page) continue;
        const uintptr_t whole = (size - skipped) / page * page;
        if (madvise(store.data + skipped, whole, MADV_DONTNEED) == 0) n += static_cast<int64_t>(whole);
    }
#endif
    return n;
}

Stores*& noted_stores() {
    thread_local Stores* stores = nullptr;
    return stores;
}

}  // namespace sakuin::ggml
