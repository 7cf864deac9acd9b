// llama.cpp's stores of the keys and values that a session keeps itself. llama.cpp fills them with zeros, and nobody
// reads or writes them then.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml/abi.hpp"

namespace sakuin::ggml {

// Takes note of stores while a context is made, and gives their memory back when it is.
class Stores {
public:
    // The store of a node that a session has accepted, where it lies in the CPU's own memory.
    void note(const Library& library, const Tensor* store);
    // The whole pages of all stores go back to the system: they hold zeros until somebody writes. Returns their bytes.
    int64_t give_back() const;

private:
    struct Store {
        char* data;
        int64_t n_bytes;
    };
    std::vector<Store> stores_;
};

// Where the device takes note in this thread; null: nowhere.
Stores*& noted_stores();

}  // namespace sakuin::ggml
