// The backward pass of two depthwise correlations, o = kx * x + ks * s, see dual_dwconv.h.

#pragma once

#include "dual_dwconv.h"

namespace mmdla {
namespace {

template <typename M>
struct DualGradients {  // the maps and vectors of both passes below; what is not there is null
  using T = typename M::T;
  using A = typename M::A;
  const T *g, *x, *s;
  const A *kx, *ks, *alpha, *beta, *gamma;
  T *dx, *ds;
  A *cx, *cs;
  A* sum;
  bool residual;
};

// Correlations of g with the shifted maps and its sum.
template <typename M>
struct DualCorrelate {
  using V = typename M::V;
  Shape shape;
  int64_t size;
  Strip<M> of_x, of_s, of_g;
  DualGradients<M> in;
  std::optional<Planes<M>> planes;
  V cx[9], cs[9];

  DualCorrelate(const Shape& shape_, int64_t size_, const DualGradients<M>& inputs)
      : shape(shape_),
        size(size_),
        of_x(shape_, size_),
        of_s(shape_, size_),
        of_g(shape_, size_),
        in(inputs) {}

  void start(const Planes<M>& now) {
    planes = now;
    for (int k = 0; k < 9; ++k) cx[k] = cs[k] = V{};
  }
  void step(int64_t first) {
    const int64_t rows = std::min(size, shape.height - first);
    of_x.move_to(first, View<M>(in.x, shape, *planes));
    of_s.move_to(first, View<M>(in.s, shape, *planes));
    of_g.move_to(first, View<M>(in.g, shape, *planes));
    add_products<M>(of_g, 0, of_x, rows, cx);
    add_products<M>(of_g, 0, of_s, rows, cs);
    planes->add(sum_of_rows<M>(of_g, 0, rows), in.sum + planes->plane);
  }
  void finish() {
    write_taps<M>(cx, *planes, in.cx);
    write_taps<M>(cs, *planes, in.cs);
  }
};

// With u = alpha g + beta o + gamma (all three (B, C)), the gradient that arrives at o: gradients of
// x and s (of x plus g if residual), correlations of u with the shifted maps, and the sum of u. What
// beta does not need of o is not computed.
template <typename M>
struct DualBackward {
  using T = typename M::T;
  using A = typename M::A;
  using V = typename M::V;
  DualStrips<M> strips;
  Behind<M> of_u;
  DualGradients<M> in;
  std::optional<Planes<M>> planes;
  Fan<M, 2> flipped;
  typename M::Lane alpha, beta, gamma;
  bool needs_o;
  V cx[9], cs[9];

  DualBackward(const Shape& shape, int64_t size, const DualGradients<M>& inputs)
      : strips(shape, size), of_u(shape, size), in(inputs) {}

