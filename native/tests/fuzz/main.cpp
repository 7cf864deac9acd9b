// Fuzzes the native core: `sakuin_fuzz KIND FIRST COUNT` runs seeds FIRST to FIRST + COUNT - 1, each the same on every
// machine with the same instruction sets. Built with sanitizers (`make native-tests`), run at length by `make fuzz`.
//
//   damaged      segments of every kind with damaged arrays: refused by what a stored segment is checked for, or
//                attended and searched, whatever comes out.
//   extreme      sound segments of numbers of all sizes and queries of all sizes, infinities and NaN among them. What
//                comes of finite numbers is finite.
//   allocations  an allocation that fails, anywhere in a step: std::bad_alloc reaches the caller, and the next step is
//                as it would have been.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/dispatch.hpp"
#include "tests/fuzz/allocations.hpp"
#include "tests/fuzz/run.hpp"

namespace sakuin::fuzz {
namespace {

struct Counts {
    int64_t steps = 0, refused = 0, failed = 0;
};
Counts counts;

Floats query(Random& random, const Sizes& of) {
    return testing::normals(random, of.heads * of.group * of.t * of.head_dim, 1.5f);
}

Sizes of_floats(Sizes of) {
    if (of.dtype == DType::i8) of.dtype = DType::bf16;
    return of;
}

// Everything that can be asked of a sketch's segments.
void ask(Random& random, const std::vector<const SketchSegment*>& s, const Sizes& of, const Floats& q, Finite f) {
    attend(random, s, of, q, f);
    random.next();
    decode(random, s, of, q);
    random.next();
    search(random, s, of, q, f);
    random.next();
    flat(random, *s.front(), of, q);
    prefill(random, *s.front(), of, q);
    counts.steps += 4;
}

bool passes(const auto& segment) {
    try {
        check_contents(segment);
        return true;
    } catch (const std::invalid_argument&) {
        ++counts.refused;
        return false;
    }
}

// A query that holds odd numbers, now and then.
void spoil(Random& random, Floats& q) {
    constexpr float odd[] = {std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity(),
                             3e38f,
                             -3e38f,
                             1e27f,
                             1e-45f,
                             0.0f};
    for (int k = 1 + random.below(4); k > 0; --k) q[random.next() % q.size()] = odd[testing::at(random.below(8))];
}

void damaged(uint64_t seed) {
    Random random(seed);
    Sizes of = sizes(random);
    const bool also_leads = random.below(3) == 0;
    const int kind = random.below(6), threads = 1 + random.below(2);
    if (kind >= 3) of = of_floats(of);
    const Floats k = numbers(random, of, 1.0f), v = numbers(random, of, 1.0f);
    Floats q = query(random, of);
    if (random.below(4) == 0) spoil(random, q);
    if (kind < 3) {
        SketchCase one(random, of, k, v, threads), other(random, of, k, v, threads);
        damage(random, one.arrays, also_leads);
        if (!passes(one.s)) return;
        if (random.below(2) == 0)
            ask(random, {&one.s}, of, q, {});
        else
            ask(random, {&other.s, &one.s}, of, q, {});
    } else if (kind < 5) {
        IvfCase one(random, of, k, v, threads), other(random, of, k, v, threads);
        damage(random, one.arrays, also_leads);
        if (!passes(one.s)) return;
        const std::vector<const IvfSegment*> s = random.below(2) == 0
                                                     ? std::vector<const IvfSegment*>{&one.s}
                                                     : std::vector<const IvfSegment*>{&other.s, &one.s};
        attend(random, s, of, q);
        search(random, s, of, q, {});
        counts.steps += 2;
    } else {
        GraphCase one(random, of, k, v);
        const bool before = random.below(2) == 0;
        if (before) damage(random, one.arrays, true);
        begin_step("graph append");
        one.link(random, threads);
        end_step();
        if (!before) damage(random, one.arrays, true);
        attend(random, one, q);
        search(random, one, q, {});
        counts.steps += 3;
    }
}

void extreme(uint64_t seed) {
    Random random(seed);
    Sizes of = sizes(random);
    if (of.dtype == DType::fp16) of.dtype = DType::bf16;  // most sizes do not fit
    const int threads = 1 + random.below(2);
    constexpr float sizes_of[] = {1.0f, 1e-45f, 1e-30f, 1e-8f, 1e4f, 1e10f, 1e15f, 1e20f, 1e27f, 1e30f, 3e37f};
    const auto any = [&](int n) { return sizes_of[testing::at(random.below(n))]; };
    const float key = any(11);
    const bool wild = random.below(4) == 0;
    const Floats k = numbers(random, of, key), v = numbers(random, of, any(5));
    Floats q = query(random, of);
    const float size = any(11);
    for (float& x : q) x = std::clamp(x * size, -3e38f, 3e38f);
    if (wild) spoil(random, q);
    const Finite finite{.scores = !wild, .out = !wild};
    begin_step("sealing");
    const SketchCase one(random, of, k, v, threads);
    end_step();
    ask(random, {&one.s}, of, q, finite);
    const Sizes plain = of_floats(of);
    if (key <= 1e15f) {  // larger keys are refused
        begin_step("sealing ivf");
        const IvfCase lists(random, plain, k, v, threads);
        end_step();
        attend(random, {&lists.s}, plain, q);
        search(random, {&lists.s}, plain, q, finite);
    }
    counts.steps += 2;
    if (seed % 4 != 0) return;  // links take longer than all else
    GraphCase graph(random, plain, k, v);
    begin_step("graph append");
    graph.link(random, threads);
    end_step();
    attend(random, graph, q);
    search(random, graph, q, {});
    counts.steps += 3;
}

// Runs fn in a thread of its own, whose scratch memory is as fresh as it can be.
void in_a_thread(const std::function<void()>& fn) { std::thread(fn).join(); }

void allocations(uint64_t seed) {
    Random random(seed);
    Sizes of = of_floats(sizes(random));
    const Floats k = numbers(random, of, 1.0f), v = numbers(random, of, 1.0f), q = query(random, of);
    SketchCase sketch(random, of, k, v, 1);
    IvfCase lists(random, of, k, v, 1);
    GraphCase graph(random, of, k, v);
    const Random same = random;
    if (seed % 12 == 5 || seed % 12 == 6) {  // its links take longer than all else
        Random again = same;
        graph.link(again, 1);
    }
    const std::function<Answer()> steps[] = {
        [&] { return attend(same, std::vector<const SketchSegment*>{&sketch.s}, of, q, {}); },
        [&] { return decode(same, {&sketch.s}, of, q); },
        [&] { return search(same, std::vector<const SketchSegment*>{&sketch.s}, of, q, {}); },
        [&] { return attend(same, std::vector<const IvfSegment*>{&lists.s}, of, q); },
        [&] { return search(same, std::vector<const IvfSegment*>{&lists.s}, of, q, {}); },
        [&] { return attend(same, graph, q); },
        [&] { return search(same, graph, q, {}); },
        [&] { return flat(same, sketch.s, of, q); },
        [&] { return prefill(same, sketch.s, of, q); },
        [&]() -> Answer {
            Random own = same;
            const SketchCase made(own, of, k, v, 2);
            return {Floats(made.s.sub_step, made.s.sub_step + of.heads * made.s.shape.subs * 2), {}};
        },
        [&]() -> Answer {
            Random own = same;
            const IvfCase made(own, of, k, v, 2);
            return {Floats(made.s.mean, made.s.mean + of.heads * of.head_dim),
                    std::vector<int64_t>(made.s.order, made.s.order + of.heads * of.n)};
        },
        [&]() -> Answer {
            Random own = same;
            GraphCase made(own, of, k, v);
            made.link(own, 2);
            const auto& links = made.graph.heads.front().links;
            return {{}, std::vector<int64_t>(links.begin(), links.end())};
        }};
    const std::function<Answer()>& step = steps[seed % std::size(steps)];
    Answer want;
    int64_t n = 0;
    in_a_thread([&] {
        fail_at(std::numeric_limits<int64_t>::max(), false);
        want = step();
        n = stop_failing();
    });
    const int64_t at = static_cast<int64_t>(random.next() % static_cast<uint64_t>(std::max<int64_t>(n, 1)));
    const bool for_good = random.below(2) == 0;
    in_a_thread([&] {
        try {
            fail_at(at, for_good);
            const Answer got = step();
            stop_failing();
            // Threads of the pool may have their memory by now, or may be done without.
            need(got == want, "a step that an allocation failed in came out otherwise");
        } catch (const std::bad_alloc&) {
            stop_failing();
            ++counts.failed;
        }
        end_step();
        need(step() == want, "the step after a failed allocation came out otherwise");
    });
    counts.steps += 3;
}

}  // namespace
}  // namespace sakuin::fuzz

