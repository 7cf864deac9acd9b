// Runs the native tests; arguments select tests by a part of their name.
#include <cstring>

#include "kernels/dispatch.hpp"
#include "tests/check.hpp"

int main(int argc, char** argv) {
    using namespace sakuin::testing;
    int failed = 0, ran = 0;
    for (const Test& test : tests()) {
        bool wanted = argc <= 1;
        for (int i = 1; i < argc; ++i) wanted = wanted || std::strstr(test.name, argv[i]) != nullptr;
        if (!wanted) continue;
        failures() = 0;
        test.run();
        ++ran;
        failed += failures() != 0;
        std::printf("%s %s\n", failures() == 0 ? "ok    " : "FAILED", test.name);
    }
    std::printf("%d of %d tests passed; instruction sets:", ran - failed, ran);
    for (const std::string& isa : sakuin::available_isas()) std::printf(" %s", isa.c_str());
    std::printf("\n");
    return failed == 0 && ran > 0 ? 0 : 1;
}
