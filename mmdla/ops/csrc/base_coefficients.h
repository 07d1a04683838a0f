// The vector part of a block with base layer attention: from the poolings y = GAP(x), p = GAP(V(x)) and
// the keys k_m, gates e_m and poolings p_m of the blocks before to the weights of the sum of all value
// maps and those vectors of all blocks. Vectors (B, C), of the blocks (B, m, C).
//
//     q, k = 1D convolutions of y over the channels
//     h', c', u' = the recurrent unit's step with y
//     k_m <- gain d(k_m) k_m,   e_m <- gain d(p_m) e_m,   p_m <- gain d(p_m) p_m
//         d: the h of one more step from there
//     and k, 1, p behind them;   w_m = softmax_m(q k_m / sqrt(width)) e_m, the softmax per head
//
// Without a recurrent unit there is no refresh.

#pragma once

#include "recurrent_unit.h"

namespace mmdla {
namespace {

// Vectors of the blocks before, and what they have been multiplied with.
struct Earlier {
  Tensor keys, gates, pooled;  // (B, m, C)
};

// What is read by pointers has the size that is read.
inline void check_base(const Tensor& y, const Tensor& p, const Earlier& before, const Optional& u,
                       const Optional& c, const Tensor& query, const Tensor& key,
                       const std::vector<Tensor>& dsu, int64_t width) {
  const int64_t batch = y.size(0), channels = y.size(1);
  TORCH_CHECK(y.dim() == 2 && p.sizes() == y.sizes() && width > 0 && channels % width == 0 &&
                  query.numel() % 2 == 1 && query.numel() == key.numel() &&
                  before.keys.dim() == 3 && before.keys.size(0) == batch &&
                  before.keys.size(2) == channels &&
                  before.gates.sizes() == before.keys.sizes() &&
                  before.pooled.sizes() == before.keys.sizes(),
              "mmdla: base_coefficients got arguments of other sizes than those of ", y.sizes());
  if (dsu.empty()) return;
  TORCH_CHECK(dsu.size() == 8 && dsu[0].size(1) == channels && dsu[2].size(0) == 3 * channels &&
                  (!u || (u->size(0) == batch && u->size(1) == 3 * channels)) &&
                  (!c || c->sizes() == y.sizes()),
              "mmdla: base_coefficients got a recurrent unit of another size than ", y.sizes());
}

inline Context refresh(const Tensor& y, const Earlier& before, const Optional& u, const Optional& c,
                       const Unit& unit, bool first) {
  const int64_t batch = y.size(0), blocks = before.keys.size(1), channels = y.size(1);
  const auto rows = [&](const Tensor& t) { return t.view({batch * blocks, channels}); };
  const Tensor inputs = blocks ? at::cat({y, rows(before.keys), rows(before.pooled)}, 0) : y;
  return run_unit(inputs, batch, std::max<int64_t>(1, blocks), u, c, unit, first);
}

// For every sample: its vectors of all blocks, and softmax_m(q k_m / sqrt(width)) for its channels.
template <typename A>
struct Attention {
  int64_t blocks, channels, width;  // blocks: with the new one
  std::vector<A> shares;            // (blocks, C)

  void run(const A* q, const A* keys) {
    shares.resize(blocks * channels);
    const A root = A(1) / std::sqrt(A(width));
    std::vector<A> of_head(blocks);
    for (int64_t from = 0; from < channels; from += width) {
      for (int64_t m = 0; m < blocks; ++m) {
        A sum = 0;
        for (int64_t k = from; k < from + width; ++k) sum += q[k] * keys[m * channels + k];
        of_head[m] = sum * root;
      }
      const A most = *std::max_element(of_head.begin(), of_head.end());
      A total = 0;
      for (A& value : of_head) total += value = std::exp(value - most);
      for (int64_t m = 0; m < blocks; ++m) {
        std::fill_n(shares.data() + m * channels + from, width, of_head[m] / total);
      }
    }
  }

