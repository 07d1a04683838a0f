// Sums over the blocks of a stage, with a weight for every sample and channel, and what follows:
//
//     o = sum_m w_m v_m        out = x + keep * relu(scale * o + shift)
//
// v: m maps (B, C, H, W); w: (B, m, C); scale, shift, keep: (B, C). A piece of all the maps stays in
// the cache while everything about it is computed. Its backward pass is in weighted_sum_backward.h.

#pragma once

#include "pieces.h"

namespace mmdla {
namespace {

// The maps of a sum and their weights.
template <typename M>
struct Terms {
  using T = typename M::T;
  using A = typename M::A;
  std::vector<const T*> maps;
  const A* weights;
  int64_t channels;

  Terms(const std::vector<Tensor>& values, const Tensor& w)
      : weights(w.const_data_ptr<A>()), channels(w.size(2)) {
    for (const Tensor& map : values) maps.push_back(map.const_data_ptr<T>());
  }

  int64_t blocks() const { return maps.size(); }

  // Where the numbers of map m begin in a tensor like the weights.
  int64_t at(const Piece<M>& piece, int64_t m) const {
    return (piece.batch * blocks() + m) * channels + piece.channel;
  }

  // o of a piece
  void sum(const Piece<M>& piece, Vec<A>* o) const {
    for (int64_t m = 0; m < blocks(); ++m) {
      const T* v = maps[m];
      const auto w = piece.lane(weights + at(piece, m));
      if (m == 0) {
        piece.each([=](int64_t k, int64_t i, int64_t count) { o[k] = w * load_part(v + i, count); });
      } else {
        piece.each([=](int64_t k, int64_t i, int64_t count) { o[k] += w * load_part(v + i, count); });
      }
    }
  }
};

inline void check_sum(const Tensor& like, const Tensor& w, const std::vector<Tensor>& values) {
  TORCH_CHECK(!values.empty(), "mmdla: a sum of no maps");
  check(like, values);
  check_vectors(like, planes_of(like) * int64_t(values.size()), {w});
  TORCH_CHECK(w.dim() == 3, "mmdla: weights must be (B, m, C), got ", w.sizes());
}

// NaN stays.
template <typename A, typename Lane>
inline Vec<A> plus_relu(Vec<A> x, Vec<A> o, Lane scale, Lane shift, Lane keep) {
  return x + keep * relu<A>(scale * o + shift);
}

// o alone, (B, C, H, W).
inline Tensor weighted_sum(const Tensor& w, const std::vector<Tensor>& values) {
  check_sum(values.at(0), w, values);
  Tensor out = at::empty_like(values[0]);
  dispatch(out, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    const Terms<M> terms(values, w);
    T* po = out.data_ptr<T>();
    over_pieces<M>(out, [&](const Piece<M>& piece) {
      typename M::V o[VECTORS<M>];
      terms.sum(piece, o);
      piece.each([&](int64_t k, int64_t i, int64_t count) { store_part(o[k], count, po + i); });
    });
  });
  return out;
}

// Mean of o in every plane and the sum of its squared deviations from it, each (B, C); and o, which
// is kept in what it is computed in.
inline std::tuple<Tensor, Tensor, Tensor> weighted_sum_moments(const Tensor& w,
                                                               const std::vector<Tensor>& values) {
  const Tensor& like = values.at(0);
  check_sum(like, w, values);
  Tensor out = at::empty_like(like, like.options().dtype(acc_type(like)));
  // of every part the sum, then the sum of squared deviations from its mean
  const Tensor sum = partial_sums(like), squares = partial_sums(like);
  const int64_t planes = planes_of(like);
  dispatch(like, [&](auto maps) {
    using M = decltype(maps);
    using A = typename M::A;
    using V = typename M::V;
    const Terms<M> terms(values, w);
    A *po = out.data_ptr<A>(), *s1 = sum.data_ptr<A>(), *s2 = squares.data_ptr<A>();
    over_pieces<M>(like, [&](const Piece<M>& piece) {
      V o[VECTORS<M>], total = {};
      terms.sum(piece, o);
      piece.each([&](int64_t k, int64_t i, int64_t count) {
        store_part(o[k], count, po + i);
        total += piece.own(o[k], count);
      });
      piece.add(total, s1 + piece.part * planes + piece.plane);
    });
    over_pieces<M>(like, [&](const Piece<M>& piece) {
      const int64_t number = piece.part * planes + piece.plane;
      const auto mean = piece.lane(s1 + number) / A(size_of_part(like, piece.part));
      V total = {};
      piece.each([&](int64_t, int64_t i, int64_t count) {
        const V d = piece.own(load_part(po + i, count) - mean, count);
        total += d * d;
      });
      piece.add(total, s2 + number);
    });
  });
  Tensor mean = at::empty({like.size(0), like.size(1)}, w.options()), m2 = at::empty_like(mean);
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "weighted_sum_moments", [&] {
    const auto *s1 = sum.const_data_ptr<scalar_t>(), *s2 = squares.const_data_ptr<scalar_t>();
    for (int64_t p = 0; p < planes; ++p) {
      double all = 0, within = 0, between = 0;
      for (int64_t part = 0; part < sum.size(0); ++part) all += s1[part * planes + p];
      const double centre = all / Shape(like).area();
      for (int64_t part = 0; part < sum.size(0); ++part) {
        const double count = size_of_part(like, part), off = s1[part * planes + p] / count - centre;
        within += s2[part * planes + p];
        between += count * off * off;
      }
      mean.data_ptr<scalar_t>()[p] = centre;
      m2.data_ptr<scalar_t>()[p] = within + between;
    }
  });
  return {mean, m2, out};
}

