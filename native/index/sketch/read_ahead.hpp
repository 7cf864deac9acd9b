// Rows of mapped files: the pages of those about to be read are asked for together, so that the disk fetches many at a
// time instead of one at each page fault.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace sakuin {

// The pages of an array whose memory is mapped from a file. May be used from several threads at once.
class MappedRows {
public:
    struct Run {
        int64_t first, n;  // pages, counted from the one in which the array begins
        bool operator==(const Run&) const = default;
    };

    MappedRows(const void* rows, int64_t n, int64_t row_bytes, int64_t page_bytes);

    // Asks the system for the rows first + index[0 ... m), which ascend, or for m rows that lie together where index is
    // null. A page is asked for once, until `forget`: the call costs as much as scoring a hundred rows, also where the
    // page is there. Nothing but on Linux.
    void ask(int64_t first, const uint32_t* index, int64_t m);
    // Pages that were there may have gone.
    void forget();
    // What `ask` asks for: runs of neighbouring pages, which count as asked for from now on.
    void take(int64_t first, const uint32_t* index, int64_t m, std::vector<Run>& runs);

private:
    const uintptr_t begin_;  // of the page in which the array begins
    const int64_t offset_, row_bytes_, page_bytes_;
    std::atomic<uint8_t> round_{1};
    std::unique_ptr<std::atomic<uint8_t>[]> asked_;  // of each page: the round in which it was asked for; 0 for never
};

struct SketchSegment;

// The rows of a `sketch` segment in files. `head` is a KV head, `index` rows of it.
class SketchFiles {
public:
    explicit SketchFiles(const SketchSegment&);

    void ask_codes(int64_t head, const uint32_t* index, int64_t m);
    void ask_value_codes(int64_t head, const uint32_t* index, int64_t m);
    void ask_keys(int64_t head, const uint32_t* index, int64_t m);
    void ask_exact(int64_t head, const uint32_t* index, int64_t m);  // keys and values; index null: the first m

    // While it lives, the thread reads rows that were asked for. If it had to wait for any of them nevertheless, memory
    // is short and pages have been taken away: for a while nothing is taken to be there.
    class Reading {
    public:
        explicit Reading(SketchFiles* files);  // null: nothing lies in files
        ~Reading();
        Reading(const Reading&) = delete;
        Reading& operator=(const Reading&) = delete;

    private:
        SketchFiles* const files_;
        const int64_t faults_;
    };

private:
    void forget();

    const int64_t n_;  // rows of a head
    MappedRows codes_, value_codes_, value_params_, keys_, values_;
    std::unique_ptr<MappedRows> value_scale_;
    std::atomic<int> short_{0};  // readings for which nothing is taken to be there
};

}  // namespace sakuin
