// A depthwise 3x3 correlation and the pooling of its result, in one pass:
//
//     v = k * x, GAP(v)          x, v: (B, C, H, W)   k: (C, 9)   zero padding
//
// and its backward pass.

#pragma once

#include "strips.h"

namespace mmdla {

// v, and GAP(v) (B, C)
inline std::tuple<Tensor, Tensor> dwconv_pool(const Tensor& x, const Tensor& k) {
  check(x, {x});
  const Shape shape(x);
  const int64_t channels = x.size(1);
  Tensor out = at::empty_like(x), pooled = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dwconv_pool", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *pk = k.const_data_ptr<scalar_t>();
    auto *po = out.data_ptr<scalar_t>(), *pool = pooled.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape), width = shape.width;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size);
      const Vec<scalar_t> last = new_in_last<scalar_t>(width);
      for (int64_t p = begin; p < end; ++p) {
        const OneConv<scalar_t> conv{of_x.row(0), Taps<scalar_t>(pk + 9 * (p % channels))};
        double sum = 0;
        for (int64_t first = 0; first < shape.height; first += size) {
          const int64_t rows = std::min(size, shape.height - first);
          auto* here = po + p * shape.area() + first * width;
          of_x.move_to(first, rows_of(px + p * shape.area(), width));
          Vec<scalar_t> part = {};
          correlate_rows<scalar_t>(conv, of_x.stride(), rows, width,
                                   [&](int64_t h, int64_t c, Vec<scalar_t> v) {
            part += c + LANES<scalar_t> < width ? v : v * last;
            store_of_row(v, width, here + h * width + c);
          });
          sum += sum_of<scalar_t>(part);
        }
        pool[p] = sum / shape.area();
      }
    });
  });
  return {out, pooled};
}

// Gradients of x and, plane by plane, of k (B, C, 9) from those of v and of GAP(v).
inline std::tuple<Tensor, Tensor> dwconv_pool_backward(const Tensor& g, const Tensor& of_pooled,
                                                       const Tensor& x, const Tensor& k) {
  check(x, {x, g});
  const Shape shape(x);
  const int64_t channels = x.size(1);
  Tensor dx = at::empty_like(x), dk = at::zeros({x.size(0), channels, 9}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dwconv_pool_backward", [&] {
    const auto *pg = g.const_data_ptr<scalar_t>(), *px = x.const_data_ptr<scalar_t>();
    const auto *pk = k.const_data_ptr<scalar_t>(), *pp = of_pooled.const_data_ptr<scalar_t>();
    auto *gx = dx.data_ptr<scalar_t>(), *gk = dk.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape, 1), width = shape.width;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size);
      Behind<scalar_t> of_u(shape, size);
      for (int64_t p = begin; p < end; ++p) {
        const Fan<scalar_t, 1> flipped{nullptr, {Taps<scalar_t>(pk + 9 * (p % channels)).flipped()}};
        const scalar_t shift = pp[p] / shape.area();
        const int64_t offset = p * shape.area();
        for (int64_t first = 0; first - 1 < shape.height; first += size) {
          const int64_t rows = of_u.rows(first);
          of_u.move_to(first);
          if (rows > 0) {
            of_x.move_to(first, rows_of(px + offset, width));
            const auto* here = pg + offset + first * width;
            for (int64_t h = 0; h < rows; ++h) {
              over_columns<scalar_t>(width, [&](int64_t c) {
                const auto u = load_of_row(here + h * width + c, width) + shift;
                store_of_row<scalar_t>(u, width, of_u.row(h) + c);
              });
            }
            add_products<scalar_t>(of_u.row(0), of_x.row(0), of_x.stride(), rows, width,
                                   gk + 9 * p);
          }
          of_u.gradients(first, flipped, [&](int64_t at, Vec<scalar_t> of_x) {
            store_of_row(of_x, width, gx + offset + at);
          });
        }
      }
    });
  });
  return {dx, dk};
}

}  // namespace mmdla
