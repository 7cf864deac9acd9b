// One attention step over a chain of `sketch` segments: scan everything, score again what may be large, spend precision where the
// weight is, estimate the rest by list (docs/method.md). Three parallel phases; what joins them is a few numbers per query head.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "index/sketch.hpp"
#include "parallel.hpp"

namespace sakuin {
namespace {

constexpr float log2e = 1.44269504f, ln2 = 0.693147181f;
constexpr float nothing = -std::numeric_limits<float>::infinity();
// Bits by which an estimate may turn out wrong before a head is attended exactly: the lse of everything too high, so that tokens were
// judged by too strict a measure; or that of the index on either side, so that weights overflow or vanish.
constexpr float astray = 3.0f, lost = 20.0f;

float log2_add(float a, float b) {
    const float most = std::max(a, b);
    return std::isinf(most) ? most : most + std::log2(std::exp2(a - most) + std::exp2(b - most));
}

float cap_of(float x, float cap) { return cap > 0.0f ? cap * std::tanh(x / cap) : x; }

template <class T>
const T* of_head(const T* p, int64_t head, int64_t per_head) {
    return p + head * per_head;
}

// Keys of one precision with their weights (group, keys) relative to the index's estimated lse.
struct Tier {
    std::vector<uint32_t> index;
    std::vector<float> weights;
    void make_room(int64_t keys, size_t group) { weights.resize(std::max<size_t>(1, static_cast<size_t>(keys)) * group); }
};

// What a segment means to one KV head's query group at one step; lives from the scan to the end of the step.
struct View {
    const SketchSegment* segment;
    int64_t head, first;                 // first: tokens in the segments before
    std::vector<float> p;                // (group, head_dim) projected queries
    std::vector<float> scale, bias, sigma, top, sum;  // (group,)
    std::vector<float> sums;             // (group, lists)
    std::vector<uint16_t> z;
    std::vector<uint32_t> index;         // keys to be scored again
    std::vector<float> reach;
    int64_t found = 0;

    // Results of the last phase, relative to the lse of the head's index.
    Tier exact_tier, coded_tier;
    std::vector<float> traced;                // (group, n) where a trace is wanted
    std::vector<float> out, total, covered;  // (group, head_dim), (group,), (group,)
    int64_t exact = 0, coded = 0, touched = 0;

    int64_t lists() const { return lists_of(segment->n); }
};

struct Head {
    std::vector<float> q;               // (group, head_dim), scaled to base 2
    std::vector<float> index_lse, lse;  // (group,) base 2, by estimate: of the index / of everything
    bool strayed = false;               // the estimate was far off: the query is none that the index was built for
};

class Step {
public:
    Step(const SketchAttend& args, std::vector<View>& views, int64_t t)
        : a_(args), k_(*args.kernels->sketch), t_(t), d_(args.segments.front()->shape.head_dim), heads_(static_cast<size_t>(args.heads)),
          views_(views) {
        for (const SketchSegment* s : a_.segments) n_ += s->n;
        views_.resize(static_cast<size_t>(a_.heads) * a_.segments.size());
        for (int64_t h = 0; h < a_.heads; ++h) {
            Head& head = heads_[static_cast<size_t>(h)];
            head.q.resize(static_cast<size_t>(a_.group * d_));
            for (int64_t g = 0; g < a_.group; ++g)
                for (int64_t j = 0; j < d_; ++j)
                    head.q[static_cast<size_t>(g * d_ + j)] = a_.q[((h * a_.group + g) * a_.t + t_) * d_ + j] * a_.scaling * log2e;
            int64_t first = 0;
            for (size_t s = 0; s < a_.segments.size(); ++s) {
                View& v = view(h, s);
                v.segment = a_.segments[s];
                v.head = h;
                v.first = first;
                first += v.segment->n;
            }
        }
    }

