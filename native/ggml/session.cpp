#include "ggml/session.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "ggml/rows.hpp"
#include "parallel.hpp"

namespace sakuin::ggml {
namespace {

constexpr int64_t piece_bytes = 16 << 20;  // of a weight, converted at a time

struct Root {
    const Tensor* tensor = nullptr;
    int layer = -1;
    int kind = 0;  // 0: keys, 1: values
};

// The layer whose store of keys or values a node is a view of: "cache_k_l12".
Root root_of(const Tensor* node) {
    while (node != nullptr && (node->view_src != nullptr || std::strncmp(node->name, "cache_", 6) != 0))
        node = node->view_src != nullptr ? node->view_src : node->src[0];
    if (node == nullptr) return {};
    const std::string_view name(node->name, strnlen(node->name, max_name));
    if (name.size() < 10 || (name[6] != 'k' && name[6] != 'v') || name.substr(7, 2) != "_l") return {};
    Root root{node, -1, name[6] == 'v'};
    std::from_chars(name.data() + 9, name.data() + name.size(), root.layer);
    return root;
}

float param(const Tensor* node, size_t i) {
    float x;
    std::memcpy(&x, &node->op_params[i], sizeof x);
    return x;
}

template <class T>
T* at(std::vector<char>& memory, int64_t n_bytes) {
    if (static_cast<int64_t>(memory.size()) < n_bytes) memory.resize(static_cast<size_t>(n_bytes));
    return reinterpret_cast<T*>(memory.data());
}

class Timer {
public:
    explicit Timer(double& sum) : sum_(sum), start_(std::chrono::steady_clock::now()) {}
    ~Timer() { sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

private:
    double& sum_;
    std::chrono::steady_clock::time_point start_;
};

}  // namespace

bool Session::accepts(const Tensor* op) noexcept {
    try {
        return accepts_node(op);
    } catch (...) {
        if (!error_) error_ = std::current_exception();
        return false;
    }
}

bool Session::interrupted() noexcept {
    if (error_) return true;
    try {
        check_interrupt();
        return false;
    } catch (...) {
        error_ = std::current_exception();
        return true;
    }
}

bool Session::accepts_node(const Tensor* op) {
    const auto& ops = library_.ops;
    if (op->op == ops.none || op->op == ops.reshape || op->op == ops.view || op->op == ops.permute ||
        op->op == ops.transpose)
        return true;
    if (op->op == ops.attention) return accepts_attention(op);
    if (op->op == ops.set_rows) return op->view_src != nullptr && is_own(root_of(op->view_src).layer);
    if (op->op == ops.mul_mat_id) return accepts_experts(op);
    return op->op == ops.mul_mat && accepts_product(op);
}

bool Session::accepts_attention(const Tensor* op) {
    const Root root = root_of(op->src[1]);
    if (root.layer < 0) return false;
    const Tensor *const q = op->src[0], *const k = op->src[1], *const v = op->src[2];
    const auto known = std::find_if(seen_.begin(), seen_.end(), [&](const Seen& s) { return s.layer == root.layer; });
    const Seen now{root.layer,   root.tensor->ne[1],   q->ne[2], k->ne[2], k->ne[0], v->ne[0], param(op, 1),
                   param(op, 2), op->src[4] != nullptr};
    if (known == seen_.end())
        seen_.push_back(now);
    else
        *known = now;
    return is_own(root.layer) && q->type == type_f32 && q->ne[3] == 1 && now.max_bias == 0.0f;
}

bool Session::is_few(const Tensor* weight, int64_t rows) const {
    return gemv_ && rows <= settings_.few_rows && (settings_.least_rows == 0 || rows < settings_.least_rows) &&
           gemv_->has(weight);
}

bool Session::accepts_product(const Tensor* op) const {
    const Tensor *const w = op->src[0], *const x = op->src[1];
    if (op->ne[2] != 1 || op->ne[3] != 1 || w->ne[2] != 1) return false;
    if (x->type != type_f32 || x->nb[0] != sizeof(float) || !can_read(w)) return false;
    return is_few(w, op->ne[1]) || (settings_.least_rows > 0 && op->ne[1] >= settings_.least_rows);
}

// Of many tokens where the rows of the experts are as many, on the average, that reading all of their weights pays.
bool Session::accepts_experts(const Tensor* op) const {
    const Tensor *const w = op->src[0], *const x = op->src[1], *const ids = op->src[2];
    if (x->type != type_f32 || x->nb[0] != sizeof(float) || op->ne[3] != 1 || w->ne[3] != 1) return false;
    if (!can_read(w)) return false;
    if (is_few(w, ids->ne[1])) return true;
    const int64_t rows = ids->ne[0] * ids->ne[1];
    return products_ && settings_.least_rows > 0 && ids->ne[1] >= settings_.least_rows &&
           rows * 4 >= settings_.least_rows * w->ne[2];
}

bool Session::can_read(const Tensor* w) const {
    if (w->ne[0] < 64 || w->ne[1] < 64 || w->buffer == nullptr) return false;
    if (!library_.buft_is_host(library_.buffer_get_type(w->buffer))) return false;  // it stays where the weights are
    return w->type == type_f32 || library_.get_type_traits(w->type)->to_float != nullptr;
}

Status Session::compute(Graph* graph) noexcept {
    if (error_) return failed;
    try {
        const auto& ops = library_.ops;
        const int n = library_.graph_n_nodes(graph);
        for (int i = 0; i < n; ++i) {
            check_interrupt();
            const Tensor* const node = library_.graph_node(graph, i);
            if (node->op == ops.attention)
                attend(node);
            else if (node->op == ops.set_rows)
                store(node);
            else if (node->op == ops.mul_mat)
                multiply(node);
            else if (node->op == ops.mul_mat_id)
                multiply_experts(node);
        }
        return success;
    } catch (...) {
        error_ = std::current_exception();
        return failed;
    }
}

// The new keys or values of a layer. They are kept converted: their memory is used again before the attention's node.
void Session::store(const Tensor* node) {
    const Root root = root_of(node->view_src);
    const Tensor* const rows = node->src[0];
    if (rows->type != type_f32) throw std::runtime_error("llama.cpp stores keys in another type than fp32");
    auto& layers = fresh_[root.kind];
    if (layers.size() <= place(root.layer)) layers.resize(settings_.shared ? settings_.own.size() : 1);
    if (used_.size() < settings_.own.size()) used_.resize(settings_.own.size());
    Fresh& fresh = layers[place(root.layer)];
    fresh.layer = root.layer, fresh.width = rows->ne[0], fresh.t = rows->ne[1];
    used_[static_cast<size_t>(root.layer)] = false;
    auto* const to = at<char>(fresh.data, fresh.width * fresh.t * dtype_size(settings_.dtype));
    // As rows of all heads, and in llama.cpp's order of coordinates: heads are known when they are attended.
    convert({static_cast<const float*>(rows->data), static_cast<int64_t>(rows->nb[1] / sizeof(float)), 0, fresh.t, 1,
             fresh.width, 0},
            to, settings_.dtype, settings_.n_threads);
}

void Session::attend(const Tensor* node) {
    const Timer timer(attention_seconds);
    const Root root = root_of(node->src[1]);
    const auto layer = static_cast<size_t>(root.layer);
    const Tensor* const q = node->src[0];
    AttentionCall call{};
    call.layer = root.layer, call.dtype = settings_.dtype;
    call.heads = q->ne[2], call.kv_heads = node->src[1]->ne[2], call.head_dim = q->ne[0];
    call.value_dim = node->src[2]->ne[0];
    call.scaling = param(node, 0), call.softcap = param(node, 2);
    if (const Tensor* const sinks = node->src[4]) call.sinks = static_cast<const float*>(sinks->data);
    for (const auto& layers : fresh_)
        if (layers.size() <= place(root.layer) || layers[place(root.layer)].layer != root.layer ||
            layers[place(root.layer)].t != q->ne[1])
            throw std::runtime_error("llama.cpp attends before it stores keys and values");
    if (settings_.rotary > call.head_dim || settings_.rotary % 2 != 0)
        throw std::invalid_argument("a head of " + std::to_string(call.head_dim) + " dimensions cannot turn " +
                                    std::to_string(settings_.rotary) + " of them");
    call.again = used_[layer];
    used_[layer] = true;
    if (rows_.size() < parts_.size()) rows_.resize(parts_.size());
    for (const Part& part : parts_)
        if (part.first + part.count > q->ne[1]) throw std::runtime_error("llama.cpp has split a pass");
    const auto n = static_cast<int64_t>(parts_.size());
    const bool native = !call.again && std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) {
        return layer < part.steps.size() && part.steps[layer] != nullptr;
    });
    if (!native || n < settings_.n_threads) {
        for (int64_t i = 0; i < n; ++i) attend_part(node, call, static_cast<size_t>(i));
        return;
    }
    // As many sequences as threads: a thread for each is faster than all threads for one after the other. Those that
    // began as one come after one another, while what they share is still in the thread's cache.
    std::vector<size_t> order(parts_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return std::less<>{}(parts_[a].steps[layer]->origin(), parts_[b].steps[layer]->origin());
    });
    parallel_for(n, settings_.n_threads, [&](int64_t i) { attend_part(node, call, order[static_cast<size_t>(i)]); });
}

