// Prefill's attention against the definition in double precision, for all kernels that this machine has. Arrays are as
// long as they are said to be, so that the sanitizers see what is read beyond them.
#include "attention/prefill.hpp"

#include <cmath>

#include "kernels/prefill_dispatch.hpp"
#include "tests/numbers.hpp"

using namespace sakuin;
using namespace sakuin::testing;

namespace {

struct Case {
    int64_t heads, group, t, d;
    std::vector<int64_t> past;
    float softcap;
    bool sinks;
    int64_t v = 0;  // of values; 0: d

    int64_t width() const { return v == 0 ? d : v; }
};

// Keys (heads, n, d) or values (heads, n, width) of one block, in bf16.
using Rows = std::vector<uint16_t>;

struct Arrays {
    Floats q, sinks;
    std::vector<Rows> keys, values;
    std::vector<int64_t> n;

    explicit Arrays(const Case& c) {
        Random random(7);
        n = c.past;
        n.push_back(c.t);
        for (const int64_t size : n)
            for (std::vector<Rows>* to : {&keys, &values}) {
                Rows& rows = to->emplace_back(at(c.heads * size * (to == &keys ? c.d : c.width())));
                for (uint16_t& x : rows) x = bf16(coarse(random));
            }
        q.resize(at(c.heads * c.group * c.t * c.d));
        for (float& x : q) x = coarse(random);
        sinks = normals(random, c.heads * c.group, 3.0f);
    }
};

Floats computed(const Case& c, const Arrays& a, const PrefillKernels& kernels, int n_threads) {
    Floats out(at(c.heads * c.group * c.t * c.width()), std::nanf(""));
    PrefillCall call{};
    call.kernels = &kernels;
    call.q = a.q.data();
    call.q_dtype = DType::f32;
    call.q_head_stride = c.t * c.d;
    call.q_stride = c.d;
    call.out_head_stride = c.width();  // out is (t, heads, width)
    call.out_stride = c.heads * c.group * c.width();
    for (size_t i = 0; i < a.n.size(); ++i)
        call.blocks.push_back({a.keys[i].data(), a.values[i].data(), DType::bf16, DType::bf16, a.n[i], a.n[i] * c.d,
                               c.d, a.n[i] * c.width(), c.width()});
    call.n_kv_heads = c.heads;
    call.group = c.group;
    call.t = c.t;
    call.head_dim = c.d;
    call.value_dim = c.width();
    call.scaling = 0.2f;
    call.softcap = c.softcap;
    call.sinks = c.sinks ? a.sinks.data() : nullptr;
    call.out = out.data();
    call.n_threads = n_threads;
    prefill_attention(call);
    return out;
}

Floats expected(const Case& c, const Arrays& a) {
    Floats out(at(c.heads * c.group * c.t * c.width()));
    std::vector<double> sum;
    for (int64_t h = 0; h < c.heads * c.group; ++h)
        for (int64_t i = 0; i < c.t; ++i) {
            const float* q = a.q.data() + (h * c.t + i) * c.d;
            double total = c.sinks ? std::exp(static_cast<double>(a.sinks[at(h)])) : 0.0;
            sum.assign(at(c.width()), 0.0);
            for (size_t b = 0; b < a.n.size(); ++b) {
                const int64_t seen = b + 1 < a.n.size() ? a.n[b] : i + 1;
                for (int64_t k = 0; k < seen; ++k) {
                    const size_t token = at(h / c.group * a.n[b] + k), row = token * at(c.d);
                    float z = 0.0f;
                    for (int64_t x = 0; x < c.d; ++x) z += q[x] * from_bf16(a.keys[b][row + at(x)]);
                    const double weight = std::exp(static_cast<double>(capped(z * 0.2f, c.softcap)));
                    total += weight;
                    for (size_t x = 0; x < sum.size(); ++x)
                        sum[x] += weight * from_bf16(a.values[b][token * sum.size() + x]);
                }
            }
            for (size_t x = 0; x < sum.size(); ++x)
                out[at(i * c.heads * c.group + h) * sum.size() + x] = static_cast<float>(sum[x] / total);
        }
    return out;
}

}  // namespace

TEST(prefill_attends_as_defined) {
    const Case cases[] = {
        {1, 1, 1, 64, {}, 0.0f, false},
        {2, 3, 40, 64, {100, 1, 300}, 0.0f, true},
        {1, 2, 33, 80, {31, 33}, 4.0f, false},
        {1, 1, 70, 128, {2500}, 0.0f, true},
        {2, 7, 5, 96, {1, 1, 1, 1, 250}, 0.0f, false},
        {1, 1, 20, 256, {300}, 2.0f, true},
        {1, 2, 300, 32, {}, 0.0f, false},
        {1, 1, 3, 13, {40}, 0.0f, false},
        {1, 2, 40, 320, {300}, 0.0f, true},
        {1, 1, 33, 512, {1200}, 0.0f, false},
        {1, 1, 20, 576, {64}, 2.0f, true},
        {1, 71, 17, 64, {100}, 0.0f, true},
        {1, 2, 40, 192, {700}, 0.0f, true, 128},
        {2, 1, 20, 64, {100}, 2.0f, false, 128},
        {1, 1, 20, 24, {1500}, 0.0f, false, 576},
    };
    for (const std::string& isa : prefill_isas())
        for (const Case& c : cases) {
            const Arrays a(c);
            const Floats right = expected(c, a);
            for (const int threads : {1, 3}) {
                const double off = distance(computed(c, a, *prefill_kernels(isa), threads), right);
                CHECK(off < 0.02, isa + " head_dim " + std::to_string(c.d) + " " + std::to_string(off));
            }
        }
}