    int64_t run() {
        each([this](View& v) { scan(v); });
        for (int64_t h = 0; h < a_.heads; ++h) estimate_lse(h);
        each([this](View& v) { find(v); });
        for (int64_t h = 0; h < a_.heads; ++h) limit(h);
        each([this](View& v) { attend(v); });
        for (int64_t h = 0; h < a_.heads; ++h) heads_[static_cast<size_t>(h)].strayed = strayed(h);
        if (std::any_of(heads_.begin(), heads_.end(), [](const Head& head) { return head.strayed; })) {
            each([this](View& v) {
                if (heads_[static_cast<size_t>(v.head)].strayed) attend_exactly(v);
            });
            for (int64_t h = 0; h < a_.heads; ++h)
                if (heads_[static_cast<size_t>(h)].strayed) join_exact(h);
        }
        int64_t touched = 0;
        for (int64_t h = 0; h < a_.heads; ++h) touched += finish(h);
        return touched;
    }

    void scores(float* to) {
        each([this](View& v) { scan(v); });
        each([&](View& v) {
            std::vector<uint32_t> all(static_cast<size_t>(v.segment->n));
            for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint32_t>(i);
            const int64_t stride = a_.t * n_;
            k_.gather_scores(map(v), all.data(), v.segment->n, stride, to + (v.head * a_.group * a_.t + t_) * n_ + v.first);
        });
    }

private:
    View& view(int64_t h, size_t s) { return views_[static_cast<size_t>(h) * a_.segments.size() + s]; }
    float softcap() const { return a_.softcap * log2e; }
    int group() const { return static_cast<int>(a_.group); }
    size_t groups() const { return static_cast<size_t>(a_.group); }
    float static_lse(int64_t h, int64_t g) const {
        return a_.static_lse == nullptr ? nothing : a_.static_lse[(h * a_.group + g) * a_.t + t_] * log2e;
    }

    template <class Fn>
    void each(const Fn& fn) {
        parallel_for(static_cast<int64_t>(views_.size()), a_.n_threads, [&](int64_t i) { fn(views_[static_cast<size_t>(i)]); });
    }

    ScoreMap map(const View& v) const { return {v.z.data(), v.scale.data(), v.bias.data(), group(), softcap()}; }
    // Scores relative to the segment's largest: the form in which the list sums were made, so that taking a key out of its list
    // leaves no more than rounding behind.
    ScoreMap map_below_top(const View& v, std::vector<float>& bias) const {
        bias.resize(groups());
        for (size_t g = 0; g < groups(); ++g) bias[g] = a_.softcap > 0.0f ? v.bias[g] : v.bias[g] - v.top[g];
        return {v.z.data(), v.scale.data(), bias.data(), group(), softcap()};
    }

