// Runs a number of independent tasks on several threads: torch's own OpenMP runtime where it is loaded, else a small
// pool that sleeps when idle. Everything native that is parallel goes through here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace sakuin {

// Calls fn(0) ... fn(n_tasks - 1), each once, in any order, on at most n_threads threads, this one among them, and
// returns when all are done. Each thread begins with a range of its own and takes over what others leave, so long and
// short ones may be mixed. The first exception of a task is rethrown here after the others have stopped claiming. May
// be called from several threads at once, and from inside a task (it then runs in place). Where no more threads can be
// had, fewer do the work. In the child of a fork it works as before, with threads of the child's own.
void parallel_for(int64_t n_tasks, int n_threads, const std::function<void(int64_t)>& fn);

// What runs the tasks: "openmp (borrowed)" or "own pool".
std::string parallel_runtime();

// While one lives, long work in this thread can be ended from outside: between the tasks of `parallel_for`, and where
// `check_interrupt` is called, `look` is called every now and then, and what it throws ends the work.
class Interruptible {
public:
    explicit Interruptible(void (*look)());
    ~Interruptible();
    Interruptible(const Interruptible&) = delete;
    Interruptible& operator=(const Interruptible&) = delete;

private:
    void (*const before_)();
};

// Looks whether this thread's work is to be ended, if nobody has done so for some 50 ms. Costs next to nothing.
void check_interrupt();

}  // namespace sakuin
