// flat_attend on every instruction set against plain double-precision code: dtypes, head_dims, groups, strides, spans,
// causal positions, softcap, sink logits, mass, threads. Buffers are exactly as long as they must be, so that a
// sanitizer sees any access beyond them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "index/flat/flat.hpp"
#include "kernels/dispatch.hpp"
#include "tests/check.hpp"

using namespace sakuin;
using testing::Random;

namespace {

// Numbers that all float dtypes hold exactly (a few bits of mantissa), so that the reference needs no rounding of its
// own; 16 times such a number is one that i8 holds.
float coarse(Random& random) { return std::round(random.normal() * 16.0f) / 16.0f; }

struct Array {
    DType dtype;
    std::vector<char> bytes;

    Array(DType t, size_t n) : dtype(t), bytes(n * static_cast<size_t>(dtype_size(t))) {}
    void set(size_t i, float x) {
        if (dtype == DType::i8) {
            bytes[i] = static_cast<char>(std::lround(x * 16.0f));
            return;
        }
        uint32_t u;
        std::memcpy(&u, &x, 4);
        if (dtype == DType::f32) {
            std::memcpy(&bytes[i * 4], &u, 4);
            return;
        }
        uint16_t h = static_cast<uint16_t>(u >> 16);
        if (dtype == DType::fp16) {
            const int exponent = static_cast<int>(u >> 23 & 255) - 127 + 15;
            h = x == 0.0f ? static_cast<uint16_t>(u >> 16 & 0x8000u)
                          : static_cast<uint16_t>((u >> 16 & 0x8000u) | static_cast<uint32_t>(exponent) << 10 |
                                                  (u >> 13 & 1023u));
        }
        std::memcpy(&bytes[i * 2], &h, 2);
    }
};

struct Case {
    int64_t heads = 2, group = 3, t = 1, d = 64, v = 0;  // v: of values; 0: d
    std::vector<int64_t> lengths{5, 130, 40};
    DType dtype = DType::bf16, q_dtype = DType::bf16;
    bool causal = true, aux = false, mass = false, other = false, token_major = false, no_scales = false;
    float softcap = 0.0f;
    int threads = 1;
    std::string isa{};

    int64_t width() const { return v == 0 ? d : v; }
};

struct Result {
    std::vector<float> out, lse, mass;
};

// Scales of an i8 span, all different in neighbouring channels and tokens; exactly as long as they must be.
struct Scales {
    std::vector<float> key_scale, key_zero, value_scale;

