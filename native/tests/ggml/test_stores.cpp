// Stores that nobody writes give their memory back, and nothing beside them.
#include "ggml/stores.hpp"

#include <sys/mman.h>

#include <cstring>

#include "tests/check.hpp"

namespace sakuin {
namespace {

ggml::BufferType* type_of(char& c) { return reinterpret_cast<ggml::BufferType*>(&c); }
char cpu, other;

ggml::Library library_of(bool on_cpu) {
    ggml::Library library{};
    library.cpu_buffer_type = [] { return type_of(cpu); };
    library.buffer_get_type =
        on_cpu ? [](ggml::Buffer*) { return type_of(cpu); } : [](ggml::Buffer*) { return type_of(other); };
    return library;
}

ggml::Tensor store_at(char* data, int64_t n_bytes) {
    ggml::Tensor t{};
    t.buffer = reinterpret_cast<ggml::Buffer*>(&cpu), t.data = data;
    t.ne[3] = 1, t.nb[3] = static_cast<size_t>(n_bytes);
    return t;
}

#if defined(__linux__)
// Anonymous memory full of ones: what went back to the system reads as zeros.
TEST(stores_give_back_their_whole_pages) {
    constexpr int64_t total = 1 << 20, begin = 1000, size = 500000;
    void* const mapped = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED, "");
    auto* const memory = static_cast<char*>(mapped);
    for (const bool on_cpu : {false, true}) {
        std::memset(memory, 1, total);
        const ggml::Library library = library_of(on_cpu);
        const ggml::Tensor store = store_at(memory + begin, size), small = store_at(memory + size + begin, 100);
        ggml::Stores stores;
        stores.note(library, &store);
        stores.note(library, &store);
        stores.note(library, &small);
        const int64_t given = stores.give_back();
        CHECK(on_cpu ? given > size - 2 * 65536 && given < size : given == 0, std::to_string(given));
        int64_t zeros = 0;
        for (int64_t i = 0; i < total; ++i) zeros += memory[i] == 0;
        CHECK(zeros == given, std::to_string(zeros) + " of " + std::to_string(given));
        CHECK(memory[begin - 1] == 1 && memory[begin + size] == 1, "beside the store");
        if (on_cpu) CHECK(memory[begin + 65536] == 0, "within the store");
    }
    munmap(mapped, total);
}
#endif

}  // namespace
}  // namespace sakuin
