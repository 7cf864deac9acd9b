#include "python/sketch_segment.hpp"

#include <algorithm>

namespace sakuin {

Sealed::Sealed(const nb::dict& fields, bool trusted, bool on_disk) : fields_(fields) {
    const Fields::KeysValues kv = fields_.keys_values(true);
    const int64_t h = segment.heads = kv.heads, n = segment.n = kv.n, d = segment.shape.head_dim = kv.head_dim,
                  value_dim = segment.shape.value_dim = kv.value_dim;
    if (n > most_tokens)
        throw std::invalid_argument("a segment holds at most " + std::to_string(most_tokens) + " tokens, got " +
                                    std::to_string(n));
    segment.dtype = kv.dtype;
    segment.keys = kv.keys;
    segment.values = kv.values;
    segment.scales = kv.scales;
    const int64_t lists = lists_of(n), width = segment.shape.chunks() * 16;
    const int64_t subs = segment.shape.subs = fields_.size<int16_t>("sub_coordinate", 3, 1);
    segment.shape.code_bytes = fields_.size<uint8_t>("codes", 3, 2);
    if (subs < 4 || subs > std::min<int64_t>(4 * d, most_subs) || subs % 4 != 0)
        throw std::invalid_argument("the sub-quantizers of a sketch are a multiple of 4, got " + std::to_string(subs));
    segment.order = fields_.array<uint16_t>("order", {h, n});
    segment.mean = fields_.array<float>("mean", {h, d});
    segment.basis = fields_.array<uint16_t>("basis", {h, d, d});
    segment.sketch = fields_.array<uint8_t>("sketch", {h, lists, segment.shape.list_bytes()});
    segment.sub_coordinate = fields_.array<int16_t>("sub_coordinate", {h, subs, 2});
    segment.sub_step = fields_.array<float>("sub_step", {h, subs, 2});
    segment.residue = fields_.array<float>("residue", {h, d});
    segment.codes = fields_.array<uint8_t>("codes", {h, n, segment.shape.code_bytes});
    segment.code_plan = fields_.array<int32_t>("code_plan", {h, 3});
    segment.code_coordinate = fields_.array<int16_t>("code_coordinate", {h, width});
    segment.code_step = fields_.array<float>("code_step", {h, width});
    segment.value_codes = fields_.array<uint8_t>("value_codes", {h, n, segment.shape.value_bytes()});
    segment.value_params = fields_.array<uint16_t>("value_params", {h, n, 2});
    segment.list_codes = fields_.array<uint8_t>("list_codes", {h, lists, segment.shape.value_bytes()});
    segment.list_params = fields_.array<uint16_t>("list_params", {h, lists, 2});
    segment.within = fields_.array<float>("within", {h, d});
    segment.tilt = fields_.array<uint16_t>("tilt", {h, segment.shape.leading(), value_dim});
    segment.code_residue = fields_.array<float>("code_residue", {h, d});
    segment.spread = reinterpret_cast<const SketchSpread*>(fields_.array<float>("spread", {h, 3}));
    if (!trusted) check_contents();
    if (on_disk) segment.files = &files_.emplace(segment);
}

void Sealed::check_contents() const {
    const SketchSegment& s = segment;
    const auto need = [](bool ok, const char* what) {
        if (!ok)
            throw std::invalid_argument(std::string("the segment's tensor '") + what +
                                        "' holds a number out of range: the data is damaged");
    };
    for (int64_t i = 0; i < s.heads * s.n; ++i) need(s.order[i] < s.n, "order");
    for (int64_t i = 0; i < s.heads * s.shape.subs * 2; ++i)
        need(s.sub_coordinate[i] < s.shape.head_dim && s.sub_coordinate[i] >= (i % 2 == 0 ? 0 : -1), "sub_coordinate");
    for (int64_t i = 0; i < s.heads * s.shape.chunks() * 16; ++i)
        need(s.code_coordinate[i] >= -1 && s.code_coordinate[i] < s.shape.head_dim, "code_coordinate");
    for (int64_t h = 0; h < s.heads; ++h) {
        const int32_t* p = s.code_plan + h * 3;
        for (int i = 0; i < 3; ++i) need(p[i] >= 0 && p[i] <= s.shape.chunks(), "code_plan");
        need(p[0] + p[1] + p[2] <= s.shape.chunks() && p[0] * 16 + p[1] * 8 + p[2] * 4 <= s.shape.code_bytes,
             "code_plan");
    }
}

}  // namespace sakuin
