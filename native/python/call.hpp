// What the bindings of the indexes share: a sealed segment's tensors as Python hands them over, and
// the arguments and results of one step. Everything is checked here.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "index/rows.hpp"
#include "kernels/kernels.hpp"
#include "parallel.hpp"
#include "python/tensor.hpp"

namespace sakuin {

// Native work without the GIL. In the thread that Python's signal handlers run in, they run every now and then, and
// what they raise (KeyboardInterrupt at Ctrl-C) ends the work.
class Released {
public:
    Released() : interruptible_(look()) {}

private:
    static void (*look())();

    Interruptible interruptible_;
    nb::gil_scoped_release release_;
};

// The tensors of a segment by name. Holds a dictionary of its own, so that nobody can take the memory away.
class Fields {
public:
    explicit Fields(const nb::dict& d) : dict_(nb::steal<nb::dict>(PyDict_Copy(d.ptr()))) {}

    nb::dict copy() const { return nb::steal<nb::dict>(PyDict_Copy(dict_.ptr())); }
    nb::object get(const char* name) const;
    nb::object find(const char* name) const;  // None where it is missing

    // Puts a copy in the place of a tensor, so that nobody else's writes, to a mapped file say, are seen.
    void own(const char* name);

    // The field's memory if it is a contiguous tensor on the CPU, of this type and shape;
    // else a std::invalid_argument that names it.
    template <class T>
    const T* array(const char* name, std::initializer_list<int64_t> shape) const {
        return static_cast<const T*>(array(name, element_of<T>, shape));
    }

    // Of a field of `ndim` dimensions that is otherwise so, the size of one.
    template <class T>
    int64_t size(const char* name, int ndim, int dimension) const {
        return plain(name, element_of<T>, ndim).shape[dimension];
    }

    // Keys (heads, n, head_dim) and values (heads, n, value_dim), contiguous, of one dtype, within what the kernels
    // cover, in int8 only with all scales; else as above.
    struct KeysValues {
        const void *keys, *values;
        DType dtype;
        int64_t heads, n, head_dim, value_dim;
        Int8Scales scales;
    };
    KeysValues keys_values(bool int8 = false) const;

private:
    Tensor plain(const char* name, Element element, int ndim) const;
    const void* array(const char* name, Element element, std::initializer_list<int64_t> shape) const;

    nb::dict dict_;
};

// The same of tensors that are not a segment's yet.
Fields::KeysValues read_keys_values(nb::handle keys, nb::handle values, bool int8 = false);

// Arguments of a step over an index of `heads` KV heads and `n_tokens` tokens.
struct StepCall {
    const Kernels* kernels;
    std::vector<float> q;  // (heads * group, t, head_dim)
    int64_t heads, group, t, head_dim, value_dim, n_tokens;
    float scaling = 0.0f, softcap = 0.0f;
    int n_threads;

    StepCall(nb::handle q, int64_t heads, int64_t head_dim, int64_t value_dim, int64_t n_tokens, double scaling,
             std::optional<double> softcap, int n_threads, std::string_view isa);

    int64_t rows() const { return heads * group; }
    const float* static_lse(nb::handle given) const;  // null for None
    // mass (n_kv_heads, n) in float32, rows maybe apart; null for None.
    float* mass(nb::handle given, int64_t n, int64_t& stride) const;
};

// What a step fills, as Python gets it: out (heads * group, t, value_dim), lse, coverage, exact share, touched bytes.
struct StepResults {
    Fresh out, lse, coverage, exact;
    explicit StepResults(const StepCall& c);
    nb::tuple tuple(int64_t touched_bytes) const {
        return nb::make_tuple(out.object, lse.object, coverage.object, exact.object, touched_bytes);
    }
};

// Arguments of `call` from these.
void fill(RowCall& call, const StepCall& c);
void fill(RowCall& call, const StepCall& c, const StepResults& r, nb::handle static_lse, nb::handle mass);

// Where a search puts the k keys that it finds for every query: `scores` float32 and `ids` int64,
// (n_query_heads, t, k) of `c`.
struct Found {
    int64_t k;
    float* scores;
    int64_t* ids;
    Found(const StepCall& c, nb::handle scores, nb::handle ids);
};

}  // namespace sakuin
