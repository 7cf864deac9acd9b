// Steps of decoding of one sequence in one layer behind a `sketch` index, without Python between them: takes the new
// keys and values into the unsealed tokens, attends, and adds up what it cost.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "index/flat/flat.hpp"
#include "index/sketch/sketch.hpp"
#include "index/steps.hpp"

namespace sakuin {

// The unsealed tokens: memory (kv_heads, capacity, head_dim) of keys and (kv_heads, capacity, value_dim) of values,
// those from `start` to `end` held.
struct UnsealedTokens {
    void *keys, *values;
    DType dtype;
    int64_t kv_heads, capacity, head_dim, value_dim, start, end;
};

// What is asked of the next step alone.
struct NextStep {
    // Queries of positions first, first + every, ... are written to (heads, n, head_dim), in the dtype of the tokens.
    void* kept = nullptr;
    int64_t n_kept = 0, first = 0, every = 1;
    // (kv_heads, stride), of all tokens with the new ones, or null: what lies above `above` of a KV head's attention
    // (mean over its query heads) is added.
    float* mass = nullptr;
    int64_t mass_stride = 0, mass_tokens = 0;
    float above = 0;
};

// Sums over the steps so far. exact to error: over positions, each the mean over KV heads or query heads.
struct StepSums {
    int64_t steps = 0, positions = 0, touched_bytes = 0, offloaded_bytes = 0;
    double exact = 0, coded = 0, coverage = 0, error = 0, seconds = 0;
};

class SketchSteps : public Steps {
public:
    SketchSteps(std::vector<const SketchSegment*> segments, FlatSpan sink, UnsealedTokens unsealed, int64_t group,
                SketchSettings settings, int n_threads);

    void prepare(int64_t end, const NextStep& next);
    void step(const NewTokens& tokens) override;
    const void* origin() const override { return segments_.empty() ? nullptr : segments_.front(); }
    int64_t end() const { return unsealed_.end; }
    StepSums take_sums();

private:
    void take(const NewTokens& tokens);
    void keep_queries(const NewTokens& tokens) const;
    void attend(const NewTokens& tokens);
    void add_mass(int64_t n_tokens);

    std::vector<const SketchSegment*> segments_;
    FlatSpan sink_;
    UnsealedTokens unsealed_;
    int64_t group_, n_sealed_ = 0;
    SketchSettings settings_;
    int n_threads_;
    NextStep next_{};
    StepSums sums_{};
    std::vector<float> q_, out_, lse_, coverage_, error_, exact_, coded_, mass_;
};

}  // namespace sakuin