void Session::attend_part(const Tensor* node, AttentionCall call, size_t number) {
    const Part& part = parts_[number];
    const auto layer = static_cast<size_t>(call.layer);
    const Tensor* const q = node->src[0];
    const int64_t size = dtype_size(settings_.dtype), d = call.head_dim;
    PartRows& rows = rows_[number];
    call.part = static_cast<int>(number), call.t = part.count;
    const auto stride = [](size_t bytes) { return static_cast<int64_t>(bytes / sizeof(float)); };
    const auto* const from = static_cast<const float*>(q->data) + part.first * stride(q->nb[1]);
    auto* const to = at<char>(rows.q, call.heads * part.count * d * size);
    convert({from, stride(q->nb[1]), stride(q->nb[2]), part.count, call.heads, d, settings_.rotary}, to,
            settings_.dtype, settings_.n_threads);
    call.q = to;
    for (int kind = 0; kind < 2; ++kind) {
        const Fresh& fresh = fresh_[kind][place(call.layer)];
        auto& memory = kind == 0 ? rows.keys : rows.values;
        const int64_t width = kind == 0 ? d : call.value_dim;
        auto* const arranged = at<char>(memory, call.kv_heads * part.count * width * size);
        arrange({fresh.data.data() + part.first * fresh.width * size, fresh.width, part.count, call.kv_heads, width,
                 kind == 0 ? settings_.rotary : 0},
                arranged, settings_.dtype);
        (kind == 0 ? call.keys : call.values) = arranged;
    }
    call.out = static_cast<float*>(node->data) + part.first * call.heads * call.value_dim;
    Steps* const steps = layer < part.steps.size() ? part.steps[layer] : nullptr;
    if (steps != nullptr && !call.again)
        steps->step(call);
    else
        hooks_.attend(call);
}

