// Prefill's attention with AMX: tiles of 16 x 32 bf16 numbers.
#include <immintrin.h>

#include "kernels/amx.hpp"
#include "kernels/prefill_attend.hpp"
#include "kernels/prefill_pack.hpp"

namespace sakuin {
namespace {

struct Amx {
    using Session = AmxTiles;

    // Multiplications come in steps of four: tiles 0 to 3 += tiles 4, 5 (rows) x tiles 6, 7 (columns). Each step loads
    // the tiles of the next as soon as they are free, for a load takes longer than a multiplication; odd steps take
    // another order, so that what was loaded last is needed last. After each multiplication `meanwhile` does something
    // for the other units, and before each `before` may do something to its sum.
    struct Operands {
        const uint16_t *rows, *columns;
    };

    static inline __attribute__((always_inline)) void load(const Operands& x) {
        SAKUIN_AMX_LOAD(4, x.rows, 64);
        SAKUIN_AMX_LOAD(6, x.columns, 64);
        SAKUIN_AMX_LOAD(7, x.columns + prefill_unit, 64);
        SAKUIN_AMX_LOAD(5, x.rows + prefill_unit, 64);
    }

    template <bool Odd, class Before, class Fn>
    static inline __attribute__((always_inline)) void step(const Operands& next, const Before& before, Fn&& meanwhile) {
        if constexpr (!Odd) {
            before.template tile<0>();
            SAKUIN_AMX_ADD(0, 4, 6);
            meanwhile();
            before.template tile<1>();
            SAKUIN_AMX_ADD(1, 4, 7);
            SAKUIN_AMX_LOAD(4, next.rows, 64);
            meanwhile();
            before.template tile<3>();
            SAKUIN_AMX_ADD(3, 5, 7);
            SAKUIN_AMX_LOAD(7, next.columns + prefill_unit, 64);
            meanwhile();
            before.template tile<2>();
            SAKUIN_AMX_ADD(2, 5, 6);
            SAKUIN_AMX_LOAD(6, next.columns, 64);
            SAKUIN_AMX_LOAD(5, next.rows + prefill_unit, 64);
            meanwhile();
        } else {
            SAKUIN_AMX_ADD(1, 4, 7);
            meanwhile();
            SAKUIN_AMX_ADD(0, 4, 6);
            SAKUIN_AMX_LOAD(4, next.rows, 64);
            meanwhile();
            SAKUIN_AMX_ADD(2, 5, 6);
            SAKUIN_AMX_LOAD(6, next.columns, 64);
            meanwhile();
            SAKUIN_AMX_ADD(3, 5, 7);
            SAKUIN_AMX_LOAD(7, next.columns + prefill_unit, 64);
            SAKUIN_AMX_LOAD(5, next.rows + prefill_unit, 64);
            meanwhile();
        }
    }

    struct Nothing {
        template <int I>
        void tile() const {}
    };
    template <int I>
    static inline __attribute__((always_inline)) void store(float* to, int64_t bytes) {
        if constexpr (I == 0) SAKUIN_AMX_STORE(0, to, bytes);
        if constexpr (I == 1) SAKUIN_AMX_STORE(1, to, bytes);
        if constexpr (I == 2) SAKUIN_AMX_STORE(2, to, bytes);
        if constexpr (I == 3) SAKUIN_AMX_STORE(3, to, bytes);
    }

    // Stores the scores of the column before, if there is one, and starts from zero.
    struct Scores {
        float* previous;
        template <int I>
        inline __attribute__((always_inline)) void tile() const {
            if (previous != nullptr) store<I>(previous + I % 2 * 512 + I / 2 * 256, 64);
            if constexpr (I == 0) SAKUIN_AMX_ZERO(0);
            if constexpr (I == 1) SAKUIN_AMX_ZERO(1);
            if constexpr (I == 2) SAKUIN_AMX_ZERO(2);
            if constexpr (I == 3) SAKUIN_AMX_ZERO(3);
        }
    };
    struct Sums {
        const float* out;
        int dim;
        template <int I>
        inline __attribute__((always_inline)) void tile() const {
            const float* from = out + I % 2 * 16 + I / 2 * 16 * dim;
            if constexpr (I == 0) SAKUIN_AMX_LOAD(0, from, dim * 4);
            if constexpr (I == 1) SAKUIN_AMX_LOAD(1, from, dim * 4);
            if constexpr (I == 2) SAKUIN_AMX_LOAD(2, from, dim * 4);
            if constexpr (I == 3) SAKUIN_AMX_LOAD(3, from, dim * 4);
        }
    };

    static void begin_scores(const uint16_t* q, const uint16_t* keys) { load({q, keys}); }

    // Scores of a tile of queries and a column of keys, left in tiles 0 to 3 until they are stored: those of the column
    // before go to `previous` (null: there are none). Loads the first operands of the next column, which lies behind
    // this one. `meanwhile` is told again and again to do some rows, 32 or more in all.
    template <class Fn>
    static inline __attribute__((always_inline)) void scores(const uint16_t* q, const uint16_t* keys, int dim,
                                                             float* previous, float*, Fn&& meanwhile) {
        const int steps = dim / 32, many = (8 + steps - 1) / steps;
        const auto go_on = [&]() __attribute__((always_inline)) { meanwhile(many); };
        const auto next = [&](int i) __attribute__((always_inline)) {
            return Operands{i < steps ? q + i * 2 * prefill_unit : q, keys + i * 2 * prefill_unit};
        };
        step<false>(next(1), Scores{previous}, go_on);
        for (int i = 2; i < steps; i += 2) {
            step<true>(next(i), Nothing{}, go_on);
            step<false>(next(i + 1), Nothing{}, go_on);
        }
        if (steps % 2 == 0) step<true>(next(steps), Nothing{}, go_on);
    }

    static void store_scores(float* to) {
        store<0>(to, 64);
        store<1>(to + 512, 64);
        store<2>(to + 256, 64);
        store<3>(to + 768, 64);
    }

    // out (32, dim) += weights (columns of 2 units) x values.
    static void add_values(const uint16_t* weights, const uint16_t* values, int columns, int dim, float* out) {
        const auto go_on = [] {};
        load({weights, values});
        for (int i = 0; i < dim; i += 32, out += 32, values += prefill_block * 32) {
            const auto next = [&](int j) __attribute__((always_inline)) {
                return j < columns ? Operands{weights + j * 2 * prefill_unit, values + j * 2 * prefill_unit}
                                   : Operands{weights, values + (i + 32 < dim ? prefill_block * 32 : 0)};
            };
            step<false>(next(1), Sums{out, dim}, go_on);
            for (int j = 2; j < columns; j += 2) {
                step<true>(next(j), Nothing{}, go_on);
                step<false>(next(j + 1), Nothing{}, go_on);
            }
            if (columns % 2 == 0) step<true>(next(columns), Nothing{}, go_on);
            store<0>(out, dim * 4);
            store<1>(out + 16, dim * 4);
            store<2>(out + 16 * dim, dim * 4);
            store<3>(out + 16 * dim + 16, dim * 4);
        }
    }
};

}  // namespace

extern const PrefillKernels prefill_amx;
const PrefillKernels prefill_amx{"amx", &PrefillPacking<Amx>::queries, &PrefillPacking<Amx>::keys,
                                 &PrefillPacking<Amx>::values, &PrefillAttend<Amx>::attend};

}  // namespace sakuin