    Scales(const Case& c, int64_t n, Random& random)
        : key_scale(static_cast<size_t>(c.heads * c.d)), key_zero(key_scale.size()),
          value_scale(static_cast<size_t>(c.heads * n)) {
        for (float& x : key_scale) x = (0.5f + random.unit()) / 16.0f;
        for (float& x : key_zero) x = random.normal();
        for (float& x : value_scale) x = (0.5f + random.unit()) / 16.0f;
    }
    // What a number stands for.
    double key(const Case& c, int64_t head, int64_t j, double x) const {
        const size_t at = static_cast<size_t>(head * c.d + j);
        return static_cast<double>(key_zero[at]) + static_cast<double>(key_scale[at]) * std::round(x * 16.0);
    }
    double value(int64_t token, double x) const {
        return static_cast<double>(value_scale[static_cast<size_t>(token)]) * std::round(x * 16.0);
    }
};

// Runs one case through flat_attend and, by the definition, in double precision; returns both.
std::pair<Result, Result> run(const Case& c, uint64_t seed) {
    Random random(seed);
    const int64_t rows = c.heads * c.group * c.t;
    int64_t total = 0;
    for (const int64_t n : c.lengths) total += n;
    std::vector<double> q(static_cast<size_t>(rows * c.d)), k(static_cast<size_t>(c.heads * total * c.d)),
        v(static_cast<size_t>(c.heads * total * c.width()));
    for (auto* x : {&q, &k, &v})
        for (double& e : *x) e = static_cast<double>(coarse(random));
    std::vector<float> aux(static_cast<size_t>(c.heads * c.group)), other(static_cast<size_t>(c.heads * c.group * c.t));
    for (float& e : aux) e = random.normal();
    for (float& e : other) e = random.normal() * 3.0f;

    Array qa(c.q_dtype, q.size());
    for (size_t i = 0; i < q.size(); ++i) qa.set(i, static_cast<float>(q[i]));
    FlatArgs a{};
    std::vector<std::unique_ptr<Array>> held;
    std::vector<std::unique_ptr<Scales>> scales;
    int64_t first = 0;
    for (const int64_t n : c.lengths) {
        FlatSpan s{};
        s.dtype = c.dtype;
        s.n = n;
        for (const bool is_key : {true, false}) {
            const int64_t d = is_key ? c.d : c.width(), head_stride = c.token_major ? d : n * d,
                          stride = c.token_major ? c.heads * d : d;
            held.push_back(std::make_unique<Array>(c.dtype, static_cast<size_t>(c.heads * n * d)));
            for (int64_t h = 0; h < c.heads; ++h)
                for (int64_t i = 0; i < n; ++i)
                    for (int64_t j = 0; j < d; ++j)
                        held.back()->set(static_cast<size_t>(h * head_stride + i * stride + j),
                                         static_cast<float>(
                                             (is_key ? k : v)[static_cast<size_t>(((h * total) + first + i) * d + j)]));
            (is_key ? s.keys : s.values) = held.back()->bytes.data();
            (is_key ? s.key_head_stride : s.value_head_stride) = head_stride;
            (is_key ? s.key_stride : s.value_stride) = stride;
        }
        if (c.dtype == DType::i8) {
            const Scales& x = *scales.emplace_back(std::make_unique<Scales>(c, n, random));
            if (!c.no_scales) s.scales = {x.key_scale.data(), x.key_zero.data(), x.value_scale.data()};
            for (int64_t h = 0; h < c.heads; ++h)
                for (int64_t i = 0; i < n; ++i) {
                    for (int64_t j = 0; j < c.d; ++j) {
                        double& key = k[static_cast<size_t>((h * total + first + i) * c.d + j)];
                        key = x.key(c, h, j, key);
                    }
                    for (int64_t j = 0; j < c.width(); ++j) {
                        double& value = v[static_cast<size_t>((h * total + first + i) * c.width() + j)];
                        value = x.value(h * n + i, value);
                    }
                }
        }
        a.spans.push_back(s);
        first += n;
    }
    Result got{std::vector<float>(static_cast<size_t>(rows * c.width()), -1.0f),
               std::vector<float>(static_cast<size_t>(rows), -1.0f),
               std::vector<float>(static_cast<size_t>(c.heads * total), 0.5f)};
    Result want = got;
    a.q = qa.bytes.data();
    a.q_dtype = c.q_dtype;
    a.q_head_stride = c.t * c.d;
    a.q_stride = c.d;
    a.n_kv_heads = c.heads;
    a.group = c.group;
    a.t = c.t;
    a.head_dim = c.d;
    a.value_dim = c.width();
    a.causal = c.causal;
    a.scaling = 1.0f / std::sqrt(static_cast<float>(c.d));
    a.softcap = c.softcap;
    a.s_aux = c.aux ? aux.data() : nullptr;
    a.n_threads = c.threads;
    a.isa = c.isa;
    a.out = got.out.data();
    a.lse = got.lse.data();
    a.mass = c.mass ? got.mass.data() : nullptr;
    a.mass_stride = total;
    a.static_lse = c.other ? other.data() : nullptr;
    flat_attend(a);

    for (int64_t r = 0; r < rows; ++r) {
        const int64_t head = r / c.t, kv = head / c.group, sees = total - (c.causal ? c.t - 1 - r % c.t : 0);
        std::vector<double> z(static_cast<size_t>(sees));
        double max = c.aux ? static_cast<double>(aux[static_cast<size_t>(head)]) : -1e300, sum = 0.0;
        for (int64_t i = 0; i < sees; ++i) {
            double dot = 0.0;
            for (int64_t j = 0; j < c.d; ++j)
                dot += q[static_cast<size_t>(r * c.d + j)] * k[static_cast<size_t>((kv * total + i) * c.d + j)];
            dot *= static_cast<double>(a.scaling);
            if (c.softcap > 0.0f)
                dot = static_cast<double>(c.softcap) * std::tanh(dot / static_cast<double>(c.softcap));
            z[static_cast<size_t>(i)] = dot;
            max = std::max(max, dot);
        }
        if (c.aux) sum += std::exp(static_cast<double>(aux[static_cast<size_t>(head)]) - max);
        std::vector<double> out(static_cast<size_t>(c.width()), 0.0);
        for (int64_t i = 0; i < sees; ++i) {
            const double w = std::exp(z[static_cast<size_t>(i)] - max);
            sum += w;
            for (int64_t j = 0; j < c.width(); ++j)
                out[static_cast<size_t>(j)] += w * v[static_cast<size_t>((kv * total + i) * c.width() + j)];
        }
        const double lse = sum > 0.0 ? max + std::log(sum) : -std::numeric_limits<double>::infinity();
        want.lse[static_cast<size_t>(r)] = static_cast<float>(lse);
        for (int64_t j = 0; j < c.width(); ++j)
            want.out[static_cast<size_t>(r * c.width() + j)] =
                sum > 0.0 ? static_cast<float>(out[static_cast<size_t>(j)] / sum) : 0.0f;
        double whole = lse;
        if (c.other) whole = std::log(std::exp(lse) + std::exp(static_cast<double>(other[static_cast<size_t>(r)])));
        if (c.mass)
            for (int64_t i = 0; i < sees; ++i)
                want.mass[static_cast<size_t>(kv * total + i)] +=
                    static_cast<float>(std::exp(z[static_cast<size_t>(i)] - whole));
    }
    return {got, want};
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double d = a[i] == b[i] ? 0.0 : std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        worst = std::isnan(d) ? 1e9 : std::max(worst, d);
    }
    return worst;
}

