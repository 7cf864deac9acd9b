// Which pages are asked for, and that the system fetches them.
#include <algorithm>
#include <iterator>
#include <set>

#include "index/sketch/read_ahead.hpp"
#include "tests/check.hpp"
#include "tests/numbers.hpp"

#ifdef __linux__
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#endif

using namespace sakuin;
using namespace sakuin::testing;

namespace {

using Pages = std::set<int64_t>;

Pages pages_of(const std::vector<MappedRows::Run>& runs, const std::string& what) {
    Pages pages;
    int64_t end = -1;
    for (const MappedRows::Run& run : runs) {
        CHECK(run.n > 0 && run.first > end, what + ": runs ascend and do not touch");
        for (int64_t i = 0; i < run.n; ++i) pages.insert(run.first + i);
        end = run.first + run.n;
    }
    return pages;
}

}  // namespace

TEST(every_page_of_wanted_rows_is_asked_for_once) {
    Random random(21);
    for (const int64_t row_bytes : {4, 24, 128, 512, 4096, 5000, 20000})
        for (const int64_t offset : {0, 64, 4032})
            for (const int every : {1, 3, 40}) {
                const int64_t n = 700, first = 300, page = 4096;
                MappedRows rows(reinterpret_cast<const void*>(static_cast<uintptr_t>(page * 10 + offset)), n, row_bytes,
                                page);
                Pages asked;
                for (int round = 0; round < 3; ++round) {
                    const std::string what =
                        std::to_string(row_bytes) + " at " + std::to_string(offset) + " round " + std::to_string(round);
                    std::vector<uint32_t> index;
                    for (int64_t i = random.below(every); i < n - first; i += 1 + random.below(every))
                        index.push_back(static_cast<uint32_t>(i));
                    Pages wanted;
                    for (const uint32_t i : index)
                        for (int64_t b = offset + (first + i) * row_bytes; b < offset + (first + i + 1) * row_bytes;
                             ++b)
                            wanted.insert(b / page);
                    Pages fresh;
                    std::set_difference(wanted.begin(), wanted.end(), asked.begin(), asked.end(),
                                        std::inserter(fresh, fresh.end()));
                    std::vector<MappedRows::Run> runs;
                    rows.take(first, index.data(), static_cast<int64_t>(index.size()), runs);
                    CHECK(pages_of(runs, what) == fresh, what);
                    asked.insert(fresh.begin(), fresh.end());
                    rows.take(first, index.data(), static_cast<int64_t>(index.size()), runs);
                    CHECK(runs.empty(), what + " again");
                    if (round == 1) {
                        rows.forget();
                        asked.clear();
                    }
                }
                rows.forget();
                std::vector<MappedRows::Run> runs;
                rows.take(0, nullptr, n, runs);
                CHECK(runs == std::vector<MappedRows::Run>({{0, (offset + n * row_bytes + page - 1) / page}}), "all");
                rows.take(0, nullptr, 0, runs);
                CHECK(runs.empty(), "none");
            }
}

TEST(pages_can_be_forgotten_any_number_of_times) {
    MappedRows rows(reinterpret_cast<const void*>(static_cast<uintptr_t>(4096)), 10, 4096, 4096);
    const uint32_t index[] = {2, 3, 7};
    std::vector<MappedRows::Run> runs;
    for (int i = 0; i < 600; ++i) {
        rows.take(0, index, 3, runs);
        CHECK(runs == std::vector<MappedRows::Run>({{2, 2}, {7, 1}}), std::to_string(i));
        rows.forget();
    }
}

#ifdef __linux__

TEST(rows_of_a_file_are_fetched) {
    Random random(22);
    const char* folder = std::getenv("TMPDIR");
    std::string name = std::string(folder == nullptr ? "/tmp" : folder) + "/sakuin-rows-XXXXXX";
    const int file = mkstemp(name.data());
    if (file < 0) return;
    unlink(name.c_str());
    const int64_t page = sysconf(_SC_PAGESIZE), pages = 512;
    const std::vector<uint8_t> bytes = random_bytes(random, page * pages);
    CHECK(write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "write");
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    void* const memory = mmap(nullptr, bytes.size(), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    CHECK(memory != MAP_FAILED, "mmap");
    madvise(memory, bytes.size(), MADV_RANDOM);
    std::vector<uint8_t> there(at(pages));
    const auto count = [&] {
        CHECK(mincore(memory, bytes.size(), there.data()) == 0, "mincore");
        return std::count_if(there.begin(), there.end(), [](uint8_t x) { return (x & 1) != 0; });
    };
    if (count() == 0) {  // else the file system keeps its files in memory, and there is nothing to fetch
        MappedRows rows(memory, pages * 4, page / 4, page);
        std::vector<uint32_t> index;
        for (uint32_t i = 40; i < 2000; i += 97) index.push_back(i);
        rows.ask(0, index.data(), static_cast<int64_t>(index.size()));
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (count() < static_cast<int64_t>(index.size()) && std::chrono::steady_clock::now() < until)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        for (const uint32_t i : index) CHECK((there[i / 4] & 1) != 0, std::to_string(i));
        CHECK(count() < pages / 2, "what nobody wants stays on the disk");
    }
    munmap(memory, bytes.size());
}

#endif