  // Gradients of q, and added to those of the keys, from those of the shares (blocks, C).
  void backward(const A* q, const A* keys, const A* of_shares, A* dq, A* dkeys) const {
    const A root = A(1) / std::sqrt(A(width));
    std::vector<A> of_head(blocks);
    std::fill_n(dq, channels, A(0));
    for (int64_t from = 0; from < channels; from += width) {
      A mean = 0;
      for (int64_t m = 0; m < blocks; ++m) {
        A sum = 0;
        for (int64_t k = from; k < from + width; ++k) sum += of_shares[m * channels + k];
        of_head[m] = sum;
        mean += sum * shares[m * channels + from];
      }
      for (int64_t m = 0; m < blocks; ++m) {
        const A g = shares[m * channels + from] * (of_head[m] - mean) * root;
        for (int64_t k = from; k < from + width; ++k) {
          dq[k] += g * keys[m * channels + k];
          dkeys[m * channels + k] += g * q[k];
        }
      }
    }
  }
};

// The vectors of all blocks after the refresh; q (B, C).
inline Earlier refreshed(const Tensor& y, const Tensor& p, const Earlier& before, const Tensor& wq,
                         const Tensor& wk, const Context* unit, double gain, Tensor& q) {
  const int64_t batch = y.size(0), blocks = before.keys.size(1), channels = y.size(1);
  q = at::empty_like(y);
  Earlier now;
  now.keys = at::empty({batch, blocks + 1, channels}, y.options());
  now.gates = at::empty_like(now.keys), now.pooled = at::empty_like(now.keys);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "refreshed", [&] {
    using A = scalar_t;
    const A *py = y.const_data_ptr<A>(), *pp = p.const_data_ptr<A>();
    const A *keys = before.keys.const_data_ptr<A>(), *gates = before.gates.const_data_ptr<A>();
    const A* pooled = before.pooled.const_data_ptr<A>();
    const A* h = unit ? unit->refresh.h.const_data_ptr<A>() : nullptr;
    A *to_k = now.keys.data_ptr<A>(), *to_e = now.gates.data_ptr<A>();
    A *to_p = now.pooled.data_ptr<A>(), *to_q = q.data_ptr<A>();
    const int64_t size = blocks * channels;  // of a sample
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t from = b * size, to = b * (size + channels), last = to + size;
      for (int64_t i = 0; i < size; ++i) {
        const A of_key = h ? A(gain) * h[from + i] : A(1);
        const A of_value = h ? A(gain) * h[batch * size + from + i] : A(1);
        to_k[to + i] = keys[from + i] * of_key;
        to_e[to + i] = gates[from + i] * of_value;
        to_p[to + i] = pooled[from + i] * of_value;
      }
      query_key(py + b * channels, channels, wq.const_data_ptr<A>(), wk.const_data_ptr<A>(),
                wq.numel(), to_q + b * channels, to_k + last);
      std::fill_n(to_e + last, channels, A(1));
      std::copy_n(pp + b * channels, channels, to_p + last);
    }
  });
  return now;
}

// w, the keys, gates and poolings of all blocks, h', c', u'; what there is none of is empty.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> base_coefficients(
    const Tensor& y_, const Tensor& p, const Tensor& keys, const Tensor& gates,
    const Tensor& pooled, const Optional& u, const Optional& c, const Tensor& query,
    const Tensor& key, const std::vector<Tensor>& dsu, int64_t width, double gain, bool first) {
  const Tensor y = y_.contiguous();
  const Earlier before{vector_of(keys, y), vector_of(gates, y), vector_of(pooled, y)};
  check_base(y, p, before, u, c, query, key, dsu, width);
  std::optional<Context> unit;
  if (!dsu.empty()) unit.emplace(refresh(y, before, u, c, Unit(vectors_of(dsu, y)), first));
  Tensor q;
  const Earlier now = refreshed(y, vector_of(p, y), before, vector_of(query, y), vector_of(key, y),
                                unit ? &*unit : nullptr, gain, q);
  Tensor weights = at::empty_like(now.keys);
  const int64_t blocks = now.keys.size(1), channels = y.size(1), size = blocks * channels;
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "base_coefficients", [&] {
    using A = scalar_t;
    Attention<A> attention{blocks, channels, width, {}};
    for (int64_t b = 0; b < y.size(0); ++b) {
      attention.run(q.const_data_ptr<A>() + b * channels, now.keys.const_data_ptr<A>() + b * size);
      const A* of = now.gates.const_data_ptr<A>() + b * size;
      A* to = weights.data_ptr<A>() + b * size;
      for (int64_t i = 0; i < size; ++i) to[i] = attention.shares[i] * of[i];
    }
  });
  const auto none = [&] { return at::empty({0}, y.options()); };
  return {weights,
          now.keys,
          now.gates,
          now.pooled,
          unit ? unit->now.h : none(),
          unit ? unit->now.c : none(),
          unit ? unit->u : none()};
}

