// Two depthwise 3x3 correlations with a kernel for every plane, summed:
//
//     o = kx * x + ks * s          x, s, o: (B, C, H, W)   kx, ks: (B, C, 9)   zero padding
//
// Every map is read once, in strips of rows that stay in the cache. Its backward pass is in
// dual_dwconv_backward.h.

#pragma once

#include "add_relu_pool.h"
#include "strip_sums.h"

namespace mmdla {
namespace {

// The strips of both maps of a unit and their weights.
template <typename M>
struct DualStrips {
  using T = typename M::T;
  using A = typename M::A;
  Shape shape;
  int64_t size;
  Strip<M> of_x, of_s;
  DualConv<M> convs;
  DualStrips(const Shape& shape_, int64_t size_)
      : shape(shape_), size(size_), of_x(shape_, size_), of_s(shape_, size_) {}

  void start(const A* kx, const A* ks, const Planes<M>& planes) {
    convs.x = {of_x.row(0), {Taps<M>(kx + 9 * planes.plane, planes)}};
    convs.s = {of_s.row(0), {Taps<M>(ks + 9 * planes.plane, planes)}};
  }
  int64_t rows(int64_t first) const { return std::min(size, shape.height - first); }
};

// o + bias; NORMED: of x = relu(scale * r + shift + s), where x stands for r. out may be x or r.
template <typename M, bool NORMED>
struct WriteDual {
  using T = typename M::T;
  using A = typename M::A;
  using V = typename M::V;
  struct Inputs {
    const T *x, *s;
    const A *scale, *shift, *kx, *ks, *bias;
    T* out;
  };
  DualStrips<M> strips;
  Inputs in;
  std::optional<View<M>> x, s;
  std::optional<View<M, T>> out;
  typename M::Lane scale, shift, bias;

  WriteDual(const Shape& shape, int64_t size, const Inputs& inputs)
      : strips(shape, size), in(inputs) {}

  void start(const Planes<M>& planes) {
    strips.start(in.kx, in.ks, planes);
    x.emplace(in.x, strips.shape, planes);
    s.emplace(in.s, strips.shape, planes);
    out.emplace(in.out, strips.shape, planes);
    bias = planes.lane(in.bias + planes.plane);
    if constexpr (NORMED) {
      scale = planes.lane(in.scale + planes.plane);
      shift = planes.lane(in.shift + planes.plane);
    }
  }
  void step(int64_t first) {
    if constexpr (NORMED) {
      strips.of_x.move_to(first, [r = *x, s = *s, by = scale, to = shift](int64_t row, int64_t c) {
        return add_relu<A>(r.load(row, c), s.load(row, c), by, to);
      });
    } else {
      strips.of_x.move_to(first, *x);
    }
    strips.of_s.move_to(first, *s);
    const DualConv<M> convs = strips.convs;  // what is written cannot change them
    correlate_rows<M>(convs, strips.of_x, strips.rows(first),
                      [first, to = *out, more = bias](int64_t h, int64_t c, V value) {
                        to.store(value + more, first + h, c);
                      });
  }
  void finish() {}
};

template <bool NORMED>
Tensor write_dual_dwconv(const Tensor& x, const Tensor& s, const Tensor& scale, const Tensor& shift,
                         const Tensor& kx, const Tensor& ks, const Tensor& bias, Tensor out) {
  check(x, {x, s, out});
  check_vectors(x, planes_of(x), {bias, scale, shift});
  check_vectors(x, 9 * planes_of(x), {kx, ks});
  const Shape shape(x);
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const typename WriteDual<M, NORMED>::Inputs inputs{
        x.const_data_ptr<T>(),     s.const_data_ptr<T>(),  scale.const_data_ptr<A>(),
        shift.const_data_ptr<A>(), kx.const_data_ptr<A>(), ks.const_data_ptr<A>(),
        bias.const_data_ptr<A>(),  out.data_ptr<T>()};
    over_strips<M, WriteDual<M, NORMED>>(shape, strip_rows<M>(shape), shape.height, inputs);
  });
  return out;
}

