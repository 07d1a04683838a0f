// A depthwise 3x3 correlation and the pooling of its result, in one pass:
//
//     v = k * x, GAP(v)          x, v: (B, C, H, W)   k: (C, 9)   zero padding
//
// and its backward pass.

#pragma once

#include "strip_sums.h"

namespace mmdla {
namespace {

template <typename M>
struct DwconvPool {
  using T = typename M::T;
  using A = typename M::A;
  using V = typename M::V;
  struct Inputs {
    const T* x;
    const A* k;
    T* out;
    A* pooled;
  };
  Shape shape;
  int64_t size;
  Strip<M> of_x;
  Inputs in;
  std::optional<Planes<M>> planes;
  Fan<M, 1> conv;

  DwconvPool(const Shape& shape_, int64_t size_, const Inputs& inputs)
      : shape(shape_), size(size_), of_x(shape_, size_), in(inputs) {}

  void start(const Planes<M>& now) {
    planes = now;
    conv = {of_x.row(0), {Taps<M>(in.k + 9 * now.channel, now)}};
  }
  void step(int64_t first) {
    of_x.move_to(first, View<M>(in.x, shape, *planes));
    const View<M, T> out(in.out, shape, *planes);
    const int64_t length = of_x.length();
    const V last = new_in_last<A>(length);
    const Fan<M, 1> now = conv;  // what is written cannot change it
    V part = {};
    correlate_rows<M>(now, of_x, std::min(size, shape.height - first),
                      [&](int64_t h, int64_t c, V v) {
                        part += c + M::lanes < length ? v : v * last;
                        out.store(v, first + h, c);
                      });
    planes->add(part, in.pooled + planes->plane);
  }
  void finish() {}
};

template <typename M>
struct DwconvPoolBackward {
  using T = typename M::T;
  using A = typename M::A;
  using V = typename M::V;
  struct Inputs {
    const T *g, *x;
    const A *pooled, *k;
    T* dx;
    A* dk;
  };
  Shape shape;
  Strip<M> of_x;
  Behind<M> of_u;
  Inputs in;
  std::optional<Planes<M>> planes;
  Fan<M, 1> flipped;
  typename M::Lane shift;
  V dk[9];

  DwconvPoolBackward(const Shape& shape_, int64_t size, const Inputs& inputs)
      : shape(shape_), of_x(shape_, size), of_u(shape_, size), in(inputs) {}

  void start(const Planes<M>& now) {
    planes = now;
    flipped = {nullptr, {Taps<M>(in.k + 9 * now.channel, now).flipped()}};
    shift = now.lane(in.pooled + now.plane) / A(shape.area());
    for (int k = 0; k < 9; ++k) dk[k] = V{};
  }
  void step(int64_t first) {
    const int64_t rows = of_u.rows(first);
    of_u.move_to(first);
    if (rows > 0) {
      of_x.move_to(first, View<M>(in.x, shape, *planes));
      const View<M> g(in.g, shape, *planes);
      for (int64_t h = 0; h < rows; ++h) {
        over_columns<A>(of_x.length(),
                        [&](int64_t c) { of_u.store(g.load(first + h, c) + shift, h, c); });
      }
      add_products<M>(of_u.strip(), 1, of_x, rows, dk);
    }
    const View<M, T> dx(in.dx, shape, *planes);
    of_u.gradients(first, flipped,
                   [&](int64_t row, int64_t c, V value) { dx.store(value, row, c); });
  }
  void finish() { write_taps<M>(dk, *planes, in.dk); }
};

// v, and GAP(v) (B, C)
inline std::tuple<Tensor, Tensor> dwconv_pool(const Tensor& x, const Tensor& k) {
  check(x, {x});
  check_vectors(x, 9 * x.size(1), {k});
  const Shape shape(x);
  Tensor out = at::empty_like(x);
  Tensor pooled = at::zeros({shape.batch, shape.channels}, vector_options(x));
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const typename DwconvPool<M>::Inputs inputs{x.const_data_ptr<T>(), k.const_data_ptr<A>(),
                                                out.data_ptr<T>(), pooled.data_ptr<A>()};
    over_strips<M, DwconvPool<M>>(shape, strip_rows<M>(shape), shape.height, inputs);
  });
  return {out, pooled.div_(shape.area())};
}

// Gradients of x and, plane by plane, of k (B, C, 9) from those of v and of GAP(v).
inline std::tuple<Tensor, Tensor> dwconv_pool_backward(const Tensor& g, const Tensor& of_pooled,
                                                       const Tensor& x, const Tensor& k) {
  check(x, {x, g});
  check_vectors(x, 9 * x.size(1), {k});
  check_vectors(x, planes_of(x), {of_pooled});
  const Shape shape(x);
  Tensor dx = at::empty_like(x), dk = at::empty({shape.batch, shape.channels, 9}, k.options());
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const typename DwconvPoolBackward<M>::Inputs inputs{
        g.const_data_ptr<T>(), x.const_data_ptr<T>(), of_pooled.const_data_ptr<A>(),
        k.const_data_ptr<A>(), dx.data_ptr<T>(),      dk.data_ptr<A>()};
    over_strips<M, DwconvPoolBackward<M>>(shape, strip_rows<M>(shape, 1), shape.height + 1,
                                          inputs);
  });
  return {dx, dk};
}

}  // namespace
}  // namespace mmdla
