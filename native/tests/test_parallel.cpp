// Tasks run once each, errors reach the caller, callers do not get into each other's way, and work can be ended.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

#include "parallel.hpp"
#include "tests/check.hpp"

using sakuin::parallel_for;

TEST(every_task_runs_exactly_once) {
    for (const int threads : {1, 2, 5})
        for (const int64_t n : {0, 1, 2, 7, 1000}) {
            const auto count = std::make_unique<std::atomic<int>[]>(static_cast<size_t>(n) + 1);
            parallel_for(n, threads, [&](int64_t i) { ++count[static_cast<size_t>(i)]; });
            bool once = true;
            for (int64_t i = 0; i < n; ++i) once = once && count[static_cast<size_t>(i)] == 1;
            CHECK(once, std::to_string(n) + " tasks on " + std::to_string(threads));
        }
}

TEST(the_first_exception_reaches_the_caller_and_the_next_call_works) {
    for (const int threads : {1, 3}) {
        bool caught = false;
        try {
            parallel_for(100, threads, [](int64_t i) {
                if (i == 42) throw std::runtime_error("task 42");
            });
        } catch (const std::runtime_error& e) {
            caught = std::string(e.what()) == "task 42";
        }
        CHECK(caught, std::to_string(threads));
        std::atomic<int64_t> sum{0};
        parallel_for(10, threads, [&](int64_t i) { sum += i; });
        CHECK(sum == 45, "");
    }
}

TEST(a_task_may_call_parallel_for_itself) {
    std::atomic<int> count{0};
    parallel_for(4, 3, [&](int64_t) { parallel_for(5, 3, [&](int64_t) { ++count; }); });
    CHECK(count == 20, std::to_string(count));
}

TEST(several_threads_may_call_at_once) {
    std::vector<std::thread> callers;
    std::atomic<int64_t> sum{0};
    for (int c = 0; c < 6; ++c)
        callers.emplace_back([&] {
            for (int round = 0; round < 50; ++round) parallel_for(20, 3, [&](int64_t i) { sum += i; });
        });
    for (std::thread& t : callers) t.join();
    CHECK(sum == 6 * 50 * 190, std::to_string(sum));
}

namespace {

struct Stopped {};
void stop() { throw Stopped(); }

}  // namespace

TEST(work_that_goes_on_for_long_is_ended_from_outside) {
    for (const int threads : {1, 3}) {
        bool stopped = false;
        std::atomic<int64_t> ran{0};
        try {
            const sakuin::Interruptible now(&stop);
            parallel_for(int64_t{1} << 40, threads, [&](int64_t) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                ++ran;
            });
        } catch (const Stopped&) {
            stopped = true;
        }
        CHECK(stopped && ran > 0, std::to_string(threads));
        sakuin::check_interrupt();  // nobody looks any more
    }
}

TEST(a_forked_child_has_threads_of_its_own) {
    std::atomic<bool> stop_others{false};
    std::thread busy([&] {  // somebody computes while the process is forked
        while (!stop_others) parallel_for(64, 3, [](int64_t) { std::this_thread::yield(); });
    });
    for (int round = 0; round < 20; ++round) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);
            std::atomic<int64_t> sum{0};
            parallel_for(100, 3, [&](int64_t i) { sum += i; });
            _exit(sum == 4950 ? 0 : 1);
        }
        int status = 1;
        waitpid(child, &status, 0);
        CHECK(status == 0, std::to_string(status));
    }
    stop_others = true;
    busy.join();
}
