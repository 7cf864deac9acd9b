// Memory that a thread keeps from one call to the next: fresh pages cost more than what is written to them.
#pragma once

#include <utility>

namespace sakuin {

// While it lives the memory is this call's alone. A call within the call finds none, and leaves nothing of its own: a
// signal handler may ask the same index.
template <class T>
class Kept {
public:
    explicit Kept(T& home) : home_(home), mine_(std::exchange(home, T{})) {}
    ~Kept() { home_ = std::move(mine_); }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;
    T& operator*() { return mine_; }

private:
    T& home_;
    T mine_;
};

}  // namespace sakuin