int main(int argc, char** argv) {
    using namespace sakuin::fuzz;
    struct Kind {
        const char* name;
        void (*run)(uint64_t);
    };
    constexpr Kind kinds[] = {{"damaged", damaged}, {"extreme", extreme}, {"allocations", allocations}};
    if (argc == 4)
        for (const Kind& kind : kinds) {
            if (std::strcmp(argv[1], kind.name) != 0) continue;
            const uint64_t first = std::strtoull(argv[2], nullptr, 10), n = std::strtoull(argv[3], nullptr, 10);
            for (uint64_t seed = first; seed < first + n; ++seed) {
                set_seed(seed);
                kind.run(seed);
            }
            std::printf("%s: %llu seeds from %llu, %lld steps, %lld refused, %lld failed allocations; sets:", kind.name,
                        static_cast<unsigned long long>(n), static_cast<unsigned long long>(first),
                        static_cast<long long>(counts.steps), static_cast<long long>(counts.refused),
                        static_cast<long long>(counts.failed));
            for (const std::string& isa : sakuin::available_isas()) std::printf(" %s", isa.c_str());
            std::printf("\n");
            return 0;
        }
    std::fprintf(stderr, "usage: sakuin_fuzz damaged|extreme|allocations FIRST COUNT\n");
    return 2;
}
