#include "parallel.hpp"

#include <dlfcn.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sakuin {
namespace {

// One call of parallel_for, shared by the threads that work on it.
struct Job {
    const std::function<void(int64_t)>& fn;
    const int64_t n_tasks;
    std::atomic<int64_t> next{0};
    std::mutex mutex{};
    std::exception_ptr error{};

    void work() {
        for (;;) {
            const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
            if (task >= n_tasks) return;
            try {
                fn(task);
            } catch (...) {
                next.store(n_tasks, std::memory_order_relaxed);
                const std::lock_guard lock(mutex);
                if (!error) error = std::current_exception();
            }
        }
    }
};

thread_local bool in_task = false;

void work_in(Job& job) {
    in_task = true;
    job.work();
    in_task = false;
}

// Threads that sleep on a condition variable between jobs. A caller never waits for a helper that has not begun, so that a
// fork, which loses the helpers, or a busy pool costs speed and nothing else.
class Pool {
public:
    void run(Job& job, int helpers) {
        Ticket ticket{&job, helpers, 0};
        {
            const std::lock_guard lock(mutex_);
            while (static_cast<int>(threads_) < helpers) {
                std::thread([this] { loop(); }).detach();
                ++threads_;
            }
            tickets_.push_back(&ticket);
        }
        wake_.notify_all();
        work_in(job);
        std::unique_lock lock(mutex_);
        std::erase(tickets_, &ticket);
        done_.wait(lock, [&] { return ticket.working == 0; });
    }

private:
    struct Ticket {
        Job* job;
        int wanted;
        int working;
    };

    Ticket* open() {
        for (Ticket* t : tickets_)
            if (t->wanted > 0) return t;
        return nullptr;
    }

    void loop() {
        std::unique_lock lock(mutex_);
        for (;;) {
            Ticket* ticket = nullptr;
            wake_.wait(lock, [&] { return (ticket = open()) != nullptr; });
            --ticket->wanted;
            ++ticket->working;
            lock.unlock();
            work_in(*ticket->job);
            lock.lock();
            --ticket->working;
            done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::deque<Ticket*> tickets_;
    int threads_ = 0;
};

Pool& pool() {
    static Pool* const p = new Pool;  // never destroyed: its threads sleep until the process ends
    return *p;
}

// The entry point of GNU OpenMP: calls fn(data) on each thread of a team. A second pool beside torch's would fight with its
// workers, which spin for a while after each of torch's parallel regions, for the cores.
using GompParallel = void (*)(void (*fn)(void*), void* data, unsigned n_threads, unsigned flags);

GompParallel gomp_parallel() {
    static const GompParallel found = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

}  // namespace

void parallel_for(int64_t n_tasks, int n_threads, const std::function<void(int64_t)>& fn) {
    if (n_tasks <= 0) return;
    const int team = static_cast<int>(n_threads < n_tasks ? n_threads : n_tasks);
    if (team <= 1 || in_task) {
        for (int64_t i = 0; i < n_tasks; ++i) fn(i);
        return;
    }
    Job job{fn, n_tasks};
    if (const GompParallel borrowed = gomp_parallel()) {
        borrowed([](void* data) { work_in(*static_cast<Job*>(data)); }, &job, static_cast<unsigned>(team), 0);
    } else {
        pool().run(job, team - 1);
    }
    if (job.error) std::rethrow_exception(job.error);
}

std::string parallel_runtime() { return gomp_parallel() != nullptr ? "openmp (borrowed)" : "own pool"; }

}  // namespace sakuin
