// What sakuin does inside one context of llama.cpp: takes the new keys and values of a pass, attends, and multiplies
// weights where this machine does it faster. Knows nothing of Python: what is not native yet it asks for by `Hooks`.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ggml/abi.hpp"
#include "ggml/node_gemv.hpp"
#include "ggml/node_products.hpp"
#include "index/steps.hpp"
#include "kernels/kernels.hpp"

namespace sakuin::ggml {

// An attention node as the device sees it while a graph is made.
struct Seen {
    int layer;
    int64_t cells, heads, kv_heads, head_dim, value_dim;
    float max_bias, softcap;
    bool has_sinks;
};

// One sequence's part of one layer's attention in one pass.
struct AttentionCall : NewTokens {
    int part, layer;
    bool again;  // another layer attends with keys and values that are stored already
};

// A piece of a product: out[i, first + j] = x[i] . weight[j].
struct ProductCall {
    int64_t rows, depth, n, first, width;  // of x; of both; rows of the weight; where the piece begins; columns of out
    const void* x;                         // (rows, depth)
    const void* weight;                    // (n, depth)
    float* out;                            // (rows, width)
};

struct Hooks {
    std::function<void(const AttentionCall&)> attend;
    std::function<void(const ProductCall&)> multiply;
};

// The tokens of one sequence in a pass: `count` rows from `first` on. steps: by layer, null where Python attends.
struct Part {
    int64_t first, count;
    std::vector<Steps*> steps;
};

struct Settings {
    DType dtype;            // of keys, values, queries and converted weights: f32 or bf16
    std::vector<bool> own;  // by layer: whether it is attended here
    int64_t rotary;         // dimensions of a head that are turned in pairs (2i, 2i + 1); 0: in halves, or not at all
    int64_t least_rows;     // products of so many rows and more are computed here, in dtype; 0: none
    int64_t few_rows;       // of the others those of at most so many rows too, in 8 bits; 0: none
    int n_threads;
    bool shared;  // whether layers attend with keys and values of others
};

class Session {
public:
    Session(const Library& library, Settings settings, Hooks hooks)
        : library_(library), settings_(std::move(settings)), hooks_(std::move(hooks)),
          products_(NodeProducts::make(library, settings_.dtype)), gemv_(NodeGemv::make(library)) {}

    // While a graph is made: whether the node is computed here. What is thrown is kept for `rethrow`, as below.
    bool accepts(const Tensor* op) noexcept;
    // Computes the nodes of a graph.
    Status compute(Graph* graph) noexcept;

    // Whether the pass is to end: `check_interrupt` threw.
    bool interrupted() noexcept;

    void begin(std::vector<Part> parts) {
        parts_ = std::move(parts), error_ = nullptr;
        if (products_) products_->begin();
        if (gemv_) gemv_->begin();
    }
    void rethrow() {
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }
    const std::vector<Seen>& seen() const { return seen_; }
    double attention_seconds = 0, product_seconds = 0;

private:
    struct Fresh {  // keys or values of a layer in this pass, in the session's dtype, (kv_heads, t, head_dim)
        std::vector<char> data;
        int layer = -1;
        int64_t width = 0, t = 0;
    };

    struct PartRows {  // of a part, in the session's dtype, (heads, t, head_dim)
        std::vector<char> q, keys, values;
    };

    bool is_own(int layer) const {
        return layer >= 0 && layer < static_cast<int>(settings_.own.size()) &&
               settings_.own[static_cast<size_t>(layer)];
    }
    size_t place(int layer) const { return settings_.shared ? static_cast<size_t>(layer) : 0; }
    bool accepts_node(const Tensor* op);
    bool accepts_attention(const Tensor* op);
    bool accepts_product(const Tensor* op) const;
    bool is_few(const Tensor* weight, int64_t rows) const;
    bool accepts_experts(const Tensor* op) const;
    bool can_read(const Tensor* weight) const;
    void store(const Tensor* node);
    void attend(const Tensor* node);
    void attend_part(const Tensor* node, AttentionCall call, size_t number);
    void multiply(const Tensor* node);
    void multiply_experts(const Tensor* node);

    const Library& library_;
    Settings settings_;
    Hooks hooks_;
    std::unique_ptr<NodeProducts> products_;  // null: products are computed by the hook
    std::unique_ptr<NodeGemv> gemv_;          // null: those of a few rows stay with llama.cpp
    std::vector<Part> parts_;
    std::vector<Seen> seen_;
    // Of keys and of values what came last, by layer where layers share them; whether a layer's were attended with.
    std::vector<Fresh> fresh_[2];
    std::vector<bool> used_;
    std::vector<PartRows> rows_;
    std::vector<char> x_, weight_;
    std::exception_ptr error_;
};

// The session whose passes run in this thread; null outside of them.
Session*& active();

// Registers the device with the library, once a process.
void register_device(const Library& library);

}  // namespace sakuin::ggml