  void start(const Planes<M>& now) {
    planes = now;
    strips.start(in.kx, in.ks, now);
    flipped = {nullptr, {strips.convs.x.taps[0].flipped(), strips.convs.s.taps[0].flipped()}};
    alpha = now.lane(in.alpha + now.plane);
    beta = now.lane(in.beta + now.plane);
    gamma = now.lane(in.gamma + now.plane);
    const A* factor = in.beta + now.plane;
    needs_o = std::any_of(factor, factor + now.count, [](A b) { return b != 0; });
    for (int k = 0; k < 9; ++k) cx[k] = cs[k] = V{};
  }
  void step(int64_t first) {
    const Shape& shape = strips.shape;
    const int64_t rows = of_u.rows(first);
    const View<M> of_g(in.g, shape, *planes);
    of_u.move_to(first);
    if (rows > 0) {
      strips.of_x.move_to(first, View<M>(in.x, shape, *planes));
      strips.of_s.move_to(first, View<M>(in.s, shape, *planes));
      const auto set = [&, a = alpha, b = beta, c = gamma](int64_t h, int64_t column, V o) {
        of_u.store(a * of_g.load(first + h, column) + b * o + c, h, column);
      };
      if (needs_o) {
        const DualConv<M> convs = strips.convs;  // what is written cannot change them
        correlate_rows<M>(convs, strips.of_x, rows, set);
      } else {
        for (int64_t h = 0; h < rows; ++h) {
          over_columns<A>(strips.of_x.length(), [&](int64_t column) { set(h, column, V{}); });
        }
      }
      add_products<M>(of_u.strip(), 1, strips.of_x, rows, cx);
      add_products<M>(of_u.strip(), 1, strips.of_s, rows, cs);
      planes->add(sum_of_rows<M>(of_u.strip(), 1, rows), in.sum + planes->plane);
    }
    const View<M, T> dx(in.dx, shape, *planes), ds(in.ds, shape, *planes);
    of_u.gradients(first, flipped, [&](int64_t row, int64_t column, V of_x, V of_s) {
      if (in.residual) of_x += of_g.load(row, column);
      dx.store(of_x, row, column);
      ds.store(of_s, row, column);
    });
  }
  void finish() {
    write_taps<M>(cx, *planes, in.cx);
    write_taps<M>(cs, *planes, in.cs);
  }
};

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_backward(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
    const Tensor& alpha, const Tensor& beta, const Tensor& gamma, bool residual) {
  check(x, {x, s, g});
  check_vectors(x, planes_of(x), {alpha, beta, gamma});
  check_vectors(x, 9 * planes_of(x), {kx, ks});
  const Shape shape(x);
  Tensor dx = at::empty_like(x), ds = at::empty_like(x);
  Tensor cx = at::empty({shape.batch, shape.channels, 9}, kx.options()), cs = at::empty_like(cx);
  const Tensor sum = at::zeros({shape.batch, shape.channels}, vector_options(x));
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const DualGradients<M> inputs{
        g.const_data_ptr<T>(),    x.const_data_ptr<T>(),     s.const_data_ptr<T>(),
        kx.const_data_ptr<A>(),   ks.const_data_ptr<A>(),    alpha.const_data_ptr<A>(),
        beta.const_data_ptr<A>(), gamma.const_data_ptr<A>(), dx.data_ptr<T>(),
        ds.data_ptr<T>(),         cx.data_ptr<A>(),          cs.data_ptr<A>(),
        sum.data_ptr<A>(),   residual};
    over_strips<M, DualBackward<M>>(shape, strip_rows<M>(shape, 1), shape.height + 1, inputs);
  });
  return {dx, ds, cx, cs, sum};
}

// Correlations of g with the shifted maps, (B, C, 9) each, and the sum of g, (B, C).
inline std::tuple<Tensor, Tensor, Tensor> dual_dwconv_correlate(const Tensor& g, const Tensor& x,
                                                                const Tensor& s) {
  check(x, {x, s, g});
  const Shape shape(x);
  Tensor cx = at::empty({shape.batch, shape.channels, 9}, vector_options(x)), cs = at::empty_like(cx);
  const Tensor sum = at::zeros({shape.batch, shape.channels}, vector_options(x));
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    DualGradients<M> inputs{g.const_data_ptr<T>(), x.const_data_ptr<T>(), s.const_data_ptr<T>()};
    inputs.cx = cx.data_ptr<A>(), inputs.cs = cs.data_ptr<A>();
    inputs.sum = sum.data_ptr<A>();
    over_strips<M, DualCorrelate<M>>(shape, strip_rows<M>(shape), shape.height, inputs);
  });
  return {cx, cs, sum};
}

// Gradients of x, s, kx, ks and the bias from that of o.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_dwconv_backward(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks) {
  const Tensor zero = at::zeros({x.size(0), x.size(1)}, kx.options());
  return dual_backward(g, x, s, kx, ks, at::ones_like(zero), zero, zero, false);
}

// The same where alpha g + beta o + gamma arrives at o, and g besides at x.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_dwconv_backward_normed(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
    const Tensor& alpha, const Tensor& beta, const Tensor& gamma) {
  return dual_backward(g, x, s, kx, ks, alpha, beta, gamma, true);
}

}  // namespace
}  // namespace mmdla
