// Products of weights, as a file has them, with a few rows: a step of decode, of one sequence or several.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml/product.hpp"
#include "kernels/gemv.hpp"

namespace sakuin::ggml {

// out[i][j] = x[i] . weight[j].
struct GemvJob {
    std::vector<const float*> x;  // n rows of `weight.depth`
    std::vector<float*> out;      // n rows of `weight.width`
    Weight weight;
};

// Keeps the memory of one call for the next. For one thread at a time.
class Gemv {
public:
    explicit Gemv(const GemvKernels& kernels) : kernels_(kernels) {}

    // Whether rows of `depth` numbers in ggml's type are multiplied here.
    bool has(int type, int64_t depth) const;
    // The rows of x are rounded to 8 bits, 32 numbers with a scale of their own. With `same` they are taken to be those
    // of the call before.
    void multiply(const std::vector<GemvJob>& jobs, bool same, int n_threads);

private:
    struct Group {  // rows of a job that are multiplied at a time
        const GemvJob* job;
        int64_t first, n, chunk, sum;  // rows; where their chunks and sums begin
        int64_t arranged;              // the same of them arranged; -1: they are not
    };
    struct alignas(64) Line {
        char bytes[64];
    };
    struct Task {  // rows of a job's weight, with all of its groups
        size_t job;
        int64_t begin, end;
    };

    void plan(const std::vector<GemvJob>& jobs, int n_threads);
    void round(int n_threads);
    GemvRange range(const Group& group) const;
    void run(const GemvJob& job, const Task& task) const;

    const GemvKernels& kernels_;
    std::vector<GemvChunk> chunks_;
    std::vector<float> sums_;
    std::vector<Line> arranged_;
    std::vector<Group> groups_;
    std::vector<size_t> first_group_;  // of each job, and behind the last
    std::vector<Task> tasks_;
    int offset_ = -1, from_ = -1;  // of the type that the rows were rounded and arranged for; -1: of several types
};

}  // namespace sakuin::ggml
