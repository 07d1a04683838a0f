// The recurrent unit of DLA (Dynamic Sharing Unit) on vectors (B, C):
//
//     [i f g] = W2y relu(W1y y + b1y) + b2y + u,   c' = sigmoid(f) c + sigmoid(i) tanh(g)
//     h' = sigmoid(c'),   u' = W2h relu(W1h h' + b1h) + b2h       (u: what h gives to the gates)

#pragma once

#include "vector_math.h"

namespace mmdla {
namespace {

using Optional = std::optional<Tensor>;

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

// One step for descriptors which give `gates` (n, 3C); descriptor j starts from state j / each of u
// (., 3C) and c (., C), which is zero if there is none.
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
      const int64_t state = std::min(j / each, states - 1);  // one state may be all's
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

// Gradients of the gates (n, 3C) and, in dc, of the c before, from that of c'.
inline Tensor step_backward(const Step& s, const Optional& c, const Tensor& grad, Tensor* dc) {
  const Tensor i = s.i(), f = s.f(), g = s.g();
  const Tensor gi = grad * g * i * (1 - i);
  const Tensor gf = c ? grad * *c * f * (1 - f) : at::zeros_like(grad);
  const Tensor gg = grad * i * (1 - g * g);
  *dc = grad * f;
  return at::cat({gi, gf, gg}, 1);
}

// What the zero state gives to the gates, (1, 3C).
inline Tensor of_zero_state(const Unit& w) {
  return linear(w.b1h.clamp_min(0).unsqueeze(0), w.w2h, w.b2h, false);
}

// What a step leaves for those to come.
struct Carried {
  Tensor z2, u;  // (B, C / r), (B, 3C)
  Carried(const Tensor& h, const Unit& w)
      : z2(linear(h, w.w1h, w.b1h, true)), u(linear(z2, w.w2h, w.b2h, false)) {}
};

}  // namespace
}  // namespace mmdla
