#include "tests/fuzz/segments.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/dispatch.hpp"

namespace sakuin::fuzz {
namespace {

using testing::at;

// Numbers that arithmetic does not like, as they look in 4, 2 and 1 bytes.
constexpr uint32_t odd4[] = {0x7fc00000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu, 0xff7fffffu, 0x00000001u,
                             0x80000000u, 0x7fffffffu, 0xffffffffu, 0x60ad78ecu, 0u,          0x0da24260u};
constexpr uint16_t odd2[] = {0x7fc0u, 0x7f80u, 0xff80u, 0x7f7fu, 0x7e00u, 0x7c00u,
                             0x7bffu, 0x0001u, 0x8000u, 0xffffu, 0x7fffu, 0u};
constexpr uint8_t odd1[] = {0x00u, 0xffu, 0x80u, 0x7fu, 0x0fu, 0xf0u};

template <class T, size_t N>
void put(Random& random, std::byte* to, const T (&odd)[N]) {
    const T x = odd[at(random.below(static_cast<int>(N)))];
    std::memcpy(to, &x, sizeof x);
}

void put_odd(Random& random, const Array& a, int64_t i) {
    std::byte* const to = a.data + i * a.bytes;
    if (a.bytes == 4)
        put(random, to, odd4);
    else if (a.bytes == 2)
        put(random, to, odd2);
    else
        put(random, to, odd1);
}

int64_t any(Random& random, int64_t n) { return static_cast<int64_t>(random.next() % static_cast<uint64_t>(n)); }

uint16_t half(float x) {
    const float size = std::min(std::abs(x), 65504.0f);
    return testing::fp16(std::copysign(size < 6.2e-5f ? 0.0f : size, x));
}

}  // namespace

Sizes sizes(Random& random) {
    constexpr int64_t dims[] = {8, 16, 24, 40, 64, 128};
    constexpr int64_t lengths[] = {1, 2, 31, 32, 33, 63, 64, 65, 127, 200, 300, 513, 700};
    constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::fp16, DType::i8};
    Sizes of{};
    of.heads = 1 + random.below(2);
    of.n = lengths[random.below(13)];
    of.head_dim = dims[random.below(6)];
    of.group = 1 + random.below(random.below(4) == 0 ? max_group : 5);
    of.t = 1 + random.below(2);
    of.dtype = dtypes[random.below(4)];
    return of;
}

Floats numbers(Random& random, const Sizes& of, float scale) {
    Floats x = testing::normals(random, of.heads * of.n * of.head_dim, 1.0f);
    for (float& v : x) v = std::clamp(v * scale, -std::numeric_limits<float>::max(), std::numeric_limits<float>::max());
    return x;
}

std::vector<std::byte> stored(const Floats& x, DType dtype) {
    std::vector<std::byte> to(x.size() * static_cast<size_t>(dtype_size(dtype)));
    for (size_t i = 0; i < x.size(); ++i) {
        std::byte* const p = to.data() + i * static_cast<size_t>(dtype_size(dtype));
        const uint16_t two = dtype == DType::bf16 ? testing::bf16(x[i]) : half(x[i]);
        const auto one = static_cast<int8_t>(std::clamp(x[i] * 30.0f, -127.0f, 127.0f));
        if (dtype == DType::f32)
            std::memcpy(p, &x[i], 4);
        else if (dtype == DType::i8)
            std::memcpy(p, &one, 1);
        else
            std::memcpy(p, &two, 2);
    }
    return to;
}

