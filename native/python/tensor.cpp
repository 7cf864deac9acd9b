#include "python/tensor.hpp"

#include <algorithm>
#include <stdexcept>

namespace sakuin {
namespace {

// What is looked up in torch once. Kept for the life of the process: the module is never unloaded.
struct Torch {
    nb::object tensor, empty, float32, bfloat16, float16, int8;
    nb::object data_ptr = nb::str("data_ptr"), shape = nb::str("shape"), stride = nb::str("stride"),
               dtype = nb::str("dtype"), is_cpu = nb::str("is_cpu"), layout = nb::str("layout"), strided;

    Torch() {
        const nb::module_ torch = nb::module_::import_("torch");
        tensor = torch.attr("Tensor");
        empty = torch.attr("empty");
        float32 = torch.attr("float32");
        bfloat16 = torch.attr("bfloat16");
        float16 = torch.attr("float16");
        int8 = torch.attr("int8");
        strided = torch.attr("strided");
    }
};

const Torch& torch() {
    static const Torch* const t = new Torch;
    return *t;
}

nb::object attribute(nb::handle object, nb::handle name) {
    PyObject* found = PyObject_GetAttr(object.ptr(), name.ptr());
    if (found == nullptr) throw nb::python_error();
    return nb::steal(found);
}

nb::object call(nb::handle object, nb::handle name) {
    PyObject* found = PyObject_CallMethodNoArgs(object.ptr(), name.ptr());
    if (found == nullptr) throw nb::python_error();
    return nb::steal(found);
}

[[noreturn]] void type_error(const std::string& what) { throw nb::type_error(what.c_str()); }

}  // namespace

bool Tensor::contiguous() const {
    int64_t expected = 1;
    for (int i = ndim - 1; i >= 0; --i) {
        if (shape[i] == 0) return true;
        if (shape[i] != 1 && stride[i] != expected) return false;
        expected *= shape[i];
    }
    return true;
}

std::string shape_text(const Tensor& t) {
    std::string s = "(";
    for (int i = 0; i < t.ndim; ++i) s += (i == 0 ? "" : ", ") + std::to_string(t.shape[i]);
    return s + (t.ndim == 1 ? ",)" : ")");
}

Tensor read_tensor(nb::handle object, const char* name, int ndim, bool int8) {
    const Torch& t = torch();
    const int is_tensor = PyObject_IsInstance(object.ptr(), t.tensor.ptr());
    if (is_tensor < 0) throw nb::python_error();
    if (is_tensor == 0)
        type_error(std::string(name) + " must be a torch tensor, got " + nb::type_name(object.type()).c_str());
    if (!attribute(object, t.is_cpu).is(nb::handle(Py_True)) || !attribute(object, t.layout).is(t.strided))
        throw std::invalid_argument(std::string(name) + " must be a dense tensor on the CPU");

    Tensor out;
    const nb::object dtype = attribute(object, t.dtype);
    if (dtype.is(t.float32))
        out.dtype = DType::f32;
    else if (dtype.is(t.bfloat16))
        out.dtype = DType::bf16;
    else if (dtype.is(t.float16))
        out.dtype = DType::fp16;
    else if (int8 && dtype.is(t.int8))
        out.dtype = DType::i8;
    else
        throw std::invalid_argument(std::string(name) + " must be float32, bfloat16" +
                                    (int8 ? ", float16 or int8" : " or float16") + ", got " + nb::str(dtype).c_str());

    const nb::object shape = attribute(object, t.shape), stride = call(object, t.stride);
    out.ndim = static_cast<int>(nb::len(shape));
    if (out.ndim != ndim || ndim > 4)
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(ndim) + " dimensions, got " +
                                    std::to_string(out.ndim));
    for (int i = 0; i < ndim; ++i) {
        out.shape[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
        out.stride[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(stride.ptr(), i));
        if (PyErr_Occurred() != nullptr) throw nb::python_error();
    }
    if (ndim > 0 && out.shape[ndim - 1] > 1 && out.stride[ndim - 1] != 1)
        throw std::invalid_argument(std::string(name) +
                                    " must be contiguous in its last dimension, its stride there is " +
                                    std::to_string(out.stride[ndim - 1]));
    const nb::object address = call(object, t.data_ptr);
    out.data = PyLong_AsVoidPtr(address.ptr());
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    int64_t numbers = 1;
    for (int i = 0; i < ndim; ++i) numbers *= out.shape[i];
    if (out.data == nullptr && numbers != 0)
        throw std::invalid_argument(std::string(name) + " has no memory behind it");
    return out;
}

Tensor read_f32(nb::handle object, const char* name, std::initializer_list<int64_t> shape) {
    const Tensor t = read_tensor(object, name, static_cast<int>(shape.size()));
    Tensor want;
    for (const int64_t n : shape) want.shape[want.ndim++] = n;
    if (t.dtype != DType::f32) throw std::invalid_argument(std::string(name) + " must be float32");
    if (!std::equal(t.shape, t.shape + t.ndim, want.shape))
        throw std::invalid_argument(std::string(name) + " must have shape " + shape_text(want) + ", got " +
                                    shape_text(t));
    if (!t.contiguous()) throw std::invalid_argument(std::string(name) + " must be contiguous");
    return t;
}

Int8Scales read_scales(const Tensor& keys, nb::handle key_scale, nb::handle key_zero, nb::handle value_scale) {
    if (keys.dtype != DType::i8) {
        if (!key_scale.is_none() || !key_zero.is_none() || !value_scale.is_none())
            throw std::invalid_argument(
                "only int8 keys and values have scales: leave out key_scale, key_zero and value_scale");
        return {};
    }
    if (key_scale.is_none() || key_zero.is_none() || value_scale.is_none())
        throw std::invalid_argument("int8 keys and values need key_scale, key_zero and value_scale");
    const int64_t h = keys.shape[0], n = keys.shape[1], d = keys.shape[2];
    return {read_f32(key_scale, "key_scale", {h, d}).f32(), read_f32(key_zero, "key_zero", {h, d}).f32(),
            read_f32(value_scale, "value_scale", {h, n}).f32()};
}

Fresh new_f32(std::initializer_list<int64_t> shape) {
    const Torch& t = torch();
    nb::object sizes = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(shape.size())));
    Py_ssize_t i = 0;
    for (const int64_t n : shape) PyTuple_SET_ITEM(sizes.ptr(), i++, PyLong_FromLongLong(n));
    nb::dict options;
    options["dtype"] = t.float32;
    Fresh fresh{t.empty(sizes, **options), nullptr};
    const nb::object address = call(fresh.object, t.data_ptr);
    fresh.data = static_cast<float*>(PyLong_AsVoidPtr(address.ptr()));
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    return fresh;
}

}  // namespace sakuin
