// Reads torch tensors for the bindings: pointer, shape, strides and dtype through torch's own attributes, which is four
// times faster than exchanging each by DLPack and knows bf16. Everything that crosses into native code is checked here.
//
// Nothing that takes memory is left to nanobind's own conversions, which end the process where there is none: strings
// are views of Python's (std::string_view), lists are read here.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/flat_args.hpp"

namespace sakuin {

namespace nb = nanobind;

// A CPU tensor of at most four dimensions; strides count numbers.
// Does not own the memory: the caller holds the Python object.
struct Tensor {
    void* data = nullptr;
    DType dtype = DType::f32;
    int ndim = 0;
    int64_t shape[4] = {}, stride[4] = {};

    bool contiguous() const;
    float* f32() const { return static_cast<float*>(data); }
};

// The tensor behind `object`, or a TypeError / ValueError that calls it `name`. It must be a dense CPU tensor of
// float32, bfloat16 or float16 (`int8`: that as well) with `ndim` dimensions, the last one contiguous.
Tensor read_tensor(nb::handle object, const char* name, int ndim, bool int8 = false);

// The same, where it must be float32, contiguous and of this shape:
// what native code writes to or reads as a plain array.
Tensor read_f32(nb::handle object, const char* name, std::initializer_list<int64_t> shape);

// What plain arrays hold beside what `Tensor` knows.
enum class Element { u8, i16, u16, i32, i64, f32 };
template <class T>
constexpr Element element_of = std::is_same_v<T, uint8_t>    ? Element::u8
                               : std::is_same_v<T, int16_t>  ? Element::i16
                               : std::is_same_v<T, uint16_t> ? Element::u16
                               : std::is_same_v<T, int32_t>  ? Element::i32
                               : std::is_same_v<T, int64_t>  ? Element::i64
                                                             : Element::f32;

// A tensor on the CPU of such numbers and of at most four dimensions, or false. dtype is left as it is.
bool read_plain(nb::handle object, Element element, int ndim, Tensor& out);

// The scales of int8 keys and values, which must be there for those (`keys` is one of the two) and for no others.
Int8Scales read_scales(const Tensor& keys, nb::handle key_scale, nb::handle key_zero, nb::handle value_scale);

// A new float32 tensor, not initialised, and its memory.
struct Fresh {
    nb::object object;
    float* data;
};
Fresh new_f32(std::initializer_list<int64_t> shape);

// The same in int64.
struct FreshWhole {
    nb::object object;
    int64_t* data;
};
FreshWhole new_i64(std::initializer_list<int64_t> shape);

// The objects of a list or tuple, which are kept as long as this lives, whatever becomes of the list; None is null.
template <class T>
struct Objects {
    nb::object held;
    std::vector<const T*> all;

    Objects(nb::handle list, const char* name) {
        if (!PyList_Check(list.ptr()) && !PyTuple_Check(list.ptr()))
            throw nb::type_error(
                (std::string(name) + " must be a list, got " + nb::type_name(list.type()).c_str()).c_str());
        held = nb::steal(PySequence_Tuple(list.ptr()));
        if (!held.is_valid()) throw nb::python_error();
        for (const nb::handle each : held) {
            const T* one = nullptr;
            if (!nb::try_cast(each, one, false))
                throw nb::type_error((std::string(name) + " must hold " + nb::type_name(nb::type<T>()).c_str() +
                                      " objects, got " + nb::type_name(each.type()).c_str())
                                         .c_str());
            all.push_back(one);
        }
    }
};

// The numbers of a list or tuple.
std::vector<int32_t> ints_of(nb::handle list, const char* name);
std::vector<bool> bools_of(nb::handle list, const char* name);

std::string shape_text(const Tensor& t);

}  // namespace sakuin
