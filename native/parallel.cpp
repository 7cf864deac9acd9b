#include "parallel.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
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
                    check_interrupt();
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
// that a busy pool, or threads that cannot be had, cost speed and nothing else.
class Pool {
public:
    void run(Job& job, int helpers) {
        Ticket ticket{&job, helpers, 0, 0};
        {
            const std::lock_guard lock(mutex_);
            tickets_.push_back(&ticket);
            try {
                while (static_cast<int>(threads_) < helpers) {
                    std::thread([this] { loop(); }).detach();
                    ++threads_;
                }
            } catch (const std::exception&) {
                // No memory or no right for another thread: those that there are do the work.
            }
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

// Never destroyed: its threads sleep until the process ends.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
    Pool* p = the_pool.load();
    if (p == nullptr) {
        auto made = std::make_unique<Pool>();
        if (the_pool.compare_exchange_strong(p, made.get())) p = made.release();
    }
    return *p;
}

// A fork takes this thread along and no other: of a pool it leaves locks that nobody will open and workers that are not
// there. So the child begins with one of its own, and never uses the borrowed runtime, which cannot begin again.
std::atomic<bool> forked{false};

void in_child() {
    the_pool.store(nullptr);
    forked.store(true);
    in_task = false;
}

[[maybe_unused]] const int fork_is_watched = pthread_atfork(nullptr, nullptr, &in_child);

// The entry point of GNU OpenMP: calls fn(data) on each thread of a team. A second pool beside torch's would fight with
// its workers, which spin for a while after each of torch's parallel regions, for the cores.
using GompParallel = void (*)(void (*fn)(void*), void* data, unsigned n_threads, unsigned flags);

GompParallel gomp_parallel() {
    static const GompParallel found = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return forked.load() ? nullptr : found;
}

// The calling thread's number in its team, which is the same thread in every region that the same thread begins.
int gomp_rank() {
    static const auto number = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
    return number != nullptr ? number() : 0;
}

// How the thread's work is interrupted, and when it was last looked at.
using Clock = std::chrono::steady_clock;
constexpr auto between_looks = std::chrono::milliseconds(50);
thread_local void (*look)() = nullptr;
thread_local Clock::time_point next_look{};

}  // namespace

Interruptible::Interruptible(void (*now)()) : before_(look) {
    look = now;
    next_look = Clock::now() + between_looks;
}

Interruptible::~Interruptible() { look = before_; }

void check_interrupt() {
    if (look == nullptr) return;
    const Clock::time_point now = Clock::now();
    if (now < next_look) return;
    next_look = now + between_looks;
    look();
}

void parallel_for(int64_t n_tasks, int n_threads, const std::function<void(int64_t)>& fn) {
    if (n_tasks <= 0) return;
    const int team = static_cast<int>(n_threads < n_tasks ? n_threads : n_tasks);
    if (team <= 1 || in_task) {
        for (int64_t i = 0; i < n_tasks; ++i) {
            check_interrupt();
            fn(i);
        }
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
