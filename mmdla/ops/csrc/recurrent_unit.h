// The recurrent unit of DLA (Dynamic Sharing Unit) on vectors (B, C):
//
//     [i f g] = W2y relu(W1y y + b1y) + b2y + u,   c' = sigmoid(f) c + sigmoid(i) tanh(g)
//     h' = sigmoid(c'),   u' = W2h relu(W1h h' + b1h) + b2h       (u: what h gives to the gates)

#pragma once

#include "vector_math.h"

namespace mmdla {
namespace {

struct Unit {  // weights of the recurrent unit
  Tensor w1y, b1y, w2y, b2y, w1h, b1h, w2h, b2h;
  explicit Unit(const std::vector<Tensor>& w)
      : w1y(w[0]), b1y(w[1]), w2y(w[2]), b2y(w[3]), w1h(w[4]), b1h(w[5]), w2h(w[6]), b2h(w[7]) {}
};

// sigmoid(i), sigmoid(f), tanh(g), c', h' of one step for each of several descriptors
struct Step {
  Tensor gates, c, h;  // (3, n, C), (n, C), (n, C)
  Tensor i() const { return gates.select(0, 0); }
  Tensor f() const { return gates.select(0, 1); }
  Tensor g() const { return gates.select(0, 2); }
};

// The state of descriptor j: of every sample's in turn `each` ones stand together. One state may be
// that of all.
inline int64_t state_of(int64_t j, int64_t each, int64_t states) { return j / each % states; }

// One step for descriptors which give `gates` (n, 3C), from states (., 3C) u and (., C) c, which is
// zero if there is none.
inline Step step(const Tensor& gates, const Tensor& u, const Optional& c, int64_t each = 1) {
  const int64_t count = gates.size(0), channels = gates.size(1) / 3;
  const int64_t states = u.size(0);
  Step s{at::empty({3, count, channels}, gates.options()),
         at::empty({count, channels}, gates.options()), {}};
  s.h = at::empty_like(s.c);
  AT_DISPATCH_FLOATING_TYPES(gates.scalar_type(), "step", [&] {
    using A = scalar_t;
    const A *pg = gates.const_data_ptr<A>(), *pu = u.const_data_ptr<A>();
    const A* pc = c ? c->const_data_ptr<A>() : nullptr;
    A *to = s.gates.data_ptr<A>(), *to_c = s.c.data_ptr<A>(), *to_h = s.h.data_ptr<A>();
    for (int64_t j = 0; j < count; ++j) {
      const int64_t state = state_of(j, each, states);
      const A *own = pg + j * 3 * channels, *of_state = pu + state * 3 * channels;
      over_vector<A>(channels, [&](int64_t k, int64_t n) {
        const auto gate = [&](int64_t p) {
          return load_part(own + p * channels + k, n) + load_part(of_state + p * channels + k, n);
        };
        const Vec<A> i = sigmoid(gate(0)), f = sigmoid(gate(1)), g = tanh(gate(2));
        Vec<A> next = i * g;
        if (pc) next += f * load_part(pc + state * channels + k, n);
        const int64_t at = j * channels + k;
        store_part(i, n, to + at);
        store_part(f, n, to + count * channels + at);
        store_part(g, n, to + 2 * count * channels + at);
        store_part(next, n, to_c + at);
        store_part(sigmoid(next), n, to_h + at);
      });
    }
  });
  return s;
}

// Gradients of the gates (n, 3C) and of the c before (n, C), of every descriptor, from those of h' and
// c' (n, C).
inline std::tuple<Tensor, Tensor> step_backward(const Step& s, const Optional& c, int64_t each,
                                                const Optional& dh, const Optional& dc) {
  const int64_t count = s.c.size(0), channels = s.c.size(1), states = c ? c->size(0) : 1;
  Tensor of_gates = at::empty({count, 3 * channels}, s.c.options()), of_c = at::empty_like(s.c);
  AT_DISPATCH_FLOATING_TYPES(s.c.scalar_type(), "step_backward", [&] {
    using A = scalar_t;
    const A *from = s.gates.const_data_ptr<A>(), *ph = s.h.const_data_ptr<A>();
    const A* pc = c ? c->const_data_ptr<A>() : nullptr;
    const A* gh = dh ? dh->const_data_ptr<A>() : nullptr;
    const A* gc = dc ? dc->const_data_ptr<A>() : nullptr;
    A *to = of_gates.data_ptr<A>(), *to_c = of_c.data_ptr<A>();
    for (int64_t j = 0; j < count; ++j) {
      const int64_t state = state_of(j, each, states);
      for (int64_t k = 0; k < channels; ++k) {
        const int64_t at = j * channels + k;
        const A i = from[at], f = from[count * channels + at], g = from[2 * count * channels + at];
        const A grad = (gc ? gc[at] : A(0)) + (gh ? gh[at] * ph[at] * (1 - ph[at]) : A(0));
        A* own = to + j * 3 * channels + k;
        own[0] = grad * g * i * (1 - i);
        own[channels] = pc ? grad * pc[state * channels + k] * f * (1 - f) : A(0);
        own[2 * channels] = grad * i * (1 - g * g);
        to_c[at] = grad * f;
      }
    }
  });
  return {of_gates, of_c};
}

// What the zero state gives to the gates, (1, 3C).
inline Tensor of_zero_state(const Unit& w) {
  return linear(w.b1h.clamp_min(0).unsqueeze(0), w.w2h, w.b2h, false);
}

// Everything that the unit computes for a block: the step of y and, from the state after it, that of
// other descriptors, whose h refreshes what they describe.
struct Context {
  int64_t batch, each;
  Optional u0, c0;    // the state before; u0 is zero's if there was none
  Tensor inputs, z1;  // (B + others, C), (B + others, C / r)
  Step now;
  Tensor z2, u;  // (B, C / r), (B, 3C)
  int64_t seen;  // states that refresh: all, or the first one's
  Step refresh;  // of the others
};

// inputs: y (B, C), then the others, of every sample in turn `each` ones, as often as there are.
inline Context run_unit(const Tensor& inputs, int64_t batch, int64_t each, const Optional& u,
                        const Optional& c, const Unit& w, bool first) {
  const int64_t others = inputs.size(0) - batch;
  Context r;
  r.batch = batch, r.each = each, r.seen = first ? 1 : batch;
  r.inputs = inputs;
  r.z1 = linear(inputs, w.w1y, w.b1y, true);
  const Tensor gates = linear(r.z1, w.w2y, w.b2y, false);
  r.u0 = u ? vector_of(*u, inputs) : of_zero_state(w);
  if (c) r.c0 = vector_of(*c, inputs);
  r.now = step(gates.narrow(0, 0, batch), *r.u0, r.c0);
  r.z2 = linear(r.now.h, w.w1h, w.b1h, true);
  r.u = linear(r.z2, w.w2h, w.b2h, false);
  r.refresh = step(gates.narrow(0, batch, others), r.u.narrow(0, 0, r.seen),
                   r.now.c.narrow(0, 0, r.seen), each);
  return r;
}

struct UnitGradients {
  Tensor inputs, u, c;  // (B + others, C), (B, 3C), (B, C)
  std::vector<Tensor> weights;
};

// From the gradients of the h of the others, and of h', c', u'.
inline UnitGradients unit_backward(const Context& r, const Unit& w, bool zero_state,
                                   const Tensor& of_refresh, const Optional& dh, const Optional& dc,
                                   const Optional& du) {
  const int64_t batch = r.batch, others = of_refresh.size(0);
  const Tensor seen_c = r.now.c.narrow(0, 0, r.seen);
  const auto [g2, back] = step_backward(r.refresh, seen_c, r.each, of_refresh, {});
  Tensor of_c = dc ? vector_of(*dc, r.inputs).clone() : at::zeros_like(r.now.c);
  Tensor of_u = du ? vector_of(*du, r.inputs).clone() : at::zeros_like(r.u);
  if (others) {  // to the states from which they started
    const auto by_state = [&](const Tensor& t) {
      if (r.seen < batch) return t.sum(0, true);
      return r.each == 1 && others == batch ? t : t.view({-1, batch, r.each, t.size(1)}).sum(2).sum(0);
    };
    of_c.narrow(0, 0, r.seen).add_(by_state(back));
    of_u.narrow(0, 0, r.seen).add_(by_state(g2));
  }
  // u' from h'
  const Tensor of_z2 = at::mm(of_u, w.w2h).mul_(r.z2 > 0);
  Tensor of_h = at::mm(of_z2, w.w1h);
  if (dh) of_h.add_(*dh);
  // the step of y
  const auto [g1, before] = step_backward(r.now, r.c0, 1, of_h, of_c);
  UnitGradients result;
  result.u = g1, result.c = before;
  const Tensor gates = others ? at::cat({g1, g2}, 0) : g1;
  const Tensor of_z1 = at::mm(gates, w.w2y).mul_(r.z1 > 0);
  result.inputs = at::mm(of_z1, w.w1y);
  result.weights = {at::mm(of_z1.t(), r.inputs), of_z1.sum(0), at::mm(gates.t(), r.z1),
                    gates.sum(0),                at::mm(of_z2.t(), r.now.h),
                    of_z2.sum(0),                at::mm(of_u.t(), r.z2), of_u.sum(0)};
  if (zero_state) {
    const Tensor of_u0 = g1.sum(0);
    result.weights[6].addr_(of_u0, w.b1h.clamp_min(0));
    result.weights[7].add_(of_u0);
    result.weights[5].add_(at::mv(w.w2h.t(), of_u0).mul_(w.b1h > 0));
  }
  return result;
}

// q and k of a descriptor y (C,): 1D convolutions over the channels. What is restricted overlaps
// nothing, so that the compiler makes one loop, not two of which the addresses choose.
template <typename T>
void query_key(const T* __restrict__ y, int64_t channels, const T* wq, const T* wk, int64_t taps,
               T* __restrict__ q, T* __restrict__ k) {
  std::fill_n(q, channels, T(0));
  std::fill_n(k, channels, T(0));
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t shift = t - taps / 2;
    const int64_t from = std::max<int64_t>(0, -shift);
    const int64_t to = std::min<int64_t>(channels, channels - shift);
    for (int64_t c = from; c < to; ++c) {
      q[c] += wq[t] * y[c + shift];
      k[c] += wk[t] * y[c + shift];
    }
  }
}

// From the gradients of q and k those of the weights and of y are added to.
template <typename T>
void query_key_backward(const T* __restrict__ dq, const T* __restrict__ dk,
                        const T* __restrict__ y, int64_t channels, const T* wq, const T* wk,
                        int64_t taps, T* dwq, T* dwk, T* __restrict__ dy) {
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t shift = t - taps / 2;
    const int64_t from = std::max<int64_t>(0, -shift);
    const int64_t to = std::min<int64_t>(channels, channels - shift);
    T sum_q = 0, sum_k = 0;
    for (int64_t c = from; c < to; ++c) {
      sum_q += dq[c] * y[c + shift];
      sum_k += dk[c] * y[c + shift];
      dy[c + shift] += wq[t] * dq[c] + wk[t] * dk[c];
    }
    dwq[t] += sum_q;
    dwk[t] += sum_k;
  }
}

}  // namespace
}  // namespace mmdla
