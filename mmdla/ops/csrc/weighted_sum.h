// Sums over the blocks of a stage, with a weight for every sample and channel, and what follows:
//
//     o = sum_m w_m v_m        out = x + keep * relu(scale * o + shift)
//
// v: m maps (B, C, H, W); w: (B, m, C); scale, shift, keep: (B, C). A piece of all the maps stays in
// the cache while everything about it is computed; sums over a piece are short, so they stay exact.

#pragma once

#include "planes.h"

namespace mmdla {
namespace {

constexpr int64_t PIECE = 1024;

template <typename T>
std::vector<const T*> pointers(at::ArrayRef<Tensor> maps) {
  std::vector<const T*> result;
  for (const Tensor& map : maps) result.push_back(map.const_data_ptr<T>());
  return result;
}

// out[i] = sum_m w_m v_m[offset + i], i < size
template <typename T>
inline void sum_piece(const std::vector<const T*>& maps, int64_t offset, const T* w,
                      int64_t stride, int64_t size, T* __restrict__ out) {
  for (size_t m = 0; m < maps.size(); ++m) {
    const T* v = maps[m] + offset;
    const T factor = w[m * stride];
    if (m == 0) {
      for (int64_t i = 0; i < size; ++i) out[i] = factor * v[i];
    } else {
      for (int64_t i = 0; i < size; ++i) out[i] += factor * v[i];
    }
  }
}

// out = x + keep * relu(scale * o + shift), which may be x itself; NaN stays.
template <typename T>
inline void relu_add_row(const T* x, const T* o, T scale, T shift, T keep, int64_t size,
                              T* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) {
    const T z = scale * o[i] + shift;
    out[i] = x[i] + keep * (z < 0 ? T(0) : z);
  }
}

// The gradient of o, alpha t + beta o + gamma, in the place of o.
template <typename T>
inline void relu_gradient_row(const T* g, T scale, T shift, T alpha, T beta, T gamma, int64_t size,
                          T* o) {
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) {
    const T value = g[i];  // loaded in any case, so that the loop is vectorized
    const T t = scale * o[i] + shift > 0 ? value : T(0);
    o[i] = alpha * t + beta * o[i] + gamma;
  }
}

// Run f(offset, size) over the pieces of plane p.
template <typename F>
inline void over_pieces(int64_t p, int64_t area, F f) {
  for (int64_t start = 0; start < area; start += PIECE) {
    f(p * area + start, std::min(PIECE, area - start));
  }
}

}  // namespace

// o alone, (B, C, H, W).
inline Tensor weighted_sum(const Tensor& w, const std::vector<Tensor>& values) {
  const Tensor& like = values[0];
  check(like, values);
  const Shape shape(like);
  const int64_t channels = like.size(1), blocks = values.size();
  Tensor out = at::empty_like(like);
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "weighted_sum", [&] {
    const auto maps = pointers<scalar_t>(values);
    const auto* pw = w.const_data_ptr<scalar_t>();
    auto* po = out.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        const auto* weight = pw + p / channels * blocks * channels + p % channels;
        over_pieces(p, shape.area(), [&](int64_t offset, int64_t size) {
          sum_piece(maps, offset, weight, channels, size, po + offset);
        });
      }
    });
  });
  return out;
}

// Mean of o in every plane and the sum of its squared deviations from it, each (B, C); and o.
inline std::tuple<Tensor, Tensor, Tensor> weighted_sum_moments(const Tensor& w,
                                                        const std::vector<Tensor>& values) {
  const Tensor& like = values[0];
  check(like, values);
  const Shape shape(like);
  const int64_t channels = like.size(1), blocks = values.size(), area = shape.area();
  Tensor out = at::empty_like(like), mean = vectors(like), m2 = vectors(like);
  AT_DISPATCH_FLOATING_TYPES(like.scalar_type(), "weighted_sum_moments", [&] {
    const auto maps = pointers<scalar_t>(values);
    const auto* pw = w.const_data_ptr<scalar_t>();
    auto *po = out.data_ptr<scalar_t>(), *pm = mean.data_ptr<scalar_t>();
    auto* pv = m2.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        const auto* weight = pw + p / channels * blocks * channels + p % channels;
        double total = 0, squares = 0;
        over_pieces(p, area, [&](int64_t offset, int64_t size) {
          auto* o = po + offset;
          sum_piece(maps, offset, weight, channels, size, o);
          scalar_t part = 0;
          for (int64_t i = 0; i < size; ++i) part += o[i];
          total += part;
        });
        const scalar_t centre = total / area;
        over_pieces(p, area, [&](int64_t offset, int64_t size) {
          const auto* o = po + offset;
          scalar_t part = 0;
          for (int64_t i = 0; i < size; ++i) part += (o[i] - centre) * (o[i] - centre);
          squares += part;
        });
        pm[p] = centre;
        pv[p] = squares;
      }
    });
  });
  return {mean, m2, out};
}

