// What sampled queries answer: for each query the keys with the largest inner product, exactly,
// and the same seen from the keys.
#pragma once

#include <cstdint>
#include <vector>

#include "index/graph/graph.hpp"

namespace sakuin {

constexpr int64_t answers_kept = 100;  // keys in the list of a query

struct Answers {
    int64_t lists = 0, length = 0;
    std::vector<uint32_t> ids;  // (lists, length), the largest inner product first

    // The key that is first in most lists; of equals the one with the lower id. There must be a list.
    uint32_t most_frequent_first() const;
};

// The lists of one KV head's queries over all its keys.
Answers answers_of(const Graph& graph, const GraphAppend& args, int64_t head);

// For each key that is in a list: in which, those that rank it highest first.
struct AnswersByKey {
    std::vector<uint32_t> keys;
    std::vector<size_t> starts;  // where each key's lists begin, and the end
    std::vector<uint32_t> lists;

    AnswersByKey(const Answers& answers, int64_t n);
    int64_t size() const { return static_cast<int64_t>(keys.size()); }
};

}  // namespace sakuin