// Gradients of y, p, keys, gates, pooled, u, c, query, key and the eight weights of the unit; what there
// is none of is empty. The forward pass is computed again.
inline std::vector<Tensor> base_coefficients_backward(
    const Optional& dweights, const Optional& dkeys, const Optional& dgates,
    const Optional& dpooled, const Optional& dh, const Optional& dc, const Optional& du,
    const Tensor& y_, const Tensor& p, const Tensor& keys, const Tensor& gates,
    const Tensor& pooled, const Optional& u, const Optional& c, const Tensor& query,
    const Tensor& key, const std::vector<Tensor>& dsu, int64_t width, double gain, bool first) {
  const Tensor y = y_.contiguous();
  const Earlier before{vector_of(keys, y), vector_of(gates, y), vector_of(pooled, y)};
  check_base(y, p, before, u, c, query, key, dsu, width);
  std::optional<Unit> weights;
  std::optional<Context> unit;
  if (!dsu.empty()) {
    weights.emplace(vectors_of(dsu, y));
    unit.emplace(refresh(y, before, u, c, *weights, first));
  }
  const Tensor wq = vector_of(query, y), wk = vector_of(key, y);
  Tensor q;
  const Earlier now =
      refreshed(y, vector_of(p, y), before, wq, wk, unit ? &*unit : nullptr, gain, q);
  const int64_t batch = y.size(0), channels = y.size(1), blocks = before.keys.size(1);
  const int64_t size = blocks * channels;
  const auto own = [&](const Optional& g) {
    return g ? vector_of(*g, y).clone() : at::zeros_like(now.keys);
  };
  Tensor of_k = own(dkeys), of_e = own(dgates), of_p = own(dpooled);  // (B, m + 1, C)
  const Tensor of_w = dweights ? vector_of(*dweights, y) : at::zeros_like(now.keys);
  Tensor dy = at::zeros_like(y), dp = at::empty_like(y);
  Tensor dquery = at::zeros_like(wq), dkey = at::zeros_like(wk);
  Earlier to{at::empty_like(before.keys), at::empty_like(before.keys), at::empty_like(before.keys)};
  Tensor of_refresh = at::empty({unit ? 2 * batch * blocks : 0, channels}, y.options());
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "base_coefficients_backward", [&] {
    using A = scalar_t;
    const A *pk = before.keys.const_data_ptr<A>(), *pe = before.gates.const_data_ptr<A>();
    const A* pp = before.pooled.const_data_ptr<A>();
    const A* h = unit ? unit->refresh.h.const_data_ptr<A>() : nullptr;
    A* to_h = of_refresh.data_ptr<A>();
    Attention<A> attention{blocks + 1, channels, width, {}};
    std::vector<A> of_shares(size + channels), dq(channels);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t all = b * (size + channels), from = b * size, others = batch * size + from;
      const A *pq = q.const_data_ptr<A>() + b * channels, *k = now.keys.const_data_ptr<A>() + all;
      const A *e = now.gates.const_data_ptr<A>() + all, *gw = of_w.const_data_ptr<A>() + all;
      A *gk = of_k.data_ptr<A>() + all, *ge = of_e.data_ptr<A>() + all;
      const A* gp = of_p.const_data_ptr<A>() + all;
      attention.run(pq, k);
      for (int64_t i = 0; i < size + channels; ++i) {
        ge[i] += gw[i] * attention.shares[i];
        of_shares[i] = gw[i] * e[i];
      }
      attention.backward(pq, k, of_shares.data(), dq.data(), gk);
      query_key_backward(dq.data(), gk + size, y.const_data_ptr<A>() + b * channels, channels,
                         wq.const_data_ptr<A>(), wk.const_data_ptr<A>(), wq.numel(),
                         dquery.data_ptr<A>(), dkey.data_ptr<A>(),
                         dy.data_ptr<A>() + b * channels);
      std::copy_n(gp + size, channels, dp.data_ptr<A>() + b * channels);
      A *rk = to.keys.data_ptr<A>() + from, *re = to.gates.data_ptr<A>() + from;
      A* rp = to.pooled.data_ptr<A>() + from;
      for (int64_t i = 0; i < size; ++i) {
        const A of_key = h ? A(gain) * h[from + i] : A(1);
        const A of_value = h ? A(gain) * h[others + i] : A(1);
        if (h) {
          to_h[from + i] = A(gain) * gk[i] * pk[from + i];
          to_h[others + i] = A(gain) * (ge[i] * pe[from + i] + gp[i] * pp[from + i]);
        }
        rk[i] = gk[i] * of_key;
        re[i] = ge[i] * of_value;
        rp[i] = gp[i] * of_value;
      }
    }
  });
  const Tensor none = at::empty({0}, y.options());
  std::vector<Tensor> result = {dy, dp, to.keys, to.gates, to.pooled, none, none, dquery, dkey};
  if (unit) {
    const UnitGradients found = unit_backward(*unit, *weights, !u, of_refresh, dh, dc, du);
    const int64_t rows = batch * blocks;
    dy.add_(found.inputs.narrow(0, 0, batch));
    to.keys.add_(found.inputs.narrow(0, batch, rows).view_as(to.keys));
    to.pooled.add_(found.inputs.narrow(0, batch + rows, rows).view_as(to.pooled));
    if (u) result[5] = found.u;
    if (c) result[6] = found.c;
    result.insert(result.end(), found.weights.begin(), found.weights.end());
  } else {
    for (int i = 0; i < 8; ++i) result.push_back(none);
  }
  for (Tensor& t : result) {
    if (!t.numel() && t.dim() == 1) t = none.clone();  // results share no memory
  }
  return result;
}

}  // namespace
}  // namespace mmdla
