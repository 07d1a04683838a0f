// The end of a residual block and the poolings that layer attention starts with, in one pass:
//
//     x = relu(scale * r + shift + s), GAP(x), GAP(s)          scale, shift: (B, C)
//
// where scale and shift are a norm layer's that the residual has yet to pass.

#pragma once

#include "pieces.h"

namespace mmdla {
namespace {

// Rounded as PyTorch's batch norm and sum round, so that an attention which starts as the identity
// leaves the plain network's features bit for bit.
template <typename A, typename Lane>
inline Vec<A> add_relu(Vec<A> r, Vec<A> s, Lane scale, Lane shift) {
  return relu<A>(as_computed<A>(r * scale + shift) + s);
}

// x is written to `out` if STORED, which may be r.
template <bool STORED>
std::tuple<Tensor, Tensor> add_relu_pools(const Tensor& r, const Tensor& s, const Tensor& scale,
                                          const Tensor& shift, const Tensor& out) {
  check(r, {r, s, out});
  check_vectors(r, planes_of(r), {scale, shift});
  const Tensor sum_x = partial_sums(r), sum_s = partial_sums(r);
  const int64_t planes = planes_of(r), area = Shape(r).area();
  dispatch(r, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const T *pr = r.const_data_ptr<T>(), *ps = s.const_data_ptr<T>();
    const A *a = scale.const_data_ptr<A>(), *b = shift.const_data_ptr<A>();
    A *gx = sum_x.data_ptr<A>(), *gs = sum_s.data_ptr<A>();
    T* po = nullptr;
    if constexpr (STORED) po = out.data_ptr<T>();
    over_pieces<M>(r, [&](const Piece<M>& piece) {
      const auto by = piece.lane(a + piece.plane), to = piece.lane(b + piece.plane);
      Vec<A> part_x = {}, part_s = {};
      piece.each([&](int64_t, int64_t at, int64_t count) {
        const Vec<A> shortcut = load_part(ps + at, count);
        const Vec<A> x = add_relu<A>(load_part(pr + at, count), shortcut, by, to);
        if constexpr (STORED) store_part(x, count, po + at);
        part_x += piece.own(x, count);
        part_s += shortcut;
      });
      piece.add(part_x, gx + piece.part * planes + piece.plane);
      piece.add(part_s, gs + piece.part * planes + piece.plane);
    });
  });
  return {total(sum_x, area), total(sum_s, area)};
}

// x, in the place of r if that is wanted, and the poolings, each (B, C).
inline std::tuple<Tensor, Tensor, Tensor> add_relu_pool(const Tensor& r, const Tensor& s,
                                                        const Tensor& scale, const Tensor& shift,
                                                        bool in_place) {
  Tensor x = in_place ? r : at::empty_like(r);
  auto [pooled_x, pooled_s] = add_relu_pools<true>(r, s, scale, shift, x);
  return {x, pooled_x, pooled_s};
}

// The poolings alone.
inline std::tuple<Tensor, Tensor> pool_add_relu(const Tensor& r, const Tensor& s,
                                                const Tensor& scale, const Tensor& shift) {
  return add_relu_pools<false>(r, s, scale, shift, r);
}

// Gradients of r and s, where scale is 1 and shift 0, from those of x and of the two poolings; `more`
// is another part of the gradient of s.
inline std::tuple<Tensor, Tensor> add_relu_pool_backward(const Tensor& g, const Tensor& pooled_x,
                                                         const Tensor& pooled_s,
                                                         const std::optional<Tensor>& more,
                                                         const Tensor& x) {
  check(x, {g, x, more ? *more : x});
  check_vectors(x, planes_of(x), {pooled_x, pooled_s});
  Tensor dr = at::empty_like(x), ds = at::empty_like(x);
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const T *pg = g.const_data_ptr<T>(), *px = x.const_data_ptr<T>();
    const T* pm = more ? more->const_data_ptr<T>() : nullptr;
    const A *gx = pooled_x.const_data_ptr<A>(), *gs = pooled_s.const_data_ptr<A>();
    T *pr = dr.data_ptr<T>(), *ps = ds.data_ptr<T>();
    const A part = A(1) / A(Shape(x).area());
    over_pieces<M>(x, [&](const Piece<M>& piece) {
      const auto to_x = piece.lane(gx + piece.plane) * part;
      const auto to_s = piece.lane(gs + piece.plane) * part;
      piece.each([&](int64_t, int64_t at, int64_t count) {
        const Vec<A> sum = load_part(pg + at, count) + to_x;
        const Vec<A> of_r = load_part(px + at, count) > A(0) ? sum : Vec<A>{};
        Vec<A> of_s = of_r + to_s;
        if (pm) of_s += load_part(pm + at, count);
        store_part(of_r, count, pr + at);
        store_part(of_s, count, ps + at);
      });
    });
  });
  return {dr, ds};
}

}  // namespace
}  // namespace mmdla
