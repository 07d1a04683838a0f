// The end of a residual block and the poolings that layer attention starts with, in one pass:
//
//     x = relu(r + s), GAP(x), GAP(s)
//
// x takes the place of r.

#pragma once

#include "planes.h"

namespace mmdla {

inline std::tuple<Tensor, Tensor> join_forward(const Tensor& r, const Tensor& s) {
  check(r, {r, s});
  const Shape shape(r);
  Tensor pooled_x = vectors(r), pooled_s = vectors(r);
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "join_forward", [&] {
    auto* pr = r.data_ptr<scalar_t>();
    const auto* ps = s.const_data_ptr<scalar_t>();
    auto *gx = pooled_x.data_ptr<scalar_t>(), *gs = pooled_s.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      const int64_t area = shape.area();
      for (int64_t p = first; p < last; ++p) {
        auto* x = pr + p * area;
        const auto* t = ps + p * area;
        double sum_x = 0, sum_s = 0;
        for (int64_t start = 0; start < area; start += 1024) {  // short sums stay exact
          const int64_t stop = std::min(area, start + 1024);
          scalar_t part_x = 0, part_s = 0;
          for (int64_t i = start; i < stop; ++i) {
            const scalar_t v = x[i] + t[i];
            const scalar_t positive = v > 0 ? v : (v == v ? scalar_t(0) : v);  // NaN stays
            x[i] = positive;
            part_x += positive;
            part_s += t[i];
          }
          sum_x += part_x;
          sum_s += part_s;
        }
        gx[p] = sum_x / area;
        gs[p] = sum_s / area;
      }
    });
  });
  return {pooled_x, pooled_s};
}

// Gradients of r and s from those of x and of the two poolings.
inline std::tuple<Tensor, Tensor> join_backward(const Tensor& g, const Tensor& pooled_x,
                                         const Tensor& pooled_s, const Tensor& x) {
  check(x, {g, x});
  const Shape shape(x);
  Tensor dr = at::empty_like(x), ds = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "join_backward", [&] {
    const auto *pg = g.const_data_ptr<scalar_t>(), *px = x.const_data_ptr<scalar_t>();
    const auto* gx = pooled_x.const_data_ptr<scalar_t>();
    const auto* gs = pooled_s.const_data_ptr<scalar_t>();
    auto *pr = dr.data_ptr<scalar_t>(), *ps = ds.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      const int64_t area = shape.area();
      for (int64_t p = first; p < last; ++p) {
        const scalar_t of_x = gx[p] / area, of_s = gs[p] / area;
        for (int64_t i = p * area; i < (p + 1) * area; ++i) {
          const scalar_t v = px[i] > 0 ? pg[i] + of_x : scalar_t(0);
          pr[i] = v;
          ps[i] = v + of_s;
        }
      }
    });
  });
  return {dr, ds};
}

}  // namespace mmdla
