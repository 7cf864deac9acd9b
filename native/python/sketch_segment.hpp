// A sealed segment of `sketch` as Python holds it. For the bindings of this folder.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>

#include "index/sketch/read_ahead.hpp"
#include "index/sketch/sketch.hpp"
#include "python/call.hpp"

namespace sakuin {

// The tensors, and the pointers into them.
class Sealed {
public:
    // `trusted`: the contents are about to be written by the sealer; otherwise every number that leads somewhere is
    // copied and then checked, so that neither a damaged file nor one that is written to later leads a kernel out of
    // its arrays. `on_disk`: keys, values and codes are mapped from files.
    Sealed(const nb::dict& fields, bool trusted, bool on_disk = false);

    SketchSegment segment{};
    nb::dict fields() const { return fields_.copy(); }

private:
    Fields fields_;
    std::optional<SketchFiles> files_;
};

}  // namespace sakuin