void expect_close(Case c, const std::string& what) {
    for (const std::string& isa : available_isas()) {
        c.isa = isa;
        const auto [got, want] = run(c, 7);
        const double worst =
            std::max({distance(got.out, want.out), distance(got.lse, want.lse), distance(got.mass, want.mass)});
        CHECK(worst < 3e-5, isa + " " + what + ": " + std::to_string(worst));
    }
}

}  // namespace

TEST(flat_agrees_for_every_dtype_and_head_dim) {
    for (const DType t : {DType::f32, DType::bf16, DType::fp16, DType::i8})
        for (const DType qt : {DType::f32, DType::bf16})
            for (const int64_t d : {8, 16, 24, 40, 64, 72, 80, 96, 120, 128, 192, 256, 320, 512, 576}) {
                Case c;
                c.dtype = t;
                c.q_dtype = qt;
                c.d = d;
                expect_close(c, "dtype " + std::to_string(static_cast<int>(t)) + " d " + std::to_string(d));
            }
}

TEST(flat_agrees_for_every_group_and_number_of_positions) {
    for (int64_t group = 1; group <= 16; ++group)
        for (const int64_t t : {1, 2, 5})
            for (const DType dtype : {DType::bf16, DType::i8}) {
                Case c;
                c.group = group;
                c.t = t;
                c.dtype = dtype;
                c.mass = true;
                expect_close(c, "group " + std::to_string(group) + " t " + std::to_string(t));
            }
}

TEST(flat_agrees_for_large_groups) {
    for (const int64_t group : {17, 32, 71, 128})
        for (const int64_t t : {1, 3, 70}) {
            Case c;
            c.heads = 1;
            c.group = group;
            c.t = t;
            c.d = 16;
            c.lengths = {3, t == 70 ? 90 : 40};
            c.aux = c.other = true;
            c.mass = t < 70;  // so many rows add up to more than the bound below holds apart
            expect_close(c, "group " + std::to_string(group) + " t " + std::to_string(t));
        }
}

