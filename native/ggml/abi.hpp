// What of ggml's and llama.cpp's structs the device reads and fills, declared here: none of their headers is needed to
// build sakuin. Python checks against the loaded library that they are so (backends/llama_cpp/device.py). Nothing of
// theirs is linked: functions are called by addresses that Python looked up.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sakuin::ggml {

constexpr int max_dims = 4, max_src = 10, max_op_params = 16, max_name = 64;
// Of the interface between ggml and its devices; between the two nothing changed that is declared here.
constexpr int oldest_api = 2, newest_api = 3;
constexpr int type_f32 = 0;

enum Status : int { failed = -1, success = 0 };
enum DeviceType : int { accelerator = 3 };

struct Buffer;
struct BufferType;
struct Graph;
struct Device;
struct Registry;

// A node of a graph, or a weight.
struct Tensor {
    int type;
    Buffer* buffer;
    int64_t ne[max_dims];  // numbers, the fastest dimension first
    size_t nb[max_dims];   // bytes from one to the next
    int op;
    int32_t op_params[max_op_params];
    int32_t flags;
    Tensor* src[max_src];
    Tensor* view_src;
    size_t view_offs;
    void* data;
    char name[max_name];
    void* extra;
    char padding[8];
};

struct Traits {
    const char* type_name;
    int64_t block_size, block_size_interleave;
    size_t type_size;
    bool is_quantized;
    void (*to_float)(const void*, float*, int64_t);
    void (*from_float)(const float*, void*, int64_t);
};

struct Backend;

struct BackendInterface {
    const char* (*get_name)(Backend*);
    void (*free)(Backend*);
    void *set_tensor_async, *get_tensor_async, *set_tensor_2d_async, *get_tensor_2d_async, *cpy_tensor_async;
    void* synchronize;
    void *graph_plan_create, *graph_plan_free, *graph_plan_update, *graph_plan_compute;
    Status (*graph_compute)(Backend*, Graph*);
    void *event_record, *event_wait, *graph_optimize;
};

struct Backend {
    const uint8_t (*guid)[16];
    BackendInterface iface;
    Device* device;
    void* context;
};

struct DeviceProps {
    const char *name, *description;
    size_t memory_free, memory_total;
    int type;
    const char* device_id;
    struct {
        bool async, host_buffer, buffer_from_host_ptr, events, mmap_support;
    } caps;
};

struct DeviceInterface {
    const char* (*get_name)(Device*);
    const char* (*get_description)(Device*);
    void (*get_memory)(Device*, size_t* free, size_t* total);
    DeviceType (*get_type)(Device*);
    void (*get_props)(Device*, DeviceProps*);
    Backend* (*init_backend)(Device*, const char* params);
    BufferType* (*get_buffer_type)(Device*);
    void* get_host_buffer_type;
    Buffer* (*buffer_from_host_ptr)(Device*, void* ptr, size_t size, size_t max_tensor_size);
    bool (*supports_op)(Device*, const Tensor* op);
    bool (*supports_buft)(Device*, BufferType*);
    void *offload_op, *event_new, *event_free, *event_synchronize;
};

struct Device {
    DeviceInterface iface;
    Registry* reg;
    void* context;
};

struct RegistryInterface {
    const char* (*get_name)(Registry*);
    size_t (*get_device_count)(Registry*);
    Device* (*get_device)(Registry*, size_t);
    void* (*get_proc_address)(Registry*, const char*);
};

struct Registry {
    int api_version;
    RegistryInterface iface;
    void* context;
};

// llama.cpp's tokens of one pass.
struct Batch {
    int32_t n_tokens;
    int32_t* token;
    float* embd;
    int32_t* pos;
    int32_t* n_seq_id;
    int32_t** seq_id;
    int8_t* logits;
};

// The functions of the library that are called from here, and the numbers of its operations.
struct Library {
    void (*backend_register)(Registry*);
    Registry* (*backend_reg_get)(size_t);
    BufferType* (*cpu_buffer_type)();
    Buffer* (*cpu_buffer_from_ptr)(void*, size_t);
    bool (*buft_is_host)(BufferType*);
    BufferType* (*buffer_get_type)(Buffer*);
    int (*graph_n_nodes)(Graph*);
    Tensor* (*graph_node)(Graph*, int);
    Device* (*get_device)(Backend*);
    Registry* (*dev_backend_reg)(Device*);
    const Traits* (*get_type_traits)(int);
    int32_t (*decode)(void* context, Batch);

    struct {
        int none, reshape, view, permute, transpose, attention, set_rows, mul_mat, mul_mat_id;
    } ops;
};

}  // namespace sakuin::ggml
