// The `sketch` index: one sealed segment, sealing, and attention over a chain of segments (docs/method.md). Knows
// nothing of Python.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/sketch_args.hpp"

namespace sakuin {

// Numbers that follow from the dimensions of keys (head_dim) and values (value_dim), and the settings.
struct SketchShape {
    int64_t head_dim, value_dim, subs, code_bytes;

    int64_t chunks() const { return (head_dim + 15) / 16; }
    int64_t value_bytes() const { return (value_dim + 15) / 16 * 8; }
    int64_t list_bytes() const { return subs * 32 + 32; }
    // Coordinates that most of a logit's variance lies in.
    int64_t leading() const { return head_dim < 16 ? head_dim : 16; }
};

inline int64_t lists_of(int64_t n) { return (n + list_size - 1) / list_size; }

class SketchFiles;  // index/sketch/read_ahead.hpp

constexpr int64_t most_tokens = 1 << 16;  // of a segment: `order` holds 16 bits

// Mean squares of a segment, from which a step's error is estimated.
struct SketchSpread {
    float value;       // of a value's distance from its list's mean
    float value_code;  // of what value codes leave
    float variance;    // of a value's distance from the mean of all
};

// One sealed segment: pointers to memory that somebody else keeps alive.
// Keys of a head stand in the order of their lists.
struct SketchSegment {
    SketchShape shape;
    int64_t heads, n;
    DType dtype;
    const void *keys, *values;       // (heads, n, head_dim), (heads, n, value_dim)
    Int8Scales scales;               // where these are in i8; of the values in the order of the rows
    const uint16_t* order;           // (heads, n): position in the segment of the row
    const float* mean;               // (heads, head_dim) of the keys
    const uint16_t* basis;           // (heads, head_dim, head_dim) fp16: q.k = (q basis).y + q.mean
    const uint8_t* sketch;           // (heads, lists, list_bytes): blocks of 32 keys, twice, then residue lengths
    const int16_t* sub_coordinate;   // (heads, subs, 2)
    const float* sub_step;           // (heads, subs, 2)
    const float* residue;            // (heads, head_dim): mean squared residue of the sketch per coordinate
    const uint8_t* codes;            // (heads, n, code_bytes)
    const int32_t* code_plan;        // (heads, 3): chunks of 16 coordinates in 8, 4 and 2 bits
    const int16_t* code_coordinate;  // (heads, 16 * chunks): the row's order; -1 for padding
    const float* code_step;          // (heads, 16 * chunks)
    const uint8_t* value_codes;      // (heads, n, value_bytes)
    const uint16_t* value_params;    // (heads, n, 2) bf16: lowest number, step
    const uint8_t* list_codes;       // (heads, lists, value_bytes): the mean value of each list
    const uint16_t* list_params;     // (heads, lists, 2) bf16
    const float* within;  // (heads, head_dim): mean square of a key's distance from its list's mean, per coordinate
    const uint16_t*
        tilt;  // (heads, leading, value_dim) bf16: how values go with keys inside lists, per unit of `within`
    const float* code_residue;   // (heads, head_dim): mean squared residue of the codes per coordinate
    const SketchSpread* spread;  // (heads)
    SketchFiles* files;          // where keys, values and codes are mapped from files; else null
};

// Throws std::invalid_argument, with a sentence, where sizes are beyond what the kernels cover, or where a number of
// order, sub_coordinate, code_coordinate or code_plan leads out of its array. All others may be anything: they change
// results and nothing else.
void check_shape(const SketchSegment& segment);
void check_contents(const SketchSegment& segment);

// What sealing needs beside the segment's keys and values, which linear algebra outside of here prepares.
struct SealArgs {
    const Kernels* kernels;
    float* y;             // (heads, head_dim, n): keys in the basis' coordinates, the weightiest first; overwritten
    const float* weight;  // (heads, head_dim): how much logit variance a unit of squared error costs
    const float*
        features;  // (heads, n_features, n): what beside the first 16 coordinates the lists should keep together
    int64_t n_features;
    const void *keys, *values;  // (heads, n, head_dim), (heads, n, value_dim), in order of position
    const float* values_f32;    // the values again
};

// Fills everything of `segment` but mean and basis; the pointers are written through.
void seal_sketch(const SealArgs&, const SketchSegment& segment, int n_threads);

// How much a step reads; every step may have its own. No number is below 0.
struct SketchSettings {
    // The share of the softmax, in units of 1 / n, above which a token is scored again from its code, enters with its
    // value code, is attended exactly.
    float rescore, coded, exact;
    float reach;  // a token is found by the share that it may have: its estimate plus so many standard deviations
    float cap;    // a segment of which more than this part would be scored again is read whole
    float target_error;  // thresholds are lowered for the heads whose estimated error is above it; 0: none
};

struct SketchAttend {
    const Kernels* kernels;
    std::vector<const SketchSegment*> segments;
    const float* q;  // (heads * group, t, head_dim)
    int64_t heads, group, t;
    float scaling, softcap;   // softcap 0: none
    const float* static_lse;  // (heads * group, t) or null
    // If given, called for each KV head before the scan, in parallel, and only then is its static_lse read (t is 1, the
    // group has max_group query heads at most).
    std::function<void(int64_t head)> beside;
    const float* static_out;  // (heads * group, t, value_dim), to judge errors by the whole output; or null
    SketchSettings settings;
    int n_threads;

    float *out, *lse, *coverage, *error;  // (heads * group, t, value_dim), (heads * group, t) each
    float *exact_share, *coded_share;     // (heads, t), of larger groups the mean over their parts (parts.hpp)
    float* mass;                          // (heads, mass_stride), or null
    int64_t mass_stride;
    // Of a token's shares, summed over a KV head's query heads, only what is above this is added to `mass`. Other than
    // 0 for one position and groups of max_group query heads at most alone.
    float mass_least;
    // (heads, t, n) by position, or null: how each token entered (0 by its list, 1 the same after it was scored again,
    // 2 from its value code, 3 exactly), and the group's mean share of the whole softmax by the token's best score.
    float *trace_tier, *trace_weight;
    int64_t touched_bytes;  // out
};

void attend_sketch(SketchAttend&);

struct SketchSearch {
    const Kernels* kernels;
    std::vector<const SketchSegment*> segments;
    const float* q;  // (heads * group, t, head_dim)
    int64_t heads, group, t;
    int64_t k;           // at most the number of tokens
    int64_t candidates;  // about so many keys for each query head are scored from their codes, and
    int64_t
        refined;  // the best so many of them from the keys themselves; each at least k, more than there are means all
    float reach;  // candidates are chosen by the sketch's estimate plus so many standard deviations of their residue
    int n_threads;

    float* scores;  // (heads * group, t, k) out, the largest first: inner products in float32
    int64_t* ids;   // (heads * group, t, k) out: positions
};

void search_sketch(const SketchSearch&);

}  // namespace sakuin
