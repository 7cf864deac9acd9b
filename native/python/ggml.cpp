// Python entry points of the device that sakuin is to llama.cpp: registers it, and runs passes of a session. What is
// not native calls back into Python with the GIL held; what it raises stops the pass and is raised again by `run`.
#include "ggml/session.hpp"
#include "ggml/stores.hpp"

#include <nanobind/stl/string_view.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "python/bindings.hpp"
#include "python/call.hpp"

namespace sakuin {
namespace {

using ggml::Session;

// Filled once and never freed: the library keeps pointers into it for the whole process.
ggml::Library& library() {
    static auto* const one = new ggml::Library{};
    return *one;
}

template <class F>
void take(F*& to, const nb::dict& from, const char* name) {
    to = reinterpret_cast<F*>(nb::cast<uintptr_t>(from[name]));
}

void register_device(const nb::dict& functions, const nb::dict& ops) {
    ggml::Library& l = library();
    take(l.backend_register, functions, "ggml_backend_register");
    take(l.backend_reg_get, functions, "ggml_backend_reg_get");
    take(l.cpu_buffer_type, functions, "ggml_backend_cpu_buffer_type");
    take(l.cpu_buffer_from_ptr, functions, "ggml_backend_cpu_buffer_from_ptr");
    take(l.buft_is_host, functions, "ggml_backend_buft_is_host");
    take(l.buffer_get_type, functions, "ggml_backend_buffer_get_type");
    take(l.graph_n_nodes, functions, "ggml_graph_n_nodes");
    take(l.graph_node, functions, "ggml_graph_node");
    take(l.get_device, functions, "ggml_backend_get_device");
    take(l.dev_backend_reg, functions, "ggml_backend_dev_backend_reg");
    take(l.get_type_traits, functions, "ggml_get_type_traits");
    take(l.decode, functions, "llama_decode");
    l.ops = {nb::cast<int>(ops["NONE"]),     nb::cast<int>(ops["RESHAPE"]),   nb::cast<int>(ops["VIEW"]),
             nb::cast<int>(ops["PERMUTE"]),  nb::cast<int>(ops["TRANSPOSE"]), nb::cast<int>(ops["FLASH_ATTN_EXT"]),
             nb::cast<int>(ops["SET_ROWS"]), nb::cast<int>(ops["MUL_MAT"]),   nb::cast<int>(ops["MUL_MAT_ID"])};
    const ggml::Registry* const theirs = l.backend_reg_get(0);
    const int version = theirs == nullptr ? 0 : theirs->api_version;
    if (version < ggml::oldest_api || version > ggml::newest_api)
        throw std::runtime_error("the library's devices have interface version " + std::to_string(version) +
                                 ", and known are " + std::to_string(ggml::oldest_api) + " to " +
                                 std::to_string(ggml::newest_api));
    ggml::register_device(l);
}

// The last error that the library logged in this thread. A logger in Python would run Python's signal handlers, whose
// exceptions get lost in a callback.
std::string& last_error() {
    thread_local std::string text;
    return text;
}

void log(int level, const char* text, void*) noexcept {
    constexpr int error = 4;
    try {
        if (level == error && text != nullptr) last_error() = text;
    } catch (const std::exception&) {
        // No memory for the text: there is none then, and the library must not see an exception.
    }
}

// llama.cpp asks before every node that it computes itself.
bool abort_pass(void*) noexcept {
    Session* const session = ggml::active();
    return session != nullptr && session->interrupted();
}

nb::bytes said() {
    const std::string text = std::exchange(last_error(), {});
    return nb::bytes(text.data(), text.size());
}

// What the structs declared here read of a tensor that the library made.
nb::dict node(uintptr_t address) {
    const auto& t = *reinterpret_cast<const ggml::Tensor*>(address);
    nb::dict d;
    d["type"] = t.type, d["op"] = t.op, d["name"] = t.name;
    d["ne"] = nb::make_tuple(t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
    d["nb"] = nb::make_tuple(t.nb[0], t.nb[1], t.nb[2], t.nb[3]);
    d["data"] = reinterpret_cast<uintptr_t>(t.data);
    d["view_src"] = reinterpret_cast<uintptr_t>(t.view_src), d["view_offs"] = t.view_offs;
    d["src"] = reinterpret_cast<uintptr_t>(t.src[0]);
    return d;
}

// A node of the library's own making is computed as a session would.
void multiply(uintptr_t address, std::string_view kernels, int n_threads) {
    const auto* const node = reinterpret_cast<const ggml::Tensor*>(address);
    const bool experts = node->op == library().ops.mul_mat_id;
    if (!experts && node->op != library().ops.mul_mat) throw std::invalid_argument("the node is no product");
    const auto run = [&](auto products) {
        const Released release;
        if (experts)
            products.multiply_experts(node, n_threads);
        else
            products.multiply(node, n_threads);
    };
    if (const ProductKernels* const k = product_kernels(kernels))
        run(ggml::NodeProducts(library(), *k));
    else if (const GemvKernels* const few = gemv_kernels(kernels))
        run(ggml::NodeGemv(library(), *few));
    else
        throw std::invalid_argument("this machine has no kernels for products called '" + std::string(kernels) + "'");
}

uintptr_t number(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// `slot` holds `now` as long as this lives: the session that is the active one of this thread, and where it notes.
template <class T>
class Active {
public:
    Active(T*& slot, T* now) : slot_(slot), before_(std::exchange(slot, now)) {}
    ~Active() { slot_ = before_; }
    Active(const Active&) = delete;
    Active& operator=(const Active&) = delete;

private:
    T*& slot_;
    T* before_;
};

class PySession {
public:
    PySession(std::string_view dtype, nb::handle own, int64_t rotary, int64_t least_rows, int64_t few_rows,
              int n_threads, bool shared, nb::callable attend, nb::callable multiply)
        : attend_(std::move(attend)), multiply_(std::move(multiply)),
          session_(library(), {dtype_of(dtype), bools_of(own, "own"), rotary, least_rows, few_rows, n_threads, shared},
                   hooks()) {}

    // Calls fn() with nodes accepted: a context is made in it, so that its graphs are laid out with the device.
    nb::object within(nb::callable fn) {
        ggml::Stores stores;
        const Active active(ggml::active(), &session_);
        const Active noted(ggml::noted_stores(), &stores);
        nb::object made = fn();
        given_back_ += stores.give_back();
        session_.rethrow();
        return made;
    }

    int run(uintptr_t context, nb::handle tokens, nb::handle positions, nb::handle sequences, nb::handle want,
            const nb::list& parts) {
        std::vector<int32_t> ids = ints_of(tokens, "tokens"), pos = ints_of(positions, "positions"),
                             seq = ints_of(sequences, "sequences");
        const std::vector<bool> wanted = bools_of(want, "wanted");
        const size_t n = ids.size();
        if (pos.size() != n || seq.size() != n || wanted.size() != n)
            throw std::invalid_argument("tokens, positions, sequences and wanted must be of one length");
        std::vector<int32_t> one(n, 1);
        std::vector<int32_t*> seqs(n);
        std::vector<int8_t> logits(n);
        for (size_t i = 0; i < n; ++i) seqs[i] = &seq[i], logits[i] = wanted[i];
        std::vector<ggml::Part> taken;
        for (const nb::handle part : parts) taken.push_back(part_of(part));
        session_.begin(std::move(taken));
        const ggml::Batch batch{
            static_cast<int32_t>(n), ids.data(), nullptr, pos.data(), one.data(), seqs.data(), logits.data()};
        int code = 0;
        {
            const Active active(ggml::active(), &session_);
            const Released release;
            code = library().decode(reinterpret_cast<void*>(context), batch);
        }
        session_.rethrow();
        return code;
    }

    nb::list seen() const {
        nb::list all;
        for (const ggml::Seen& s : session_.seen())
            all.append(nb::make_tuple(s.layer, s.cells, s.heads, s.kv_heads, s.head_dim, s.value_dim, s.max_bias,
                                      s.softcap, s.has_sinks));
        return all;
    }

    int64_t given_back() const { return given_back_; }
    nb::tuple seconds() const { return nb::make_tuple(session_.attention_seconds, session_.product_seconds); }

private:
    static DType dtype_of(std::string_view name) {
        if (name == "float32") return DType::f32;
        if (name == "bfloat16") return DType::bf16;
        throw std::invalid_argument("a session's dtype is float32 or bfloat16, got " + std::string(name));
    }

    // (first row, rows, by layer a Steps or None)
    static ggml::Part part_of(nb::handle given) {
        const auto part = nb::cast<nb::tuple>(given);
        ggml::Part taken{nb::cast<int64_t>(part[0]), nb::cast<int64_t>(part[1]), {}};
        for (const nb::handle each : nb::cast<nb::list>(part[2]))
            taken.steps.push_back(each.is_none() ? nullptr : nb::cast<Steps*>(each));
        return taken;
    }

    ggml::Hooks hooks() {
        return {[this](const ggml::AttentionCall& c) {
                    const nb::gil_scoped_acquire acquire;
                    attend_(c.part, c.layer, c.heads, c.kv_heads, c.t, c.head_dim, c.value_dim, number(c.q),
                            number(c.keys), number(c.values), c.again, c.scaling, c.softcap, number(c.sinks),
                            number(c.out));
                },
                [this](const ggml::ProductCall& c) {
                    const nb::gil_scoped_acquire acquire;
                    multiply_(c.rows, c.depth, c.n, c.first, c.width, number(c.x), number(c.weight), number(c.out));
                }};
    }

    nb::callable attend_, multiply_;
    Session session_;
    int64_t given_back_ = 0;
};

}  // namespace

void bind_ggml(nb::module_& m) {
    m.def("ggml_register", &register_device, nb::arg("functions"), nb::arg("ops"),
          "Make sakuin a device of a loaded llama.cpp: addresses of its functions and numbers of its operations, by\n"
          "name. Once a process.");
    m.def("ggml_logger", [] { return reinterpret_cast<uintptr_t>(&log); }, "Address of a logger for the library.");
    m.def(
        "ggml_abort", [] { return reinterpret_cast<uintptr_t>(&abort_pass); },
        "Address of a callback by which a pass of a session ends at Ctrl-C, for llama_set_abort_callback.");
    m.def("ggml_said", &said, "The last error that the logger was given in this thread, once; empty: none.");
    m.def("ggml_node", &node, nb::arg("address"), "The fields of a ggml tensor, as the device reads them.");
    m.def("ggml_multiply", &multiply, nb::arg("node"), nb::arg("kernels") = "", nb::arg("n_threads") = 1,
          "Compute a node MUL_MAT or MUL_MAT_ID whose sources and data lie in host memory, by its address; after\n"
          "ggml_register.");
    nb::class_<PySession>(m, "GgmlSession", "What sakuin does inside one context of llama.cpp.")
        .def(nb::init<std::string_view, nb::handle, int64_t, int64_t, int64_t, int, bool, nb::callable, nb::callable>(),
             nb::kw_only(), nb::arg("dtype"), nb::arg("own"), nb::arg("rotary"), nb::arg("least_rows"),
             nb::arg("few_rows"), nb::arg("n_threads"), nb::arg("shared"), nb::arg("attend"), nb::arg("multiply"))
        .def("within", &PySession::within, nb::arg("fn"),
             "fn(), while the device accepts nodes of this session. In it a context is made; afterwards the memory of "
             "the\n"
             "stores that the session's own take the place of goes back to the system.")
        .def("run", &PySession::run, nb::arg("context"), nb::arg("tokens"), nb::arg("positions"), nb::arg("sequences"),
             nb::arg("wanted"), nb::arg("parts"),
             "One pass: llama_decode's code. parts: of each sequence (first row, rows, by layer its Steps or None for "
             "the\n"
             "hook). Raises what a hook raised.")
        .def_prop_ro(
            "seen", &PySession::seen,
            "(layer, cells, heads, KV heads, head_dim, value_dim, max_bias, softcap, sinks) of each attention\n"
            "node.")
        .def_prop_ro("given_back", &PySession::given_back,
                     "Bytes of llama.cpp's own store of keys and values that went back to the system.")
        .def_prop_ro("seconds", &PySession::seconds, "Of attention and of products, in all passes so far.");
}

}  // namespace sakuin
