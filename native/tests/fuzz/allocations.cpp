#include "tests/fuzz/allocations.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>

namespace sakuin::fuzz {
namespace {

std::atomic<bool> armed{false}, lasting{false};
std::atomic<int64_t> count{0}, limit{0};

bool fails() {
    if (!armed.load(std::memory_order_relaxed)) return false;
    const int64_t n = count.fetch_add(1);
    return n == limit.load() || (lasting.load() && n > limit.load());
}

}  // namespace

void fail_at(int64_t n, bool for_good) {
    count = 0;
    limit = n;
    lasting = for_good;
    armed = true;
}

int64_t stop_failing() {
    armed = false;
    return count.load();
}

void* allocate(std::size_t n, std::size_t alignment) noexcept {
    if (fails()) return nullptr;
    if (n == 0) n = 1;
    if (alignment <= alignof(std::max_align_t)) return std::malloc(n);
    return std::aligned_alloc(alignment, (n + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(std::size_t n, std::size_t alignment) {
    void* const p = allocate(n, alignment);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

}  // namespace sakuin::fuzz

// NOLINTBEGIN: all forms that the standard library may call
void* operator new(std::size_t n) { return sakuin::fuzz::allocate_or_throw(n, 1); }
void* operator new[](std::size_t n) { return sakuin::fuzz::allocate_or_throw(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) {
    return sakuin::fuzz::allocate_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a) {
    return sakuin::fuzz::allocate_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return sakuin::fuzz::allocate(n, 1); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return sakuin::fuzz::allocate(n, 1); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
// NOLINTEND