void Session::multiply(const Tensor* node) {
    const Timer timer(product_seconds);
    const Tensor *const w = node->src[0], *const x = node->src[1];
    if (is_few(w, x->ne[1])) return gemv_->multiply(node, settings_.n_threads);
    if (products_) return products_->multiply(node, settings_.n_threads);
    const int64_t size = dtype_size(settings_.dtype);
    ProductCall call{};
    call.rows = x->ne[1], call.depth = w->ne[0], call.width = w->ne[1];
    auto* const inputs = at<char>(x_, call.rows * call.depth * size);
    convert({static_cast<const float*>(x->data), static_cast<int64_t>(x->nb[1] / sizeof(float)), 0, call.rows, 1,
             call.depth, 0},
            inputs, settings_.dtype, settings_.n_threads);
    call.x = inputs;
    call.out = static_cast<float*>(node->data);
    const Traits* const traits = library_.get_type_traits(w->type);
    const int64_t most = std::max<int64_t>(64, piece_bytes / (call.depth * size));
    auto* const piece = at<char>(weight_, std::min(most, call.width) * call.depth * size);
    call.weight = piece;
    for (call.first = 0; call.first < call.width; call.first += most) {
        call.n = std::min(most, call.width - call.first);
        unpack_rows(
            {static_cast<const char*>(w->data) + call.first * static_cast<int64_t>(w->nb[1]),
             static_cast<int64_t>(w->nb[1]), call.n, call.depth, w->type == type_f32 ? nullptr : traits->to_float},
            piece, settings_.dtype, settings_.n_threads);
        hooks_.multiply(call);
    }
}

void Session::multiply_experts(const Tensor* node) {
    const Timer timer(product_seconds);
    if (is_few(node->src[0], node->src[2]->ne[1])) return gemv_->multiply_experts(node, settings_.n_threads);
    products_->multiply_experts(node, settings_.n_threads);
}

}  // namespace sakuin::ggml