// x + keep * relu(scale * o + shift); o as weighted_sum_moments gives it
inline Tensor relu_add(const Tensor& x, const Tensor& o, const Tensor& scale, const Tensor& shift,
                       const Tensor& keep) {
  check_like(o, x);
  check_vectors(x, planes_of(x), {scale, shift, keep});
  Tensor out = at::empty_like(x);
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const T* px = x.const_data_ptr<T>();
    const A *po = o.const_data_ptr<A>(), *a = scale.const_data_ptr<A>();
    const A *b = shift.const_data_ptr<A>(), *c = keep.const_data_ptr<A>();
    T* result = out.data_ptr<T>();
    over_pieces<M>(x, [&](const Piece<M>& piece) {
      const auto by = piece.lane(a + piece.plane), to = piece.lane(b + piece.plane);
      const auto kept = piece.lane(c + piece.plane);
      piece.each([&](int64_t, int64_t i, int64_t count) {
        const Vec<A> of_x = load_part(px + i, count), of_o = load_part(po + i, count);
        store_part(plus_relu<A>(of_x, of_o, by, to, kept), count, result + i);
      });
    });
  });
  return out;
}

// The same without o, in the place of x if that is wanted.
inline Tensor weighted_sum_relu_add(const Tensor& x, const Tensor& w,
                                    const std::vector<Tensor>& values, const Tensor& scale,
                                    const Tensor& shift, const Tensor& keep, bool in_place) {
  check(x, {x});
  check_sum(x, w, values);
  check_vectors(x, planes_of(x), {scale, shift, keep});
  Tensor out = in_place ? x : at::empty_like(x);
  dispatch(x, [&](auto maps) {
    using M = decltype(maps);
    using T = typename M::T;
    using A = typename M::A;
    const Terms<M> terms(values, w);
    const T* px = x.const_data_ptr<T>();
    const A *a = scale.const_data_ptr<A>(), *b = shift.const_data_ptr<A>();
    const A* c = keep.const_data_ptr<A>();
    T* po = out.data_ptr<T>();
    over_pieces<M>(x, [&](const Piece<M>& piece) {
      Vec<A> o[VECTORS<M>];
      terms.sum(piece, o);
      const auto by = piece.lane(a + piece.plane), to = piece.lane(b + piece.plane);
      const auto kept = piece.lane(c + piece.plane);
      piece.each([&](int64_t k, int64_t i, int64_t count) {
        store_part(plus_relu<A>(load_part(px + i, count), o[k], by, to, kept), count, po + i);
      });
    });
  });
  return out;
}

}  // namespace
}  // namespace mmdla