TEST(flat_agrees_for_values_of_another_size_than_keys) {
    for (const DType t : {DType::f32, DType::bf16, DType::fp16, DType::i8})
        for (const auto& [d, v] : {std::pair{192, 128}, {64, 128}, {8, 576}, {576, 8}, {24, 40}})
            for (const bool token_major : {false, true}) {
                Case c;
                c.dtype = t;
                c.d = d;
                c.v = v;
                c.t = 2;
                c.token_major = token_major;
                c.threads = 2;
                c.aux = c.mass = c.other = true;
                expect_close(c, std::to_string(d) + " and " + std::to_string(v));
            }
}

TEST(flat_agrees_for_every_length_of_a_last_block) {
    for (int64_t n = 1; n <= 130; ++n) {
        Case c;
        c.heads = 1;
        c.dtype = n % 3 == 0 ? DType::i8 : DType::bf16;
        c.lengths = {n};
        c.d = n % 2 == 0 ? 24 : 16;
        c.mass = true;
        expect_close(c, "n " + std::to_string(n));
    }
}

TEST(flat_agrees_with_softcap_sink_logits_and_an_outer_lse) {
    for (const DType t : {DType::f32, DType::bf16, DType::i8}) {
        Case c;
        c.dtype = t;
        c.softcap = 1.5f;
        c.aux = c.mass = c.other = true;
        c.t = 3;
        expect_close(c, "softcap, s_aux, static_lse");
    }
}

TEST(flat_agrees_for_more_positions_than_go_at_once) {
    Case c;
    c.t = 70;
    c.d = 8;
    c.heads = 1;
    c.lengths = {3, 90};
    c.aux = c.mass = c.other = true;
    expect_close(c, "70 positions");
}

TEST(flat_agrees_for_token_major_memory) {
    for (const DType t : {DType::bf16, DType::i8}) {
        Case c;
        c.dtype = t;
        c.token_major = true;
        c.heads = 3;
        expect_close(c, "token major");
    }
}

TEST(flat_does_not_depend_on_the_number_of_threads) {
    for (const int threads : {1, 2, 3, 16}) {
        Case c;
        c.threads = threads;
        c.dtype = threads % 2 == 0 ? DType::i8 : DType::bf16;
        c.lengths = {700, 0, 9000, 3};
        c.t = 2;
        c.d = 16;
        c.mass = true;
        expect_close(c, "threads " + std::to_string(threads));
    }
}

TEST(each_position_sees_its_own_token_and_nothing_later) {
    Case c;
    c.lengths = {0, 3};
    c.t = 3;
    expect_close(c, "position 0 sees one token");
}

TEST(a_query_that_sees_nothing_has_no_output_and_an_lse_of_minus_infinity) {
    Case c;
    c.lengths = {0};
    c.causal = false;
    c.mass = true;
    expect_close(c, "empty");
}

TEST(flat_refuses_what_it_does_not_cover) {
    const auto refused = [](const Case& c) {
        try {
            run(c, 1);
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    };
    Case c;
    c.d = 12;
    CHECK(refused(c), "head_dim 12");
    c.d = 584;
    CHECK(refused(c), "head_dim 584");
    c = Case{};
    c.v = 12;
    CHECK(refused(c), "values of 12");
    c = Case{};
    c.v = 584;
    CHECK(refused(c), "values of 584");
    c = Case{};
    c.group = 129;
    CHECK(refused(c), "group 129");
    c = Case{};
    c.lengths = {100, 2};
    c.t = 3;
    CHECK(refused(c), "fewer tokens than positions in the last span");
    c = Case{};
    c.threads = 0;
    CHECK(refused(c), "no threads");
    c = Case{};
    c.isa = "sse9";
    CHECK(refused(c), "unknown instruction set");
    c = Case{};
    c.q_dtype = DType::i8;
    CHECK(refused(c), "a query in 8 bits");
    c = Case{};
    c.dtype = DType::i8;
    c.no_scales = true;
    CHECK(refused(c), "8 bits without scales");
}
