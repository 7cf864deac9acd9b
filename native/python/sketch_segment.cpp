#include "python/sketch_segment.hpp"

#include <algorithm>

namespace sakuin {

Sealed::Sealed(const nb::dict& fields, bool trusted, bool on_disk) : fields_(fields) {
    const Fields::KeysValues kv = fields_.keys_values(true);
    const int64_t h = segment.heads = kv.heads, n = segment.n = kv.n, d = segment.shape.head_dim = kv.head_dim,
                  value_dim = segment.shape.value_dim = kv.value_dim;
    segment.dtype = kv.dtype;
    segment.keys = kv.keys;
    segment.values = kv.values;
    segment.scales = kv.scales;
    const int64_t lists = lists_of(n), width = segment.shape.chunks() * 16;
    const int64_t subs = segment.shape.subs = fields_.size<int16_t>("sub_coordinate", 3, 1);
    segment.shape.code_bytes = fields_.size<uint8_t>("codes", 3, 2);
    check_shape(segment);
    if (!trusted)
        for (const char* name : {"order", "sub_coordinate", "code_plan", "code_coordinate"}) fields_.own(name);
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
    if (!trusted) check_contents(segment);
    if (on_disk) segment.files = &files_.emplace(segment);
}

}  // namespace sakuin
