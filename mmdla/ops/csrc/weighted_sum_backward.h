// The backward pass of weighted_sum.h, in two steps, since a norm's gradient needs sums first:
// products, then the gradient of o.

#pragma once

#include "weighted_sum.h"

namespace mmdla {
namespace {

// With t = g where scale * o + shift > 0, else 0, for every plane: the dot products of t with each
// v_m, of o with each v_m, the sums of each v_m, all (B, m, C); the sums of t and of t o, (B, C).
// And o, which the next step needs, in what it is computed in.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> relu_products(
    const Tensor& g, const Tensor& w, const std::vector<Tensor>& values, const Tensor& scale,
    const Tensor& shift) {
  check(g, {g});
  check_sum(g, w, values);
  check_vectors(g, planes_of(g), {scale, shift});
  Tensor out = at::empty_like(g, g.options().dtype(acc_type(g)));
  const Tensor tv = partial_sums(g, w.sizes()), ov = at::zeros_like(tv), v1 = at::zeros_like(tv);
  const Tensor t1 = partial_sums(g), to = at::zeros_like(t1);
  const int64_t planes = planes_of(g);
  dispatch(g, [&](auto kind) {
    using M = decltype(kind);
    using T = typename M::T;
    using A = typename M::A;
    using V = typename M::V;
    const Terms<M> terms(values, w);
    const T* pg = g.const_data_ptr<T>();
    const A *a = scale.const_data_ptr<A>(), *b = shift.const_data_ptr<A>();
    A* po = out.data_ptr<A>();
    A *ptv = tv.data_ptr<A>(), *pov = ov.data_ptr<A>(), *pv1 = v1.data_ptr<A>();
    A *pt1 = t1.data_ptr<A>(), *pto = to.data_ptr<A>();
    over_pieces<M>(g, [&](const Piece<M>& piece) {
      V o[VECTORS<M>], t[VECTORS<M>];
      terms.sum(piece, o);
      const auto by = piece.lane(a + piece.plane), plus = piece.lane(b + piece.plane);
      V sum = {}, with_o = {};
      piece.each([&](int64_t k, int64_t i, int64_t count) {
        const V value = load_part(pg + i, count);
        store_part(o[k], count, po + i);
        t[k] = by * o[k] + plus > A(0) ? value : V{};
        sum += t[k];
        with_o += t[k] * o[k];
      });
      piece.add(sum, pt1 + piece.part * planes + piece.plane);
      piece.add(with_o, pto + piece.part * planes + piece.plane);
      for (int64_t m = 0; m < terms.blocks(); ++m) {
        const T* values_m = terms.maps[m];
        V dot_t = {}, dot_o = {}, total = {};
        piece.each([&](int64_t k, int64_t i, int64_t count) {
          const V v = load_part(values_m + i, count);
          dot_t += t[k] * v;
          dot_o += o[k] * v;
          total += v;
        });
        const int64_t place = piece.part * planes * terms.blocks() + terms.at(piece, m);
        piece.add(dot_t, ptv + place);
        piece.add(dot_o, pov + place);
        piece.add(total, pv1 + place);
      }
    });
  });
  return {total(tv), total(ov), total(v1), total(t1), total(to), out};
}

// The gradient of o, alpha t + beta o + gamma, in the dtype of g; in the place of o if o has it.
inline Tensor relu_gradient(const Tensor& o, const Tensor& g, const Tensor& scale,
                            const Tensor& shift, const Tensor& alpha, const Tensor& beta,
                            const Tensor& gamma) {
  check_like(o, g);
  check_vectors(g, planes_of(g), {scale, shift, alpha, beta, gamma});
  Tensor out = o.scalar_type() == g.scalar_type() ? o : at::empty_like(g);
  dispatch(g, [&](auto kind) {
    using M = decltype(kind);
    using T = typename M::T;
    using A = typename M::A;
    using V = typename M::V;
    const T* pg = g.const_data_ptr<T>();
    const A *po = o.const_data_ptr<A>(), *a = scale.const_data_ptr<A>();
    const A *b = shift.const_data_ptr<A>(), *c = alpha.const_data_ptr<A>();
    const A *d = beta.const_data_ptr<A>(), *e = gamma.const_data_ptr<A>();
    T* to = out.data_ptr<T>();
    over_pieces<M>(g, [&](const Piece<M>& piece) {
      const int64_t p = piece.plane;
      const auto by = piece.lane(a + p), plus = piece.lane(b + p), of_t = piece.lane(c + p);
      const auto of_o = piece.lane(d + p), more = piece.lane(e + p);
      piece.each([&](int64_t, int64_t i, int64_t count) {
        const V own = load_part(po + i, count), value = load_part(pg + i, count);
        const V t = by * own + plus > A(0) ? value : V{};
        store_part(of_t * t + of_o * own + more, count, to + i);
      });
    });
  });
  return out;
}

}  // namespace
}  // namespace mmdla
