#include "index/sketch/read_ahead.hpp"

#include <algorithm>

#include "index/sketch/sketch.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace sakuin {
namespace {

#ifdef __linux__

int64_t page_size() {
    static const int64_t size = sysconf(_SC_PAGESIZE);
    return size;
}

// Advice is no more than that: where it fails, pages come as they are touched.
void will_need(uintptr_t address, int64_t bytes) {
    madvise(reinterpret_cast<void*>(address), static_cast<size_t>(bytes), MADV_WILLNEED);
}

// Page faults of this thread that had to wait for a disk. A page that was asked for is not among them, even if it is
// still on its way.
int64_t faults() {
    rusage usage{};
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_majflt : 0;
}

#else

int64_t page_size() { return 4096; }
void will_need(uintptr_t, int64_t) {}
int64_t faults() { return 0; }

#endif

// After pages have gone, nothing is taken to be there for so many readings.
constexpr int readings_when_short = 64;

}  // namespace

MappedRows::MappedRows(const void* rows, int64_t n, int64_t row_bytes, int64_t page_bytes)
    : begin_(reinterpret_cast<uintptr_t>(rows) / static_cast<uintptr_t>(page_bytes) *
             static_cast<uintptr_t>(page_bytes)),
      offset_(static_cast<int64_t>(reinterpret_cast<uintptr_t>(rows) - begin_)), row_bytes_(row_bytes),
      page_bytes_(page_bytes), asked_(std::make_unique<std::atomic<uint8_t>[]>(
                                   static_cast<size_t>((offset_ + n * row_bytes) / page_bytes + 1))) {}

void MappedRows::take(int64_t first, const uint32_t* index, int64_t m, std::vector<Run>& runs) {
    runs.clear();
    const uint8_t round = round_.load(std::memory_order_relaxed);
    const auto take_pages = [&](int64_t row, int64_t rows, int64_t from) {
        const int64_t begin = offset_ + row * row_bytes_, end = begin + rows * row_bytes_;
        int64_t page = std::max(begin / page_bytes_, from);
        for (; page * page_bytes_ < end; ++page) {
            std::atomic<uint8_t>& asked = asked_[static_cast<size_t>(page)];
            if (asked.load(std::memory_order_relaxed) == round) continue;
            asked.store(round, std::memory_order_relaxed);
            if (!runs.empty() && runs.back().first + runs.back().n == page)
                ++runs.back().n;
            else
                runs.push_back({page, 1});
        }
        return page;
    };
    if (m == 0) return;
    if (index == nullptr) {
        take_pages(first, m, 0);
        return;
    }
    int64_t next = 0;  // the first page that no row before had a part in
    for (int64_t i = 0; i < m; ++i)
        if (offset_ + (first + index[i] + 1) * row_bytes_ > next * page_bytes_)
            next = take_pages(first + index[i], 1, next);
}

void MappedRows::ask(int64_t first, const uint32_t* index, int64_t m) {
    static thread_local std::vector<Run> runs;
    take(first, index, m, runs);
    for (const Run& run : runs)
        will_need(begin_ + static_cast<uintptr_t>(run.first * page_bytes_), run.n * page_bytes_);
}

void MappedRows::forget() {
    const uint8_t round = round_.load(std::memory_order_relaxed);
    round_.store(round == 255 ? 1 : static_cast<uint8_t>(round + 1), std::memory_order_relaxed);
}

SketchFiles::SketchFiles(const SketchSegment& s)
    : n_(s.n), codes_(s.codes, s.heads * s.n, s.shape.code_bytes, page_size()),
      value_codes_(s.value_codes, s.heads * s.n, s.shape.value_bytes(), page_size()),
      value_params_(s.value_params, s.heads * s.n, 4, page_size()),
      keys_(s.keys, s.heads * s.n, s.shape.head_dim * dtype_size(s.dtype), page_size()),
      values_(s.values, s.heads * s.n, s.shape.value_dim * dtype_size(s.dtype), page_size()) {
    if (s.dtype == DType::i8)
        value_scale_ = std::make_unique<MappedRows>(s.scales.value_scale, s.heads * s.n, 4, page_size());
}

void SketchFiles::ask_codes(int64_t head, const uint32_t* index, int64_t m) { codes_.ask(head * n_, index, m); }

void SketchFiles::ask_value_codes(int64_t head, const uint32_t* index, int64_t m) {
    value_codes_.ask(head * n_, index, m);
    value_params_.ask(head * n_, index, m);
}

void SketchFiles::ask_keys(int64_t head, const uint32_t* index, int64_t m) { keys_.ask(head * n_, index, m); }

void SketchFiles::ask_exact(int64_t head, const uint32_t* index, int64_t m) {
    ask_keys(head, index, m);
    values_.ask(head * n_, index, m);
    if (value_scale_) value_scale_->ask(head * n_, index, m);
}

void SketchFiles::forget() {
    for (MappedRows* rows : {&codes_, &value_codes_, &value_params_, &keys_, &values_, value_scale_.get()})
        if (rows != nullptr) rows->forget();
}

SketchFiles::Reading::Reading(SketchFiles* files) : files_(files), faults_(files == nullptr ? 0 : faults()) {
    if (files == nullptr || files->short_.load(std::memory_order_relaxed) <= 0) return;
    files->short_.fetch_sub(1, std::memory_order_relaxed);
    files->forget();
}

SketchFiles::Reading::~Reading() {
    if (files_ != nullptr && faults() != faults_) files_->short_.store(readings_when_short, std::memory_order_relaxed);
}

}  // namespace sakuin
