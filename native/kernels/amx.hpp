// The tiles of AMX: whether this process may use them, and their instructions as they are, with memory clobbered where
// it matters (compilers move stores past their own intrinsics).
#pragma once

#include <cstdint>

namespace sakuin {

// Whether CPU and system let this process multiply bf16 tiles; asks the system at the first call.
bool may_use_amx();

// The same of tiles of 8-bit numbers.
bool may_use_amx_int8();

// Tiles belong to a thread, and other libraries use them too: configured as eight of 16 rows of 64 bytes for as long as
// this lives, and released.
class AmxTiles {
public:
    AmxTiles() {
        const Config config;
        asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
    }
    ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }
    AmxTiles(const AmxTiles&) = delete;
    AmxTiles& operator=(const AmxTiles&) = delete;

private:
    struct alignas(64) Config {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
};

// stride in bytes. SAKUIN_AMX_STREAM is for what is not read again soon.
#define SAKUIN_AMX_LOAD(tile, at, stride) \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(at), "r"(static_cast<int64_t>(stride)) : "memory")
#define SAKUIN_AMX_STREAM(tile, at, stride) \
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile : : "r"(at), "r"(static_cast<int64_t>(stride)) : "memory")
#define SAKUIN_AMX_STORE(tile, at, stride) \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(at), "r"(static_cast<int64_t>(stride)) : "memory")
#define SAKUIN_AMX_ZERO(tile) asm volatile("tilezero %%tmm" #tile : :)
#define SAKUIN_AMX_ADD(sum, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
// Signed times unsigned bytes, and the other way round.
#define SAKUIN_AMX_ADD_SIGNED(sum, a, b) asm volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
#define SAKUIN_AMX_ADD_WHOLE(sum, a, b) asm volatile("tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

}  // namespace sakuin