// x + keep * relu(scale * o + shift)
inline Tensor relu_add(const Tensor& x, const Tensor& o, const Tensor& scale, const Tensor& shift,
                     const Tensor& keep) {
  check(x, {x, o});
  const Shape shape(x);
  Tensor out = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "relu_add", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *po = o.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    const auto* k = keep.const_data_ptr<scalar_t>();
    auto* result = out.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        const int64_t start = p * shape.area();
        relu_add_row(px + start, po + start, a[p], b[p], k[p], shape.area(), result + start);
      }
    });
  });
  return out;
}

// The same without o, in the place of x if that is wanted.
inline Tensor weighted_sum_relu_add(const Tensor& x, const Tensor& w,
                                    const std::vector<Tensor>& values, const Tensor& scale,
                                    const Tensor& shift, const Tensor& keep, bool in_place) {
  check(x, {x});
  check(x, values);
  const Shape shape(x);
  const int64_t channels = x.size(1), blocks = values.size();
  Tensor out = in_place ? x : at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "weighted_sum_relu_add", [&] {
    const auto maps = pointers<scalar_t>(values);
    const auto *px = x.const_data_ptr<scalar_t>(), *pw = w.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    const auto* k = keep.const_data_ptr<scalar_t>();
    auto* po = out.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      scalar_t o[PIECE];
      for (int64_t p = first; p < last; ++p) {
        const auto* weight = pw + p / channels * blocks * channels + p % channels;
        over_pieces(p, shape.area(), [&](int64_t offset, int64_t size) {
          sum_piece(maps, offset, weight, channels, size, o);
          relu_add_row(px + offset, o, a[p], b[p], k[p], size, po + offset);
        });
      }
    });
  });
  return out;
}

// With t = g where scale * o + shift > 0, else 0, for every plane: the dot products of t with each
// v_m, of o with each v_m, the sums of each v_m, all (B, m, C); the sums of t and of t o, (B, C).
// And o, which the next step needs.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> relu_products(const Tensor& g, const Tensor& w,
                                       const std::vector<Tensor>& values, const Tensor& scale,
                                       const Tensor& shift) {
  check(g, values);
  const Shape shape(g);
  const int64_t channels = g.size(1), blocks = values.size(), area = shape.area();
  Tensor out = at::empty_like(g);
  Tensor tv = at::zeros_like(w), ov = at::zeros_like(w), v1 = at::zeros_like(w);
  Tensor t1 = vectors(g), to = vectors(g);
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "relu_products", [&] {
    const auto maps = pointers<scalar_t>(values);
    const auto *pg = g.const_data_ptr<scalar_t>(), *pw = w.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    auto *po = out.data_ptr<scalar_t>(), *ptv = tv.data_ptr<scalar_t>();
    auto *pov = ov.data_ptr<scalar_t>(), *pv1 = v1.data_ptr<scalar_t>();
    auto *pt1 = t1.data_ptr<scalar_t>(), *pto = to.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      scalar_t t[PIECE];
      for (int64_t p = first; p < last; ++p) {
        const int64_t row = p / channels * blocks * channels + p % channels;
        over_pieces(p, area, [&](int64_t offset, int64_t size) {
          auto* o = po + offset;
          const auto* gp = pg + offset;
          sum_piece(maps, offset, pw + row, channels, size, o);
          scalar_t sum = 0, with_o = 0;
          for (int64_t i = 0; i < size; ++i) {
            const scalar_t value = gp[i];  // loaded in any case, so that the loop is vectorized
            t[i] = a[p] * o[i] + b[p] > 0 ? value : scalar_t(0);
            sum += t[i];
            with_o += t[i] * o[i];
          }
          pt1[p] += sum;
          pto[p] += with_o;
          for (int64_t m = 0; m < blocks; ++m) {
            const auto* v = maps[m] + offset;
            scalar_t dot_t = 0, dot_o = 0, total = 0;
            for (int64_t i = 0; i < size; ++i) {
              dot_t += t[i] * v[i];
              dot_o += o[i] * v[i];
              total += v[i];
            }
            ptv[row + m * channels] += dot_t;
            pov[row + m * channels] += dot_o;
            pv1[row + m * channels] += total;
          }
        });
      }
    });
  });
  return {tv, ov, v1, t1, to, out};
}

// The gradient of o, alpha t + beta o + gamma, in the place of o.
inline Tensor relu_gradient(const Tensor& o, const Tensor& g, const Tensor& scale, const Tensor& shift,
                        const Tensor& alpha, const Tensor& beta, const Tensor& gamma) {
  check(g, {g, o});
  const Shape shape(g);
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "relu_gradient", [&] {
    const auto* pg = g.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    const auto *c = alpha.const_data_ptr<scalar_t>(), *d = beta.const_data_ptr<scalar_t>();
    const auto* e = gamma.const_data_ptr<scalar_t>();
    auto* po = o.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p) {
        const int64_t start = p * shape.area();
        relu_gradient_row(pg + start, a[p], b[p], c[p], d[p], e[p], shape.area(), po + start);
      }
    });
  });
  return o;
}

}  // namespace mmdla