    // --- phase 1: the scan -----------------------------------------------------------------------------------------------------
    void scan(View& v) {
        const SketchSegment& s = *v.segment;
        const Head& head = heads_[static_cast<size_t>(v.head)];
        v.p.resize(groups() * static_cast<size_t>(d_));
        v.scale.assign(groups(), 0.0f);
        v.bias.assign(groups(), 0.0f);
        v.sigma.assign(groups(), 0.0f);
        v.top.assign(groups(), 0.0f);
        v.sum.assign(groups(), 0.0f);
        k_.project(head.q.data(), of_head(s.basis, v.head, d_ * d_), group(), static_cast<int>(d_), v.p.data());
        const float* mean = of_head(s.mean, v.head, d_);
        const float* residue = of_head(s.residue, v.head, d_);
        for (size_t g = 0; g < groups(); ++g) {
            float dot = 0.0f, variance = 0.0f;
            for (size_t j = 0; j < static_cast<size_t>(d_); ++j) {
                const float p = v.p[g * static_cast<size_t>(d_) + j];
                dot += head.q[g * static_cast<size_t>(d_) + j] * mean[j];
                variance += p * p * residue[j];
            }
            v.bias[g] = dot;
            v.sigma[g] = a_.reach * std::sqrt(variance);
        }
        const int subs = static_cast<int>(s.shape.subs);
        // Tables are vectors of the kernel's instruction set and want its alignment.
        std::vector<std::byte> room(k_.table_bytes * static_cast<size_t>(subs) * groups() + 64);
        void* tables = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(room.data()) + 63) & ~uintptr_t{63});
        k_.make_tables({v.p.data(), of_head(s.sub_coordinate, v.head, subs * 2), of_head(s.sub_step, v.head, subs * 2), group(),
                        static_cast<int>(d_), subs, tables, v.scale.data(), v.bias.data()});
        v.z.resize(static_cast<size_t>(v.lists() * list_size) * groups());
        uint16_t largest[max_group];
        k_.scan(of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes()), v.lists(), s.shape.list_bytes(), subs, tables, group(),
                v.z.data(), largest);
        for (size_t g = 0; g < groups(); ++g) v.top[g] = cap_of(static_cast<float>(largest[g]) * v.scale[g] + v.bias[g], softcap());
        v.sums.resize(static_cast<size_t>(v.lists()) * groups());
        k_.list_sums(map(v), v.top.data(), s.n, v.sums.data());
        for (size_t g = 0; g < groups(); ++g)
            for (size_t l = 0; l < static_cast<size_t>(v.lists()); ++l) v.sum[g] += v.sums[g * static_cast<size_t>(v.lists()) + l];
        v.touched = v.lists() * (s.shape.list_bytes() + d_ * 2) + d_ * d_ * 2 + d_ * 8 + subs * 12;
    }

    void estimate_lse(int64_t h) {
        Head& head = heads_[static_cast<size_t>(h)];
        head.index_lse.assign(groups(), nothing);
        head.lse.resize(groups());
        for (size_t g = 0; g < groups(); ++g) {
            for (size_t s = 0; s < a_.segments.size(); ++s)
                head.index_lse[g] = log2_add(head.index_lse[g], view(h, s).top[g] + std::log2(view(h, s).sum[g]));
            head.lse[g] = log2_add(head.index_lse[g], static_lse(h, static_cast<int64_t>(g)));
        }
    }

    // --- phase 2: what may be large ---------------------------------------------------------------------------------------------
    void find(View& v) {
        const SketchSegment& s = *v.segment;
        v.index.resize(static_cast<size_t>(s.n));
        v.reach.resize(static_cast<size_t>(s.n));
        v.found = k_.find_reach({map(v), of_head(s.sketch, v.head, v.lists() * s.shape.list_bytes()), s.shape.list_bytes(), v.sigma.data(),
                                 heads_[static_cast<size_t>(v.head)].lse.data(), a_.rescore / static_cast<float>(n_), s.n, v.index.data(),
                                 v.reach.data()});
    }

    // Keeps the keys with the largest reach where there are more than the cap allows.
    void limit(int64_t h) {
        const int64_t most = std::max(static_cast<int64_t>(a_.cap * static_cast<float>(n_)), std::min<int64_t>(n_, 256));
        int64_t found = 0;
        for (size_t s = 0; s < a_.segments.size(); ++s) found += view(h, s).found;
        if (found <= most) return;
        // A histogram over the leading bits finds the bar to 1.6 %: the order of what is kept does not matter.
        std::vector<int64_t> count(1 << 14, 0);
        const auto bin = [](float x) { return std::bit_cast<uint32_t>(x) >> 17; };  // reach is positive: bits sort as numbers do
        for (size_t s = 0; s < a_.segments.size(); ++s)
            for (int64_t i = 0; i < view(h, s).found; ++i) ++count[bin(view(h, s).reach[static_cast<size_t>(i)])];
        size_t bar = count.size() - 1;
        int64_t room = most - count[bar];  // what is left of the cap goes to the bin below the bar
        for (; bar > 0 && count[bar - 1] <= room; --bar) room -= count[bar - 1];
        for (size_t s = 0; s < a_.segments.size(); ++s) {
            View& v = view(h, s);
            int64_t kept = 0;
            for (int64_t i = 0; i < v.found; ++i) {
                const size_t b = bin(v.reach[static_cast<size_t>(i)]);
                if (b >= bar || (b + 1 == bar && room-- > 0)) v.index[static_cast<size_t>(kept++)] = v.index[static_cast<size_t>(i)];
            }
            v.found = kept;
        }
    }

    // --- phase 3: attend ---------------------------------------------------------------------------------------------------------
    void attend(View& v) {
        const SketchSegment& s = *v.segment;
        const Head& head = heads_[static_cast<size_t>(v.head)];
        const int64_t m = v.found, lists = v.lists();
        const size_t width = static_cast<size_t>(m);
        std::vector<float> old(width * groups()), fresh(width * groups()), bias;
        k_.gather_scores(map_below_top(v, bias), v.index.data(), m, m, old.data());
        for (size_t g = 0; g < groups(); ++g) {
            const float lift = v.bias[g] - bias[g];
            for (size_t i = g * width; i < (g + 1) * width; ++i) fresh[i] = old[i] + lift;
        }
        add_codes(v, m, fresh.data());
        for (size_t g = 0; g < groups(); ++g) {
            k_.weights(old.data() + g * width, m, softcap(), a_.softcap > 0.0f ? v.top[g] : 0.0f);
            k_.weights(fresh.data() + g * width, m, softcap(), head.index_lse[g]);
        }

        // Lists in weights relative to the index's lse; a key that is attended by itself leaves its list, the others are corrected.
        std::vector<float> in_list(groups() * static_cast<size_t>(lists)), fold(groups()), share(groups());
        for (size_t g = 0; g < groups(); ++g) {
            fold[g] = std::exp2(v.top[g] - head.index_lse[g]);
            share[g] = std::exp2(head.index_lse[g] - head.lse[g]);
            for (size_t l = 0; l < static_cast<size_t>(lists); ++l) in_list[g * static_cast<size_t>(lists) + l] = v.sums[g * static_cast<size_t>(lists) + l] * fold[g];
        }
        std::vector<float> mean(width, 0.0f), by_list(width, 0.0f);
        for (size_t g = 0; g < groups(); ++g)
            for (size_t i = 0; i < width; ++i) mean[i] += fresh[g * width + i] * (share[g] / static_cast<float>(a_.group));
        const float coded_above = a_.coded / static_cast<float>(n_), exact_above = a_.exact / static_cast<float>(n_);
        Tier &exact = v.exact_tier, &coded = v.coded_tier;
        exact.index.clear();
        coded.index.clear();
        std::vector<uint32_t> coded_at;
        for (size_t i = 0; i < width; ++i) {
            if (mean[i] > exact_above) {
                exact.index.push_back(v.index[i]);
            } else if (mean[i] > coded_above) {
                coded.index.push_back(v.index[i]);
                coded_at.push_back(static_cast<uint32_t>(i));
            } else {
                by_list[i] = 1.0f;
            }
        }
        for (size_t g = 0; g < groups(); ++g)  // `old` becomes what each key changes in its list
            for (size_t i = g * width; i < (g + 1) * width; ++i) old[i] = fresh[i] * by_list[i - g * width] - old[i] * fold[g];
        for (size_t i = 0; i < width;) {  // keys stand in order: one list after the other, all query heads side by side
            const size_t list = v.index[i] / list_size;
            float change[max_group] = {};
            for (; i < width && v.index[i] / list_size == list; ++i)
                for (size_t g = 0; g < groups(); ++g) change[g] += old[g * width + i];
            for (size_t g = 0; g < groups(); ++g) in_list[g * static_cast<size_t>(lists) + list] += change[g];
        }
        v.exact = static_cast<int64_t>(exact.index.size());
        v.coded = static_cast<int64_t>(coded.index.size());
        exact.make_room(v.exact, groups());
        coded.make_room(v.coded, groups());
        k_.score_rows(head.q.data(), row_of(s.keys, s, v.head), s.dtype, static_cast<int>(d_), exact.index.data(), v.exact, v.exact, group(), exact.weights.data());
        v.total.assign(groups(), 0.0f);
        v.covered.assign(groups(), 0.0f);
        for (size_t g = 0; g < groups(); ++g) {
            float* e = exact.weights.data() + g * exact.index.size();
            float* c = coded.weights.data() + g * coded.index.size();
            k_.weights(e, v.exact, softcap(), head.index_lse[g]);
            for (size_t i = 0; i < coded_at.size(); ++i) c[i] = fresh[g * width + coded_at[i]];
            for (size_t i = 0; i < exact.index.size(); ++i) v.covered[g] += e[i];
            for (size_t i = 0; i < coded.index.size(); ++i) v.covered[g] += c[i];
            v.total[g] = v.covered[g];
            float* l = in_list.data() + g * static_cast<size_t>(lists);
            for (size_t i = 0; i < static_cast<size_t>(lists); ++i) {
                l[i] = std::max(l[i], 0.0f);  // rounding may leave a list that lost its keys below nothing
                v.total[g] += l[i];
            }
        }
        v.out.assign(groups() * static_cast<size_t>(d_), 0.0f);
        k_.add_rows(row_of(s.values, s, v.head), s.dtype, static_cast<int>(d_), exact.index.data(), v.exact, exact.weights.data(), v.exact, group(), v.out.data());
        k_.add_value_codes(of_head(s.value_codes, v.head, s.n * s.shape.value_bytes()), s.shape.value_bytes(), of_head(s.value_params, v.head, s.n * 2),
                           static_cast<int>(d_), coded.index.data(), v.coded, coded.weights.data(), v.coded, group(), v.out.data());
        k_.add_rows(of_head(s.list_mean, v.head, lists * d_), DType::bf16, static_cast<int>(d_), nullptr, lists, in_list.data(), lists, group(), v.out.data());
        v.touched += m * s.shape.code_bytes + (m > 0 ? d_ * 6 : 0) + v.coded * (s.shape.value_bytes() + 4) + v.exact * 2 * d_ * dtype_size(s.dtype);
        if (a_.trace_tier != nullptr) trace(v, fresh);
    }

    // Every key's weight by its best score, relative to the index's estimated lse.
    void trace(View& v, const std::vector<float>& fresh) {
        const size_t n = static_cast<size_t>(v.segment->n), m = static_cast<size_t>(v.found);
        std::vector<uint32_t> all(n);
        for (size_t i = 0; i < n; ++i) all[i] = static_cast<uint32_t>(i);
        v.traced.resize(n * groups());
        k_.gather_scores(map(v), all.data(), v.segment->n, v.segment->n, v.traced.data());
        for (size_t g = 0; g < groups(); ++g) {
            float* w = v.traced.data() + g * n;
            k_.weights(w, v.segment->n, softcap(), heads_[static_cast<size_t>(v.head)].index_lse[g]);
            for (size_t i = 0; i < m; ++i) w[v.index[i]] = fresh[g * m + i];
            const Tier& exact = v.exact_tier;
            for (size_t i = 0; i < exact.index.size(); ++i) w[exact.index[i]] = exact.weights[g * exact.index.size() + i];
        }
    }

    static const void* row_of(const void* rows, const SketchSegment& s, int64_t head) {
        return static_cast<const char*>(rows) + head * s.n * s.shape.head_dim * dtype_size(s.dtype);
    }

    void add_codes(const View& v, int64_t m, float* scores) {
        const SketchSegment& s = *v.segment;
        const int32_t* plan = of_head(s.code_plan, v.head, 3);
        const size_t coded = static_cast<size_t>(plan[0] + plan[1] + plan[2]) * 16;
        if (coded == 0 || m == 0) return;
        const int16_t* coordinate = of_head(s.code_coordinate, v.head, s.shape.chunks() * 16);
        const float* step = of_head(s.code_step, v.head, s.shape.chunks() * 16);
        std::vector<float> p(coded * groups()), start(groups(), 0.0f);
        for (size_t k = 0; k < coded; ++k) {
            if (coordinate[k] < 0) continue;
            const int chunk = static_cast<int>(k / 16);
            const float middle = chunk < plan[0] ? 127.5f : chunk < plan[0] + plan[1] ? 7.5f : 1.5f;
            for (size_t g = 0; g < groups(); ++g) {
                p[g * coded + k] = v.p[g * static_cast<size_t>(d_) + static_cast<size_t>(coordinate[k])] * step[k];
                start[g] -= p[g * coded + k] * middle;
            }
        }
        k_.add_codes({of_head(s.codes, v.head, s.n * s.shape.code_bytes), s.shape.code_bytes, plan[0], plan[1], plan[2], p.data(), start.data()},
                     v.index.data(), m, m, group(), scores);
    }

    // --- where the sketch fails ------------------------------------------------------------------------------------------------------
    bool strayed(int64_t h) {
        for (size_t g = 0; g < groups(); ++g) {
            float total = 0.0f;
            for (size_t s = 0; s < a_.segments.size(); ++s) total += view(h, s).total[g];
            const Head& head = heads_[static_cast<size_t>(h)];
            const float off = std::log2(total), all = log2_add(head.index_lse[g] + off, static_lse(h, static_cast<int64_t>(g)));
            if (!(std::abs(off) <= lost)) return true;  // not a number included
            if (head.lse[g] - all > astray) return true;
        }
        return false;
    }

    // Weights relative to the segment's largest score, which takes the place of v.top.
    void attend_exactly(View& v) {
        const SketchSegment& s = *v.segment;
        const Head& head = heads_[static_cast<size_t>(v.head)];
        Tier& all = v.exact_tier;
        all.index.resize(static_cast<size_t>(s.n));
        for (size_t i = 0; i < all.index.size(); ++i) all.index[i] = static_cast<uint32_t>(i);
        all.make_room(s.n, groups());
        v.coded_tier.index.clear();
        k_.score_rows(head.q.data(), row_of(s.keys, s, v.head), s.dtype, static_cast<int>(d_), all.index.data(), s.n, s.n, group(), all.weights.data());
        v.total.assign(groups(), 0.0f);
        for (size_t g = 0; g < groups(); ++g) {
            float* w = all.weights.data() + g * all.index.size();
            v.top[g] = cap_of(*std::max_element(w, w + s.n), softcap());
            k_.weights(w, s.n, softcap(), v.top[g]);
            for (int64_t i = 0; i < s.n; ++i) v.total[g] += w[i];
        }
        v.out.assign(groups() * static_cast<size_t>(d_), 0.0f);
        k_.add_rows(row_of(s.values, s, v.head), s.dtype, static_cast<int>(d_), all.index.data(), s.n, all.weights.data(), s.n, group(), v.out.data());
        v.exact = s.n;
        v.coded = 0;
        v.touched += s.n * 2 * d_ * dtype_size(s.dtype);
    }

    // Brings the segments of a head that was attended exactly to one scale.
    void join_exact(int64_t h) {
        Head& head = heads_[static_cast<size_t>(h)];
        for (size_t g = 0; g < groups(); ++g) {
            float& most = head.index_lse[g];
            most = nothing;
            for (size_t s = 0; s < a_.segments.size(); ++s) most = std::max(most, view(h, s).top[g]);
            for (size_t s = 0; s < a_.segments.size(); ++s) {
                View& v = view(h, s);
                const float scale = std::exp2(v.top[g] - most);
                const size_t n = v.exact_tier.index.size();
                for (size_t i = g * n; i < (g + 1) * n; ++i) v.exact_tier.weights[i] *= scale;
                for (size_t j = g * static_cast<size_t>(d_); j < (g + 1) * static_cast<size_t>(d_); ++j) v.out[j] *= scale;
                v.total[g] *= scale;
                v.covered[g] = v.total[g];
                if (a_.trace_tier != nullptr) std::copy_n(v.exact_tier.weights.data() + g * n, n, v.traced.data() + g * n);
            }
        }
    }

    // `share` (group,): what a weight is multiplied by to be a share of the whole softmax.
    void add_mass(const View& v, const Tier& tier, const std::vector<float>& share) {
        const int32_t* order = of_head(v.segment->order, v.head, v.segment->n);
        float* mass = a_.mass + v.head * a_.mass_stride + v.first;
        for (size_t i = 0; i < tier.index.size(); ++i)
            for (size_t g = 0; g < groups(); ++g) mass[order[tier.index[i]]] += tier.weights[g * tier.index.size() + i] * share[g];
    }

    void write_trace(const View& v, const std::vector<float>& share) {
        const int32_t* order = of_head(v.segment->order, v.head, v.segment->n);
        const size_t n = static_cast<size_t>(v.segment->n);
        float* tier = a_.trace_tier + (v.head * a_.t + t_) * n_ + v.first;
        float* weight = a_.trace_weight + (v.head * a_.t + t_) * n_ + v.first;
        for (size_t i = 0; i < n; ++i) {
            float sum = 0.0f;
            for (size_t g = 0; g < groups(); ++g) sum += v.traced[g * n + i] * share[g];
            weight[order[i]] = sum / static_cast<float>(a_.group);
            tier[order[i]] = 0.0f;
        }
        for (size_t i = 0; i < static_cast<size_t>(v.found); ++i) tier[order[v.index[i]]] = 1.0f;
        for (const uint32_t i : v.coded_tier.index) tier[order[i]] = 2.0f;
        for (const uint32_t i : v.exact_tier.index) tier[order[i]] = 3.0f;
    }

    int64_t finish(int64_t h) {
        const Head& head = heads_[static_cast<size_t>(h)];
        int64_t exact = 0, coded = 0, touched = 0;
        for (size_t s = 0; s < a_.segments.size(); ++s) {
            exact += view(h, s).exact;
            coded += view(h, s).coded;
            touched += view(h, s).touched;
        }
        a_.exact_share[h * a_.t + t_] = static_cast<float>(exact) / static_cast<float>(n_);
        a_.coded_share[h * a_.t + t_] = static_cast<float>(coded) / static_cast<float>(n_);
        std::vector<float> share(groups());
        for (size_t g = 0; g < groups(); ++g) {
            const int64_t row = (h * a_.group + static_cast<int64_t>(g)) * a_.t + t_;
            float* out = a_.out + row * d_;
            float total = 0.0f, covered = 0.0f;
            std::fill(out, out + d_, 0.0f);
            for (size_t s = 0; s < a_.segments.size(); ++s) {
                const View& v = view(h, s);
                total += v.total[g];
                covered += v.covered[g];
                for (int64_t j = 0; j < d_; ++j) out[j] += v.out[g * static_cast<size_t>(d_) + static_cast<size_t>(j)];
            }
            for (int64_t j = 0; j < d_; ++j) out[j] /= total;
            const float lse = head.index_lse[g] + std::log2(total), beside = static_lse(h, static_cast<int64_t>(g)), all = log2_add(lse, beside);
            a_.lse[row] = lse * ln2;
            a_.coverage[row] = std::isinf(all) ? 1.0f : covered / total * std::exp2(lse - all) + std::exp2(beside - all);
            share[g] = std::exp2(head.index_lse[g] - all);
        }
        for (size_t s = 0; s < a_.segments.size(); ++s) {
            const View& v = view(h, s);
            if (a_.mass != nullptr) {
                add_mass(v, v.exact_tier, share);
                add_mass(v, v.coded_tier, share);
            }
            if (a_.trace_tier != nullptr) write_trace(v, share);
        }
        return touched;
    }

    const SketchAttend& a_;
    const SketchKernels& k_;
    const int64_t t_, d_;
    int64_t n_ = 0;
    std::vector<Head> heads_;
    std::vector<View>& views_;
};

// Kept between steps: a step's scratch is megabytes, and fresh pages cost more than the scan that fills them.
std::vector<View>& kept_views() {
    static thread_local std::vector<View> views;
    return views;
}

}  // namespace

void attend_sketch(SketchAttend& args) {
    args.touched_bytes = 0;
    for (int64_t t = 0; t < args.t; ++t) args.touched_bytes += Step(args, kept_views(), t).run();
}

void score_sketch(const SketchAttend& args, float* scores) {
    for (int64_t t = 0; t < args.t; ++t) Step(args, kept_views(), t).scores(scores);
}

}  // namespace sakuin
