// Sound segments of every kind, sealed by the real code from odd sizes and numbers, whose arrays can be damaged. Each
// array is a block of memory of its own and exactly as long as it must be, so that a sanitizer sees any access beyond.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "index/graph/graph.hpp"
#include "index/ivf/ivf.hpp"
#include "index/sketch/read_ahead.hpp"
#include "index/sketch/sketch.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

namespace sakuin::fuzz {

using testing::Floats;
using testing::Random;

// Numbers of `bytes` bytes each. leads: whether they lead to other places, and must be within `most` then.
struct Array {
    const char* name;
    std::byte* data;
    int64_t n;
    int bytes;
    bool leads = false;
};

class Memory {
public:
    // Room for n numbers, all 0, which becomes one of `arrays`.
    template <class T>
    T* take(const char* name, int64_t n, bool leads = false) {
        blocks_.push_back(std::make_unique<std::byte[]>(static_cast<size_t>(n) * sizeof(T)));
        arrays.push_back({name, blocks_.back().get(), n, static_cast<int>(sizeof(T)), leads});
        return reinterpret_cast<T*>(blocks_.back().get());
    }
    std::vector<Array> arrays;

private:
    std::vector<std::unique_ptr<std::byte[]>> blocks_;
};

// What a case is about.
struct Sizes {
    int64_t heads, n, head_dim, group, t;
    DType dtype;
};
Sizes sizes(Random& random);

// (heads, n, head_dim) keys or values, of about this size.
Floats numbers(Random& random, const Sizes& of, float scale);
// The same as the dtype holds them; numbers that it does not hold become the largest.
std::vector<std::byte> stored(const Floats& x, DType dtype);

struct SketchCase : Memory {
    SketchSegment s{};
    std::unique_ptr<SketchFiles> files;
    SketchCase(Random& random, const Sizes& of, const Floats& keys, const Floats& values, int threads);
};

struct IvfCase : Memory {
    IvfSegment s{};
    IvfCase(Random& random, const Sizes& of, const Floats& keys, const Floats& values, int threads);
};

// A graph is never stored: its keys, coordinates and means are what can be anything.
struct GraphCase : Memory {
    Sizes of;
    Graph graph;
    GraphKeys keys, values;
    void *mean_keys, *mean_values;
    GraphCase(Random& random, const Sizes& of, const Floats& keys, const Floats& values);
    void link(Random& random, int threads);

private:
    int16_t* coordinates_;
    float* queries_;
    int64_t n_queries_;
};

// Damages one to four arrays: single bytes, single numbers, or all of an array. What leads somewhere is left alone
// unless `also_leads`.
void damage(Random& random, std::vector<Array>& arrays, bool also_leads);

}  // namespace sakuin::fuzz
