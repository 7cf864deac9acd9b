#include "python/tensor.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

namespace sakuin {
namespace {

// What is looked up in torch once. Kept for the life of the process: the module is never unloaded.
struct Torch {
    nb::object tensor, empty, float32, bfloat16, float16, int8, uint8, int16, uint16, int32, int64;
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
        uint8 = torch.attr("uint8");
        int16 = torch.attr("int16");
        uint16 = torch.attr("uint16");
        int32 = torch.attr("int32");
        int64 = torch.attr("int64");
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

bool is_dense_on_cpu(nb::handle object) {
    const Torch& t = torch();
    return attribute(object, t.is_cpu).is(nb::handle(Py_True)) && attribute(object, t.layout).is(t.strided);
}

// Shape and strides, of at most four dimensions; false where there are not `ndim`.
bool read_shape(nb::handle object, int ndim, Tensor& out) {
    const nb::object shape = attribute(object, torch().shape), stride = call(object, torch().stride);
    out.ndim = static_cast<int>(nb::len(shape));
    if (out.ndim != ndim || ndim > 4) return false;
    for (int i = 0; i < ndim; ++i) {
        out.shape[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
        out.stride[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(stride.ptr(), i));
        if (PyErr_Occurred() != nullptr) throw nb::python_error();
    }
    return true;
}

void* address_of(nb::handle object) {
    const nb::object address = call(object, torch().data_ptr);
    void* const data = PyLong_AsVoidPtr(address.ptr());
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    return data;
}

nb::handle dtype_of(Element e) {
    const Torch& t = torch();
    switch (e) {
        case Element::u8: return t.uint8;
        case Element::i16: return t.int16;
        case Element::u16: return t.uint16;
        case Element::i32: return t.int32;
        case Element::i64: return t.int64;
        case Element::f32: break;
    }
    return t.float32;
}

// An uninitialised tensor. torch has a RuntimeError of its own for memory that is not there.
nb::object new_tensor(std::initializer_list<int64_t> shape, nb::handle dtype) {
    nb::object sizes = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(shape.size())));
    if (!sizes.is_valid()) throw nb::python_error();
    Py_ssize_t i = 0;
    for (const int64_t n : shape) {
        PyObject* const number = PyLong_FromLongLong(n);
        if (number == nullptr) throw nb::python_error();
        PyTuple_SET_ITEM(sizes.ptr(), i++, number);
    }
    nb::dict options;
    options["dtype"] = dtype;
    try {
        return torch().empty(sizes, **options);
    } catch (nb::python_error& e) {
        if (e.matches(PyExc_RuntimeError) && std::string(e.what()).find("allocate") != std::string::npos)
            throw std::bad_alloc();
        throw;
    }
}

}  // namespace

bool read_plain(nb::handle object, Element element, int ndim, Tensor& out) {
    const int is_tensor = PyObject_IsInstance(object.ptr(), torch().tensor.ptr());
    if (is_tensor < 0) throw nb::python_error();
    if (is_tensor == 0 || !is_dense_on_cpu(object) || !attribute(object, torch().dtype).is(dtype_of(element)) ||
        !read_shape(object, ndim, out))
        return false;
    out.data = address_of(object);
    int64_t numbers = 1;
    for (int i = 0; i < ndim; ++i) numbers *= out.shape[i];
    return out.data != nullptr || numbers == 0;
}

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
    if (!is_dense_on_cpu(object)) throw std::invalid_argument(std::string(name) + " must be a dense tensor on the CPU");

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

    if (!read_shape(object, ndim, out))
        throw std::invalid_argument(std::string(name) + " must have " + std::to_string(ndim) + " dimensions, got " +
                                    std::to_string(out.ndim));
    if (ndim > 0 && out.shape[ndim - 1] > 1 && out.stride[ndim - 1] != 1)
        throw std::invalid_argument(std::string(name) +
                                    " must be contiguous in its last dimension, its stride there is " +
                                    std::to_string(out.stride[ndim - 1]));
    out.data = address_of(object);
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
    nb::object made = new_tensor(shape, torch().float32);
    return {made, static_cast<float*>(address_of(made))};
}

FreshWhole new_i64(std::initializer_list<int64_t> shape) {
    nb::object made = new_tensor(shape, torch().int64);
    return {made, static_cast<int64_t*>(address_of(made))};
}

std::vector<int32_t> ints_of(nb::handle list, const char* name) {
    if (!PyList_Check(list.ptr()) && !PyTuple_Check(list.ptr()))
        type_error(std::string(name) + " must be a list of whole numbers, got " + nb::type_name(list.type()).c_str());
    std::vector<int32_t> found;
    for (const nb::handle each : nb::borrow<nb::object>(list)) {
        const long long x = PyLong_AsLongLong(each.ptr());
        if (PyErr_Occurred() != nullptr) throw nb::python_error();
        if (x != static_cast<int32_t>(x))
            throw std::invalid_argument(std::string(name) + " must be numbers of 32 bits, got " + std::to_string(x));
        found.push_back(static_cast<int32_t>(x));
    }
    return found;
}

std::vector<bool> bools_of(nb::handle list, const char* name) {
    if (!PyList_Check(list.ptr()) && !PyTuple_Check(list.ptr()))
        type_error(std::string(name) + " must be a list of True and False, got " + nb::type_name(list.type()).c_str());
    std::vector<bool> found;
    for (const nb::handle each : nb::borrow<nb::object>(list)) {
        const int x = PyObject_IsTrue(each.ptr());
        if (x < 0) throw nb::python_error();
        found.push_back(x == 1);
    }
    return found;
}

}  // namespace sakuin
