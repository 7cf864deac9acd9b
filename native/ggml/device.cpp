// The device itself: what ggml's registry, scheduler and graphs see of sakuin. It accepts nodes only in threads that
// are inside a call of a session; other users of the same library are not touched.
#include <exception>
#include <new>
#include <stdexcept>

#include "ggml/session.hpp"
#include "ggml/stores.hpp"

namespace sakuin::ggml {
namespace {

const Library* library = nullptr;
Device device;
Registry registry;
const uint8_t guid[16] = {0x73, 0x61, 0x6b, 0x75, 0x69, 0x6e, 0x2d, 0x61,
                          0x74, 0x74, 0x65, 0x6e, 0x74, 0x69, 0x6f, 0x6e};

const char* name_of_device(Device*) { return "sakuin"; }

Status compute(Backend*, Graph* graph) {
    Session* const session = active();
    return session == nullptr ? failed : session->compute(graph);
}

Backend* make_backend(Device*, const char*) {
    auto* const made = new (std::nothrow) Backend{};
    if (made == nullptr) return nullptr;
    made->guid = &guid;
    made->device = &device;
    made->iface.get_name = [](Backend*) { return "sakuin"; };
    made->iface.free = [](Backend* self) { delete self; };
    made->iface.graph_compute = compute;
    return made;
}

void describe(Device*, DeviceProps* p) {
    p->name = p->description = "sakuin";
    p->memory_free = p->memory_total = 0;
    p->type = accelerator;
    p->device_id = nullptr;
    p->caps = {};
    p->caps.buffer_from_host_ptr = true;
    p->caps.mmap_support = true;
}

}  // namespace

Session*& active() {
    thread_local Session* session = nullptr;
    return session;
}

void register_device(const Library& given) {
    if (library != nullptr) return;
    library = &given;
    DeviceInterface& d = device.iface;
    d.get_name = d.get_description = name_of_device;
    d.get_memory = [](Device*, size_t* free, size_t* total) { *free = *total = 0; };
    d.get_type = [](Device*) { return accelerator; };
    d.get_props = describe;
    d.init_backend = make_backend;
    // Weights and results stay in the CPU's own buffers.
    d.get_buffer_type = [](Device*) { return library->cpu_buffer_type(); };
    d.buffer_from_host_ptr = [](Device*, void* p, size_t n, size_t) { return library->cpu_buffer_from_ptr(p, n); };
    d.supports_op = [](Device*, const Tensor* op) {
        Session* const session = active();
        if (session == nullptr || !session->accepts(op)) return false;
        if (noted_stores() != nullptr && op->op == library->ops.set_rows) {
            try {
                noted_stores()->note(*library, op->view_src);
            } catch (const std::exception&) {
                // No memory to note it: the library keeps that store, and must not see an exception.
            }
        }
        return true;
    };
    d.supports_buft = [](Device*, BufferType* type) { return library->buft_is_host(type); };
    device.reg = &registry;
    registry.api_version = library->backend_reg_get(0)->api_version;
    registry.iface.get_name = [](Registry*) { return "sakuin"; };
    registry.iface.get_device_count = [](Registry*) -> size_t { return 1; };
    registry.iface.get_device = [](Registry*, size_t) { return &device; };
    registry.iface.get_proc_address = [](Registry*, const char*) -> void* { return nullptr; };
    // The library must find in these structs what lies behind the longest tables of functions.
    Backend* const made = make_backend(&device, nullptr);
    if (made == nullptr) throw std::bad_alloc();
    const bool right = library->get_device(made) == &device && library->dev_backend_reg(&device) == &registry;
    delete made;
    if (!right) throw std::runtime_error("the library's devices are structs of another form");
    library->backend_register(&registry);
}

}  // namespace sakuin::ggml
