// A tiny test harness: tests register themselves, `CHECK` reports the expression, and the program's exit code is the
// number of failed tests (at most 1).
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace sakuin::testing {

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

inline int& failures() {
    static int count = 0;
    return count;
}

struct Register {
    Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline void check(bool ok, const char* what, const char* file, int line, const std::string& detail) {
    if (ok) return;
    ++failures();
    if (failures() <= 20) std::fprintf(stderr, "%s:%d: failed: %s  %s\n", file, line, what, detail.c_str());
}

// Reproducible numbers without the library's distributions, which differ between platforms.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
    uint32_t next() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(state_ >> 32);
    }
    int below(int n) { return static_cast<int>(next() % static_cast<uint32_t>(n)); }
    float unit() { return static_cast<float>(next() >> 8) * 0x1p-24f; }  // [0, 1)
    float normal() {                                                     // a sum of uniforms is normal enough here
        float s = -6.0f;
        for (int i = 0; i < 12; ++i) s += unit();
        return s;
    }

private:
    uint64_t state_;
};

}  // namespace sakuin::testing

#define TEST(name)                                                        \
    static void name();                                                   \
    static const sakuin::testing::Register register_##name(#name, &name); \
    static void name()
#define CHECK(ok, detail) sakuin::testing::check((ok), #ok, __FILE__, __LINE__, (detail))
