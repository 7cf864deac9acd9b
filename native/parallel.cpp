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

// One call of parallel_for, shared by the threads that work on it. Each has a range of tasks of its own, the same in
// every call with as many tasks and threads, and takes from the others' only when that is done: tasks of one call often
// read what those of the last call wrote, and that is still in the cache of the core that wrote it. (Where tasks were
// claimed in turn, a step of the `sketch` index took 0.8 ms or 1.4 ms, as chance had it, for seconds on end.)
struct Job {
    struct alignas(64) Range {
        std::atomic<int64_t> next;
        int64_t end;
    };

    const std::function<void(int64_t)>& fn;
    std::vector<Range> ranges;
    std::mutex mutex{};
    std::exception_ptr error{};

    Job(const std::function<void(int64_t)>& f, int64_t n_tasks, int team) : fn(f), ranges(static_cast<size_t>(team)) {
        for (int64_t t = 0; t < team; ++t) {
            ranges[static_cast<size_t>(t)].next = n_tasks * t / team;
            ranges[static_cast<size_t>(t)].end = n_tasks * (t + 1) / team;
        }
    }

    void work(size_t rank) {
        for (size_t i = 0; i < ranges.size(); ++i) {
            Range& range = ranges[(rank + i) % ranges.size()];
            for (;;) {
                const int64_t task = range.next.fetch_add(1, std::memory_order_relaxed);
                if (task >= range.end) break;
                try {
                    fn(task);
                } catch (...) {
                    for (Range& r : ranges) r.next.store(r.end, std::memory_order_relaxed);
                    const std::lock_guard lock(mutex);
                    if (!error) error = std::current_exception();
                }
            }
        }
    }
};

thread_local bool in_task = false;

void work_in(Job& job, int rank) {
    in_task = true;
    job.work(static_cast<size_t>(rank));
    in_task = false;
}

// Threads that sleep on a condition variable between jobs. A caller never waits for a helper that has not begun, so
// that a fork, which loses the helpers, or a busy pool costs speed and nothing else.
class Pool {
public:
    void run(Job& job, int helpers) {
        Ticket ticket{&job, helpers, 0, 0};
        {
            const std::lock_guard lock(mutex_);
            while (static_cast<int>(threads_) < helpers) {
                std::thread([this] { loop(); }).detach();
                ++threads_;
            }
            tickets_.push_back(&ticket);
        }
        wake_.notify_all();
        work_in(job, 0);
        std::unique_lock lock(mutex_);
        std::erase(tickets_, &ticket);
        done_.wait(lock, [&] { return ticket.working == 0; });
    }

private:
    struct Ticket {
        Job* job;
        int wanted;
        int working;
        int begun;
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
            const int rank = ++ticket->begun;
            ++ticket->working;
            lock.unlock();
            work_in(*ticket->job, rank);
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

// The entry point of GNU OpenMP: calls fn(data) on each thread of a team. A second pool beside torch's would fight with
// its workers, which spin for a while after each of torch's parallel regions, for the cores.
using GompParallel = void (*)(void (*fn)(void*), void* data, unsigned n_threads, unsigned flags);

GompParallel gomp_parallel() {
    static const GompParallel found = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

// The calling thread's number in its team, which is the same thread in every region that the same thread begins.
int gomp_rank() {
    static const auto number = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
    return number != nullptr ? number() : 0;
}

}  // namespace

void parallel_for(int64_t n_tasks, int n_threads, const std::function<void(int64_t)>& fn) {
    if (n_tasks <= 0) return;
    const int team = static_cast<int>(n_threads < n_tasks ? n_threads : n_tasks);
    if (team <= 1 || in_task) {
        for (int64_t i = 0; i < n_tasks; ++i) fn(i);
        return;
    }
    Job job(fn, n_tasks, team);
    if (const GompParallel borrowed = gomp_parallel()) {
        borrowed([](void* data) { work_in(*static_cast<Job*>(data), gomp_rank()); }, &job, static_cast<unsigned>(team),
                 0);
    } else {
        pool().run(job, team - 1);
    }
    if (job.error) std::rethrow_exception(job.error);
}

std::string parallel_runtime() { return gomp_parallel() != nullptr ? "openmp (borrowed)" : "own pool"; }

}  // namespace sakuin