SketchCase::SketchCase(Random& random, const Sizes& of, const Floats& keys, const Floats& values, int threads) {
    const int64_t h = of.heads, n = of.n, d = of.head_dim;
    s.shape = {d, d, 4 * (1 + random.below(static_cast<int>(d / 4))), 4 + random.below(static_cast<int>(2 * d))};
    s.heads = h;
    s.n = n;
    s.dtype = of.dtype;
    const int64_t lists = lists_of(n), width = s.shape.chunks() * 16, row = d * dtype_size(of.dtype);
    // Rows of bytes: what the numbers in them are depends on the dtype.
    if (of.dtype == DType::f32) {
        s.keys = take<float>("keys", h * n * d);
        s.values = take<float>("values", h * n * d);
    } else if (of.dtype == DType::i8) {
        s.keys = take<int8_t>("keys", h * n * row);
        s.values = take<int8_t>("values", h * n * row);
        float *scale = take<float>("key_scale", h * d), *zero = take<float>("key_zero", h * d),
              *value = take<float>("value_scale", h * n);
        std::fill_n(scale, h * d, 1.0f / 30.0f);
        std::fill_n(value, h * n, 1.0f / 30.0f);
        s.scales = {scale, zero, value};
    } else {
        s.keys = take<uint16_t>("keys", h * n * d);
        s.values = take<uint16_t>("values", h * n * d);
    }
    s.order = take<uint16_t>("order", h * n, true);
    auto* const mean = take<float>("mean", h * d);
    auto* const basis = take<uint16_t>("basis", h * d * d);
    s.sketch = take<uint8_t>("sketch", h * lists * s.shape.list_bytes());
    s.sub_coordinate = take<int16_t>("sub_coordinate", h * s.shape.subs * 2, true);
    s.sub_step = take<float>("sub_step", h * s.shape.subs * 2);
    s.residue = take<float>("residue", h * d);
    s.codes = take<uint8_t>("codes", h * n * s.shape.code_bytes);
    s.code_plan = take<int32_t>("code_plan", h * 3, true);
    s.code_coordinate = take<int16_t>("code_coordinate", h * width, true);
    s.code_step = take<float>("code_step", h * width);
    s.value_codes = take<uint8_t>("value_codes", h * n * s.shape.value_bytes());
    s.value_params = take<uint16_t>("value_params", h * n * 2);
    s.list_codes = take<uint8_t>("list_codes", h * lists * s.shape.value_bytes());
    s.list_params = take<uint16_t>("list_params", h * lists * 2);
    s.within = take<float>("within", h * d);
    s.tilt = take<uint16_t>("tilt", h * s.shape.leading() * d);
    s.code_residue = take<float>("code_residue", h * d);
    s.spread = reinterpret_cast<const SketchSpread*>(take<float>("spread", h * 3));
    s.mean = mean;
    s.basis = basis;
    Floats y(keys.size()), weight(at(h * d), 1.0f), features(at(h * 2 * n));
    for (float& x : features) x = random.normal();
    for (int64_t i = 0; i < h; ++i)
        for (int64_t j = 0; j < d; ++j) {
            double sum = 0.0;
            for (int64_t k = 0; k < n; ++k) sum += static_cast<double>(keys[at((i * n + k) * d + j)]);
            const float m = mean[i * d + j] = static_cast<float>(sum / static_cast<double>(n));
            for (int64_t k = 0; k < n; ++k) y[at((i * d + j) * n + k)] = keys[at((i * n + k) * d + j)] - m;
            basis[(i * d + j) * d + j] = testing::fp16(1.0f);
        }
    const std::vector<std::byte> k = stored(keys, of.dtype), v = stored(values, of.dtype);
    SealArgs a{};
    a.kernels = &kernels();
    a.y = y.data();
    a.weight = weight.data();
    a.features = features.data();
    a.n_features = 2;
    a.keys = k.data();
    a.values = v.data();
    a.values_f32 = values.data();
    seal_sketch(a, s, threads);
    if (random.below(3) == 0) {
        files = std::make_unique<SketchFiles>(s);
        s.files = files.get();
    }
}

IvfCase::IvfCase(Random& random, const Sizes& of, const Floats& keys, const Floats& values, int threads) {
    const int64_t h = of.heads, n = of.n, d = of.head_dim;
    s.heads = h;
    s.n = n;
    s.head_dim = s.value_dim = d;
    s.lists = 1 + any(random, std::min<int64_t>(n, 40));
    s.dtype = of.dtype;
    if (of.dtype == DType::f32) {
        s.keys = take<float>("keys", h * n * d);
        s.values = take<float>("values", h * n * d);
    } else {
        s.keys = take<uint16_t>("keys", h * n * d);
        s.values = take<uint16_t>("values", h * n * d);
    }
    s.order = take<int32_t>("order", h * n, true);
    s.start = take<int32_t>("start", h * (s.lists + 1), true);
    s.mean = take<float>("mean", h * d);
    s.centroid = take<uint16_t>("centroid", h * s.lists * d);
    s.mean_value = take<uint16_t>("mean_value", h * s.lists * d);
    s.spread = take<uint16_t>("spread", h * d * d);
    const std::vector<std::byte> k = stored(keys, of.dtype), v = stored(values, of.dtype);
    seal_ivf({&kernels(), k.data(), v.data(), nullptr, 2, threads}, s);
}

