// Every single operation of every instruction set that this machine has, against scalar code.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "kernels/dispatch.hpp"
#include "tests/check.hpp"

using namespace sakuin;
using testing::Random;

namespace {

template <class Fn>
void each_isa(Fn&& fn) {
    for (const std::string& isa : available_isas()) fn(kernels(isa));
}

float bits(uint32_t u) {
    float f;
    std::memcpy(&f, &u, sizeof f);
    return f;
}

float fp16(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const float sign = (h & 0x8000) != 0 ? -1.0f : 1.0f;
    if (exponent == 31)
        return fraction != 0 ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
    return sign * (exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                 : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25));
}

bool same(float a, float b) {
    return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

TEST(exp2_is_within_its_stated_error) {
    each_isa([](const Kernels& k) {
        std::vector<float> x, y;
        for (double v = -126.0; v < 127.0; v += 0.00317) x.push_back(static_cast<float>(v));
        for (const bool exact : {true, false}) {
            y.assign(x.size(), 0.0f);
            k.exp2(x.data(), y.data(), x.size(), exact);
            double worst = 0.0;
            for (size_t i = 0; i < x.size(); ++i) {
                const double truth = std::exp2(static_cast<double>(x[i]));
                worst = std::max(worst, std::abs(static_cast<double>(y[i]) - truth) / truth);
            }
            CHECK(worst <= (exact ? 2e-7 : 1e-4), std::string(k.name) + " " + std::to_string(worst));
        }
    });
}

TEST(exp2_flushes_to_zero_and_keeps_not_a_number) {
    each_isa([](const Kernels& k) {
        const float inf = std::numeric_limits<float>::infinity();
        const float x[] = {-127.0f, -1e5f, -inf, 0.0f, 1.0f, std::nanf("")};
        float y[6];
        k.exp2(x, y, 6, true);
        CHECK(y[0] == 0.0f && y[1] == 0.0f && y[2] == 0.0f, k.name);
        CHECK(y[3] == 1.0f && y[4] == 2.0f, k.name);
        CHECK(std::isnan(y[5]), k.name);
    });
}

TEST(every_16_bit_number_widens_exactly) {
    std::vector<uint16_t> x(65536 + 3);  // a length that leaves a tail
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i);
    each_isa([&](const Kernels& k) {
        std::vector<float> wide(x.size());
        k.bf16_to_f32(x.data(), wide.data(), x.size());
        size_t wrong = 0;
        for (size_t i = 0; i < x.size(); ++i) wrong += !same(wide[i], bits(static_cast<uint32_t>(x[i]) << 16));
        CHECK(wrong == 0, std::string(k.name) + " bf16 " + std::to_string(wrong));
        k.fp16_to_f32(x.data(), wide.data(), x.size());
        wrong = 0;
        for (size_t i = 0; i < x.size(); ++i) wrong += !same(wide[i], fp16(x[i]));
        CHECK(wrong == 0, std::string(k.name) + " fp16 " + std::to_string(wrong));
    });
}

TEST(transposing_a_tile_swaps_rows_and_columns) {
    each_isa([](const Kernels& k) {
        const int n = k.lanes;
        std::vector<uint32_t> x(static_cast<size_t>(n * n)), y(x.size());
        for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint32_t>(i * 2654435761u);
        k.transpose(x.data(), y.data());
        bool ok = true;
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j)
                ok = ok && y[static_cast<size_t>(j * n + i)] == x[static_cast<size_t>(i * n + j)];
        CHECK(ok, k.name);
    });
}

TEST(sums_and_maxima_run_over_all_lanes) {
    Random random(1);
    each_isa([&](const Kernels& k) {
        std::vector<float> x(static_cast<size_t>(k.lanes) * 5);
        double sum = 0.0;
        float max = -1e9f;
        for (float& v : x) {
            v = random.normal();
            sum += static_cast<double>(v);
            max = std::max(max, v);
        }
        float got_sum, got_max;
        k.reduce(x.data(), x.size(), &got_sum, &got_max);
        CHECK(std::abs(static_cast<double>(got_sum) - sum) < 1e-4, k.name);
        CHECK(got_max == max, k.name);
    });
}

TEST(look_ups_take_either_nibble_and_are_compared) {
    Random random(2);
    for (int round = 0; round < 20; ++round) {
        uint8_t codes[32];
        uint16_t table[16], z[32], expected[32];
        for (uint8_t& c : codes) c = static_cast<uint8_t>(random.next());
        for (uint16_t& t : table) t = static_cast<uint16_t>(random.next());
        for (const bool high : {false, true}) {
            uint32_t expected_mask = 0;
            for (int key = 0; key < 32; ++key) {
                expected[key] = table[high ? codes[key] >> 4 : codes[key] & 15];
                z[key] = key % 3 == 0 ? expected[key] : static_cast<uint16_t>(random.next());
                expected_mask |= static_cast<uint32_t>(z[key] >= expected[key]) << key;
            }
            each_isa([&](const Kernels& k) {
                uint16_t entries[32];
                uint32_t mask = 0;
                k.look_up(codes, table, high, z, entries, &mask);
                CHECK(std::equal(entries, entries + 32, expected), k.name);
                CHECK(mask == expected_mask, k.name);
            });
        }
    }
}

TEST(an_unknown_instruction_set_is_refused_by_name) {
    bool named = false;
    try {
        kernels("mmx");
    } catch (const std::invalid_argument& e) {
        named = std::string(e.what()).find("mmx") != std::string::npos &&
                std::string(e.what()).find("portable") != std::string::npos;
    }
    CHECK(named, "");
}