// o + bias, bias: (B, C)
inline Tensor dual_dwconv(const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
                          const Tensor& bias) {
  return write_dual_dwconv<false>(x, s, bias, bias, kx, ks, bias, at::empty_like(x));
}

// The same of x = relu(scale * r + shift + s), in the place of r if that is wanted, of which a strip
// keeps what it still needs. scale, shift: (B, C)
inline Tensor dual_dwconv_of_add_relu(const Tensor& r, const Tensor& s, const Tensor& scale,
                                      const Tensor& shift, const Tensor& kx, const Tensor& ks,
                                      const Tensor& bias, bool in_place) {
  return write_dual_dwconv<true>(r, s, scale, shift, kx, ks, bias,
                                 in_place ? r : at::empty_like(r));
}

// Of o in every plane: the mean, and the sum of squared deviations from it.
template <typename M>
struct DualMoments {
  using T = typename M::T;
  using A = typename M::A;
  using V = typename M::V;
  struct Inputs {
    const T *x, *s;
    const A *kx, *ks;
    A *mean, *m2;
  };
  DualStrips<M> strips;
  Inputs in;
  std::optional<Planes<M>> planes;
  typename M::Lane shift;  // near the mean, so that nothing cancels
  Sum<M> sum, squares;

  DualMoments(const Shape& shape, int64_t size, const Inputs& inputs)
      : strips(shape, size), in(inputs) {}

  void start(const Planes<M>& now) {
    planes = now;
    strips.start(in.kx, in.ks, now);
    sum = {}, squares = {};
  }
  void step(int64_t first) {
    strips.of_x.move_to(first, View<M>(in.x, strips.shape, *planes));
    strips.of_s.move_to(first, View<M>(in.s, strips.shape, *planes));
    const int64_t length = strips.of_x.length();
    const V last = new_in_last<A>(length);
    if (first == 0) {
      V row = {};
      correlate_rows<M>(strips.convs, strips.of_x, 1, [&](int64_t, int64_t c, V o) {
        row += c + M::lanes < length ? o : o * last;
      });
      if constexpr (M::last) {
        shift = row / A(strips.shape.width);
      } else {
        shift = sum_of<A>(row) / strips.shape.width;
      }
    }
    V r1 = {}, r2 = {};
    correlate_rows<M>(strips.convs, strips.of_x, strips.rows(first),
                      [&, by = shift](int64_t, int64_t c, V o) {
                        const V d = o - by, own = c + M::lanes < length ? d : d * last;
                        r1 += own;
                        r2 += own * own;
                      });
    sum.add(r1);
    squares.add(r2);
  }
  void finish() {
    const double area = strips.shape.area();
    for (int64_t i = 0; i < planes->count; ++i) {
      A at;
      if constexpr (M::last) {
        at = shift[i];
      } else {
        at = shift;
      }
      in.mean[planes->plane + i] = at + sum.of[i] / area;
      in.m2[planes->plane + i] = std::max(0.0, squares.of[i] - sum.of[i] * sum.of[i] / area);
    }
  }
};

// Mean of o in every plane and the sum of its squared deviations from it, each (B, C).
inline std::tuple<Tensor, Tensor> dual_dwconv_moments(const Tensor& x, const Tensor& s,
                                                      const Tensor& kx, const Tensor& ks) {
  check(x, {x, s});
  check_vectors(x, 9 * planes_of(x), {kx, ks});
  const Shape shape(x);
  Tensor mean = at::empty({shape.batch, shape.channels}, kx.options()), m2 = at::empty_like(mean);
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const typename DualMoments<M>::Inputs inputs{
        x.const_data_ptr<T>(),  s.const_data_ptr<T>(), kx.const_data_ptr<A>(),
        ks.const_data_ptr<A>(), mean.data_ptr<A>(),    m2.data_ptr<A>()};
    over_strips<M, DualMoments<M>>(shape, strip_rows<M>(shape), shape.height, inputs);
  });
  return {mean, m2};
}

}  // namespace
}  // namespace mmdla