GraphCase::GraphCase(Random& random, const Sizes& sizes, const Floats& k, const Floats& v) : of(sizes) {
    const int64_t h = of.heads, n = of.n, d = of.head_dim, size = dtype_size(of.dtype);
    const auto rows = [&](const char* name, const Floats& x) -> void* {
        void* const to = of.dtype == DType::f32 ? static_cast<void*>(take<float>(name, h * n * d))
                                                : static_cast<void*>(take<uint16_t>(name, h * n * d));
        const std::vector<std::byte> from = stored(x, of.dtype);
        std::memcpy(to, from.data(), from.size());
        return to;
    };
    keys = {rows("keys", k), of.dtype, n, n * d};
    values = {rows("values", v), of.dtype, n, n * d};
    coordinates_ = take<int16_t>("coordinates", h * n * graph_coordinates);
    for (int64_t i = 0; i < h * n * graph_coordinates; ++i)
        coordinates_[i] = static_cast<int16_t>(random.below(16383) - 8191);
    n_queries_ = random.below(40);
    queries_ = take<float>("queries", h * n_queries_ * d);
    for (int64_t i = 0; i < h * n_queries_ * d; ++i) queries_[i] = random.normal();
    const auto means = [&](const char* name) -> void* {
        const int64_t m = h * graph_runs(n) * d;
        return size == 4 ? static_cast<void*>(take<float>(name, m)) : static_cast<void*>(take<uint16_t>(name, m));
    };
    mean_keys = means("mean_keys");
    mean_values = means("mean_values");
    graph.head_dim = d;
    graph.heads.resize(at(h));
    for (GraphLinks& each : graph.heads) each.degree = 4 + random.below(12);
}

void GraphCase::link(Random& random, int threads) {
    GraphAppend a{};
    a.keys = keys;
    a.coordinates = coordinates_;
    a.coordinate_stride = of.n * graph_coordinates;
    a.queries = queries_;
    a.n_queries = n_queries_;
    a.renew = false;
    a.kernels = &kernels();
    a.n_threads = threads;
    // In two steps: the first tokens, then the rest, whose heads lie as far apart.
    const int64_t first = any(random, of.n + 1);
    a.keys.n = first;
    graph = graph_append(graph, a);
    a.keys.n = of.n;
    a.renew = random.below(2) == 0;
    graph = graph_append(graph, a);
    if (random.below(4) == 0) graph = graph_crop(graph, of.n);
}

void damage(Random& random, std::vector<Array>& arrays, bool also_leads) {
    const int times = 1 + random.below(4);
    for (int i = 0; i < times; ++i) {
        const Array& a = arrays[at(random.below(static_cast<int>(arrays.size())))];
        if (a.n == 0 || (a.leads && !also_leads)) continue;
        switch (random.below(4)) {
            case 0:  // single bytes
                for (int k = 1 + random.below(6); k > 0; --k)
                    a.data[any(random, a.n * a.bytes)] = static_cast<std::byte>(random.next());
                break;
            case 1:  // single numbers
                for (int k = 1 + random.below(6); k > 0; --k) put_odd(random, a, any(random, a.n));
                break;
            case 2:  // all of it the same
                put_odd(random, a, 0);
                for (int64_t k = 1; k < a.n; ++k) std::memcpy(a.data + k * a.bytes, a.data, at(a.bytes));
                break;
            default:  // all of it something
                for (int64_t k = 0; k < a.n * a.bytes; ++k) a.data[k] = static_cast<std::byte>(random.next());
        }
    }
}

}  // namespace sakuin::fuzz
