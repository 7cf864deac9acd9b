// One step of every kind over segments, with arrays that are exactly as long as they must be, and what must hold of it
// whatever the numbers are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/fuzz/segments.hpp"

namespace sakuin::fuzz {

// Ends the program with a sentence and the seed unless `ok`.
void need(bool ok, const char* what);
// What is being done, for that sentence; every step has 30 seconds.
void begin_step(const char* what);
void end_step();
void set_seed(uint64_t seed);

// What came out, to be compared.
struct Answer {
    Floats numbers;
    std::vector<int64_t> ids;
    bool operator==(const Answer& other) const;
};

// Numbers that must be finite: those of searches and those of attention.
struct Finite {
    bool scores = false, out = false;
};

// `choose` decides settings, instruction set, k and so on.
Answer attend(Random choose, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q, Finite f);
Answer decode(Random choose, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q);
Answer search(Random choose, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q, Finite f);
Answer attend(Random choose, const std::vector<const IvfSegment*>& s, const Sizes& of, const Floats& q);
Answer search(Random choose, const std::vector<const IvfSegment*>& s, const Sizes& of, const Floats& q, Finite f);
Answer attend(Random choose, const GraphCase& g, const Floats& q);
Answer search(Random choose, const GraphCase& g, const Floats& q, Finite f);
// Exact attention over a segment's keys and values.
Answer flat(Random choose, const SketchSegment& s, const Sizes& of, const Floats& q);
// Of a chunk of t positions over them; nothing on machines without kernels for it.
Answer prefill(Random choose, const SketchSegment& s, const Sizes& of, const Floats& q);

}  // namespace sakuin::fuzz
