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
// be called from several threads at once, and from inside a task (it then runs in place).
void parallel_for(int64_t n_tasks, int n_threads, const std::function<void(int64_t)>& fn);

// What runs the tasks: "openmp (borrowed)" or "own pool".
std::string parallel_runtime();

}  // namespace sakuin
