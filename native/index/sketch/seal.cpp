// Sealing a segment of the `sketch` index: measuring and packing. Which coordinate gets how many bits is in
// quantize.cpp, which key belongs to which list in bisection.cpp.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>

#include "index/arithmetic.hpp"
#include "index/sketch/bisection.hpp"
#include "index/sketch/quantize.hpp"
#include "index/sketch/sketch.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

// In eight chains, so that no addition waits for the last one.
float sum(std::span<const float> x) {
    float sums[8] = {};
    size_t i = 0;
    for (; i + 8 <= x.size(); i += 8)
        for (size_t k = 0; k < 8; ++k) sums[k] += x[i + k];
    for (; i < x.size(); ++i) sums[0] += x[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

class HeadSealer {
public:
    HeadSealer(const SealArgs& args, const SketchSegment& segment, int64_t head)
        : a_(args), s_(segment), k_(*args.kernels->seal), h_(head), d_(segment.shape.head_dim),
          value_dim_(segment.shape.value_dim), n_(segment.n) {}

    void run() {
        make_lists();
        put_in_order();
        pack_values();
        measure_tilt();
        choose_sketch();
        measure_residue();
        choose_codes();
        pack_sketch();
        pack_codes();
        copy_rows();
    }

private:
    // y of a coordinate, less what the sketch and then the codes say, once they are chosen.
    std::span<float> residue(int64_t j) const { return {a_.y + (h_ * d_ + j) * n_, static_cast<size_t>(n_)}; }
    float weight(int64_t j) const { return a_.weight[h_ * d_ + j]; }
    template <class T>
    static T* out(const T* p) {
        return const_cast<T*>(p);  // the segment is read-only for everyone but its sealer
    }

    void choose_sketch() {
        std::vector<float> energy(static_cast<size_t>(d_));
        for (int64_t j = 0; j < d_; ++j) energy[static_cast<size_t>(j)] = weight(j) * mean_square(k_, residue(j));
        const std::vector<int> bits = sketch_bits(energy, s_.shape.subs);
        quantizers_.assign(static_cast<size_t>(d_), {});
        codes_.assign(static_cast<size_t>(d_), {});
        std::vector<int> fours, twos;
        for (int64_t j = 0; j < d_; ++j) {
            const int b = bits[static_cast<size_t>(j)];
            if (b == 0) continue;
            (b == 4 ? fours : twos).push_back(static_cast<int>(j));
            const Quantizer q = best_quantizer(k_, residue(j), b);
            quantizers_[static_cast<size_t>(j)] = q;
            codes_[static_cast<size_t>(j)] = encode(k_, q, residue(j));
        }
        int16_t* coordinate = out(s_.sub_coordinate) + h_ * s_.shape.subs * 2;
        float* step = out(s_.sub_step) + h_ * s_.shape.subs * 2;
        const auto put = [&](int64_t sub, int first, int second) {
            coordinate[2 * sub] = static_cast<int16_t>(std::max(first, 0));
            coordinate[2 * sub + 1] = static_cast<int16_t>(second);
            step[2 * sub] = first < 0 ? 0.0f : quantizers_[static_cast<size_t>(first)].step;
            step[2 * sub + 1] = second < 0 ? 0.0f : quantizers_[static_cast<size_t>(second)].step;
            subs_.push_back({first, second});
        };
        int64_t sub = 0;
        for (const int j : fours) put(sub++, j, -1);
        for (size_t k = 0; k < twos.size(); k += 2) {
            if (k + 1 < twos.size()) {
                put(sub++, twos[k], twos[k + 1]);
            } else {  // an odd one: its partner is itself with a step of 0
                put(sub, twos[k], twos[k]);
                step[2 * sub++ + 1] = 0.0f;
                subs_.back().second = -1;
            }
        }
        while (sub < s_.shape.subs) put(sub++, -1, -1);
    }

    void measure_residue() {
        float* mean = out(s_.residue) + h_ * d_;
        std::vector<float> length(static_cast<size_t>(n_), 0.0f), oddity(length);
        float coordinates = 0.0f;
        for (int64_t j = 0; j < d_; ++j) {
            mean[j] = mean_square(k_, residue(j));
            if (!(mean[j] > 1e-30f)) continue;  // the inverse must be finite
            const std::span<const float> r = residue(j);
            const float w = weight(j), odd = 1.0f / mean[j];
            for (size_t i = 0; i < r.size(); ++i) {
                const float square = r[i] * r[i];
                length[i] += w * square;
                oddity[i] += odd * square;
            }
            coordinates += 1.0f;
        }
        const double total = std::accumulate(length.begin(), length.end(), 0.0);
        const float usual = static_cast<float>(std::sqrt(total / static_cast<double>(n_)));
        length_.resize(static_cast<size_t>(n_));
        for (size_t i = 0; i < length.size(); ++i) {
            // Among keys that are much alike, one that lies where they do not, and where no query of the text looked,
            // has an ordinary length. A query that looks for it errs by many times what the others make it expect.
            const float own = std::max(std::sqrt(length[i]) / usual, oddity[i] / coordinates) * 4.0f + 0.5f;
            length_[i] = static_cast<uint8_t>(!(usual > 0.0f) ? 0.0f : own < 15.0f ? own : 15.0f);  // NaN is the most
        }
    }

    void choose_codes() {
        const int64_t width = s_.shape.chunks() * 16;
        std::vector<float> energy(static_cast<size_t>(d_));
        for (int64_t j = 0; j < d_; ++j) energy[static_cast<size_t>(j)] = weight(j) * s_.residue[h_ * d_ + j];
        std::vector<int> order(static_cast<size_t>(d_));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return energy[static_cast<size_t>(a)] > energy[static_cast<size_t>(b)]; });
        std::vector<float> sorted(static_cast<size_t>(width), 0.0f);
        for (size_t k = 0; k < order.size(); ++k) sorted[k] = energy[static_cast<size_t>(order[k])];
        plan_ = plan_codes(sorted, s_.shape.code_bytes);
        int32_t* plan = out(s_.code_plan) + h_ * 3;
        plan[0] = plan_.eights, plan[1] = plan_.fours, plan[2] = plan_.twos;
        int16_t* coordinate = out(s_.code_coordinate) + h_ * width;
        float* step = out(s_.code_step) + h_ * width;
        refine_.assign(static_cast<size_t>(width), {});
        for (int64_t k = 0; k < width; ++k) {
            coordinate[k] = k < d_ ? static_cast<int16_t>(order[static_cast<size_t>(k)]) : static_cast<int16_t>(-1);
            const int64_t chunk = k / 16;
            const int bits = chunk < plan_.eights                              ? 8
                             : chunk < plan_.eights + plan_.fours              ? 4
                             : chunk < plan_.eights + plan_.fours + plan_.twos ? 2
                                                                               : 0;
            if (bits > 0)
                refine_[static_cast<size_t>(k)] =
                    k < d_ ? best_quantizer(k_, residue(coordinate[k]), bits) : Quantizer{bits, 0.0f};
            step[k] = refine_[static_cast<size_t>(k)].step;
        }
    }

    void make_lists() {
        const int64_t leading = std::min<int64_t>(d_, 16);
        FeatureRows features(n_, leading + a_.n_features);
        for (int64_t j = 0; j < leading; ++j) features.set(j, residue(j).data(), std::sqrt(weight(j)));
        for (int64_t e = 0; e < a_.n_features; ++e)
            features.set(leading + e, a_.features + (h_ * a_.n_features + e) * n_, 1.0f);
        order_ = bisect(features);
        std::transform(order_.begin(), order_.end(), out(s_.order) + h_ * n_,
                       [](int32_t i) { return static_cast<uint16_t>(i); });
    }

    // From here on everything is in the order of the lists. In place: new memory would cost more than the copy.
    void put_in_order() {
        std::vector<float> was(static_cast<size_t>(n_));
        for (int64_t j = 0; j < d_; ++j) {
            const std::span<float> to = residue(j);
            std::copy(to.begin(), to.end(), was.begin());
            for (size_t i = 0; i < to.size(); ++i) to[i] = was[static_cast<size_t>(order_[i])];
        }
    }

    // How keys spread inside lists, and how values go with that.
    void measure_tilt() {
        const int64_t leading = s_.shape.leading();
        float* within = out(s_.within) + h_ * d_;
        uint16_t* tilt = out(s_.tilt) + h_ * leading * value_dim_;
        std::vector<float> away(static_cast<size_t>(n_)), weights(static_cast<size_t>((n_ + 4) * leading));
        for (int64_t j = 0; j < d_; ++j) {
            const std::span<const float> x = residue(j);
            for (size_t first = 0; first < x.size(); first += list_size) {
                const size_t last = std::min(first + list_size, x.size());
                const float mean = sum(x.subspan(first, last - first)) / static_cast<float>(last - first);
                for (size_t i = first; i < last; ++i) away[i] = x[i] - mean;
            }
            within[j] = mean_square(k_, away);
            if (j >= leading) continue;
            const float unit = within[j] > 0.0f ? 1.0f / (std::sqrt(within[j]) * static_cast<float>(n_)) : 0.0f;
            for (size_t i = 0; i < x.size(); ++i)
                weights[i * static_cast<size_t>(leading) + static_cast<size_t>(j)] = away[i] * unit;
        }
        std::vector<float> sums(static_cast<size_t>(leading * value_dim_), 0.0f);
        std::vector<uint32_t> rows(order_.begin(), order_.end());
        a_.kernels->sketch->add_rows(a_.values_f32 + h_ * n_ * value_dim_, DType::f32, static_cast<int>(value_dim_),
                                     rows.data(), n_, weights.data(), static_cast<int>(leading), sums.data());
        for (int64_t j = 0; j < leading; ++j) {
            const std::span<const float> part = std::span<const float>(sums).subspan(
                static_cast<size_t>(j * value_dim_), static_cast<size_t>(value_dim_));
            // What chance alone would give is taken off (as James and Stein have it, but three times): few keys tell
            // little of how values go with them, and those that tell most are the ones that leave their list.
            const float strength = static_cast<float>(value_dim_) * mean_square(k_, part),
                        chance = 3.0f * s_.spread[h_].value / static_cast<float>(n_);
            const float kept = strength > chance ? 1.0f - chance / strength : 0.0f;
            for (int64_t k = 0; k < value_dim_; ++k)
                tilt[j * value_dim_ + k] = to_bf16(kept * part[static_cast<size_t>(k)]);
        }
    }

    // Places past the end repeat the last key, so that their scores are those of a real one.
    size_t key_at(int64_t i) const { return static_cast<size_t>(std::min(i, n_ - 1)); }

    std::vector<uint8_t> nibbles(size_t sub) const {
        const auto [first, second] = subs_[sub];
        if (first < 0) return std::vector<uint8_t>(static_cast<size_t>(n_), 0);
        std::vector<uint8_t> e = codes_[static_cast<size_t>(first)];
        if (second >= 0)
            for (size_t i = 0; i < e.size(); ++i)
                e[i] = static_cast<uint8_t>(e[i] | (codes_[static_cast<size_t>(second)][i] << 2));
        return e;
    }

    void pack_sketch() {
        const int64_t bytes = s_.shape.list_bytes(), lists = lists_of(n_);
        uint8_t* const to = out(s_.sketch) + h_ * lists * bytes;
        std::memset(to, 0, static_cast<size_t>(lists * bytes));
        for (int64_t sub = 0; sub < s_.shape.subs; ++sub) {  // as the kernel takes them (see SketchScan::tile)
            const std::vector<uint8_t> codes = nibbles(static_cast<size_t>(sub));
            for (int64_t i = 0; i < lists * list_size; ++i) {
                const int64_t block = i % list_size / 32, key = i % 8, lane = i % 32 / 8 * 4 + key % 4;
                uint8_t& byte =
                    to[i / list_size * bytes + (block * s_.shape.subs + sub / 4 * 4) * 16 + lane * 4 + sub % 4];
                byte = static_cast<uint8_t>(byte | codes[key_at(i)] << (key < 4 ? 0 : 4));
            }
        }
        for (int64_t l = 0; l < lists; ++l)
            for (int64_t i = 0; i < 32; ++i)
                to[(l + 1) * bytes - 32 + i] = static_cast<uint8_t>(length_[key_at(l * list_size + i)] |
                                                                    (length_[key_at(l * list_size + 32 + i)] << 4));
    }

    void pack_codes() {
        uint8_t* to = out(s_.codes) + h_ * n_ * s_.shape.code_bytes;
        std::memset(to, 0, static_cast<size_t>(n_ * s_.shape.code_bytes));
        int64_t at = 0;
        std::array<std::vector<uint32_t>, 4> words;
        for (int64_t chunk = 0; chunk < plan_.eights + plan_.fours + plan_.twos; ++chunk) {
            const int bits = chunk < plan_.eights ? 8 : chunk < plan_.eights + plan_.fours ? 4 : 2;
            for (std::vector<uint32_t>& word : words) word.assign(static_cast<size_t>(n_), 0);
            for (int l = 0; l < 16; ++l) {
                const int64_t k = chunk * 16 + l;
                if (k >= d_) continue;
                const int64_t j = s_.code_coordinate[h_ * s_.shape.chunks() * 16 + k];
                const std::vector<uint8_t> codes = encode(k_, refine_[static_cast<size_t>(k)], residue(j));
                // As the kernels unpack them (see SketchCodes::number).
                const int in_word = bits / 2, shift = bits * (l / in_word);
                uint32_t* word = words[static_cast<size_t>(l % in_word)].data();
                for (size_t i = 0; i < codes.size(); ++i) word[i] |= static_cast<uint32_t>(codes[i]) << shift;
            }
            for (int64_t i = 0; i < n_; ++i)
                for (int w = 0; w < bits / 2; ++w)
                    std::memcpy(to + i * s_.shape.code_bytes + at + 4 * w,
                                &words[static_cast<size_t>(w)][static_cast<size_t>(i)], 4);
            at += bits * 2;
        }
        for (int64_t j = 0; j < d_; ++j) out(s_.code_residue)[h_ * d_ + j] = mean_square(k_, residue(j));
    }

    void pack_values() {
        const int64_t d = value_dim_, bytes = s_.shape.value_bytes(), lists = lists_of(n_);
        uint8_t *to = out(s_.value_codes) + h_ * n_ * bytes, *means = out(s_.list_codes) + h_ * lists * bytes;
        uint16_t *params = out(s_.value_params) + h_ * n_ * 2, *mean_params = out(s_.list_params) + h_ * lists * 2;
        std::vector<float> mean(static_cast<size_t>(d), 0.0f), all(mean);
        double squares = 0.0, in_means = 0.0, steps = 0.0;
        for (int64_t i = 0; i < n_; ++i) {
            const float* v = a_.values_f32 + (h_ * n_ + order_[static_cast<size_t>(i)]) * d;
            k_.pack_row(v, static_cast<int>(d), to + i * bytes, params + 2 * i);
            steps += square(from_bf16(params[2 * i + 1]));
            for (int64_t j = 0; j < d; ++j) mean[static_cast<size_t>(j)] += v[j];
            if ((i + 1) % list_size == 0 || i + 1 == n_) {
                const int64_t list = i / list_size;
                for (size_t j = 0; j < mean.size(); ++j) all[j] += mean[j];
                for (float& x : mean) x /= static_cast<float>(i % list_size + 1);
                in_means += static_cast<double>(i % list_size + 1) * static_cast<double>(k_.squares(mean.data(), d));
                k_.pack_row(mean.data(), static_cast<int>(d), means + list * bytes, mean_params + 2 * list);
                std::fill(mean.begin(), mean.end(), 0.0f);
            }
        }
        for (int64_t i = 0; i < n_; i += list_size)
            squares += static_cast<double>(
                k_.squares(a_.values_f32 + (h_ * n_ + i) * d, std::min<int64_t>(list_size, n_ - i) * d));
        const double n = static_cast<double>(n_), width = static_cast<double>(d);
        double of_mean = 0.0;
        for (const float x : all) of_mean += square(x / static_cast<float>(n_));
        SketchSpread& spread = out(s_.spread)[h_];
        spread.value = static_cast<float>(std::max(squares - in_means, 0.0) / n);
        spread.value_code = static_cast<float>(steps / n * width / 12.0);  // rounding to whole steps
        spread.variance = static_cast<float>(std::max(squares / n - of_mean, 0.0));
    }

    void copy_rows() {
        const auto copy = [&](const void* from, const void* to, int64_t width) {
            const int64_t row = width * dtype_size(s_.dtype);
            const char* f = static_cast<const char*>(from) + h_ * n_ * row;
            char* t = const_cast<char*>(static_cast<const char*>(to)) + h_ * n_ * row;
            for (int64_t i = 0; i < n_; ++i)
                std::memcpy(t + i * row, f + order_[static_cast<size_t>(i)] * row, static_cast<size_t>(row));
        };
        copy(a_.keys, s_.keys, d_);
        copy(a_.values, s_.values, value_dim_);
    }

    const SealArgs& a_;
    const SketchSegment& s_;
    const SealKernels& k_;
    const int64_t h_, d_, value_dim_, n_;
    std::vector<Quantizer> quantizers_, refine_;
    std::vector<std::vector<uint8_t>> codes_;  // per coordinate in the sketch
    struct Sub {
        int first, second;
    };
    std::vector<Sub> subs_;
    std::vector<uint8_t> length_;
    CodePlan plan_;
    std::vector<int32_t> order_;
};

}  // namespace

void seal_sketch(const SealArgs& args, const SketchSegment& segment, int n_threads) {
    parallel_for(segment.heads, n_threads, [&](int64_t h) { HeadSealer(args, segment, h).run(); });
}

}  // namespace sakuin
