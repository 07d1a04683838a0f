// Two depthwise 3x3 correlations with a kernel for every plane, summed:
//
//     o = kx * x + ks * s          x, s, o: (B, C, H, W)   kx, ks: (B, C, 9)   zero padding
//
// and what its backward pass needs. One plane (b, c) after another, in strips of rows that stay in
// the cache, so that every map is read once.

#pragma once

#include "add_relu_pool.h"
#include "strips.h"

namespace mmdla {
namespace {

// Both maps of a plane, strip by strip: f(first row, rows, o) with the correlations at those rows.
template <typename T, typename X, typename S, typename F>
inline void over_strips(const Shape& shape, Strip<T>& x, Strip<T>& s, int64_t size, X load_x,
                        S load_s, const T* kx, const T* ks, F f) {
  const DualConv<T> convs{{x.row(0), Taps<T>(kx)}, {s.row(0), Taps<T>(ks)}};
  for (int64_t first = 0; first < shape.height; first += size) {
    x.move_to(first, load_x);
    s.move_to(first, load_s);
    f(first, std::min(size, shape.height - first), convs);
  }
}

// o + bias of maps whose rows load_x(plane) fills and s; out may be what load_x reads.
template <typename T, typename X>
inline void write_dual_dwconv(const Shape& shape, X load_x, const T* s, const T* kx, const T* ks,
                            const T* bias, T* out) {
  const int64_t size = strip_rows(shape), width = shape.width;
  over_planes(shape, [&](int64_t begin, int64_t end) {
    Strip<T> of_x(shape, size), of_s(shape, size);
    for (int64_t p = begin; p < end; ++p) {
      const T shift = bias[p], *plane = s + p * shape.area();
      T* o = out + p * shape.area();
      over_strips(shape, of_x, of_s, size, load_x(p), rows_of(plane, width), kx + 9 * p,
                  ks + 9 * p, [&](int64_t first, int64_t rows, const DualConv<T>& convs) {
                    correlate_rows<T>(
                        convs, of_x.stride(), rows, width, [&](int64_t h, int64_t c, Vec<T> value) {
                          store_of_row(value + shift, width, o + (first + h) * width + c);
                        });
                  });
    }
  });
}

}  // namespace

// o + bias, bias: (B, C)
inline Tensor dual_dwconv(const Tensor& x, const Tensor& s, const Tensor& kx,
                                const Tensor& ks, const Tensor& bias) {
  check(x, {x, s});
  const Shape shape(x);
  Tensor out = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dual_dwconv", [&] {
    const auto* px = x.const_data_ptr<scalar_t>();
    const auto load = [&](int64_t p) { return rows_of(px + p * shape.area(), shape.width); };
    write_dual_dwconv<scalar_t>(shape, load, s.const_data_ptr<scalar_t>(),
                              kx.const_data_ptr<scalar_t>(), ks.const_data_ptr<scalar_t>(),
                              bias.const_data_ptr<scalar_t>(), out.data_ptr<scalar_t>());
  });
  return out;
}

// The same of x = relu(scale * r + shift + s), in the place of r if that is wanted, of which a strip
// keeps what it still needs. scale, shift: (B, C)
inline Tensor dual_dwconv_of_add_relu(const Tensor& r, const Tensor& s, const Tensor& scale,
                                      const Tensor& shift, const Tensor& kx, const Tensor& ks,
                                      const Tensor& bias, bool in_place) {
  check(r, {r, s});
  const Shape shape(r);
  Tensor out = in_place ? r : at::empty_like(r);
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "dual_dwconv_of_add_relu", [&] {
    const auto *pr = r.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    const auto load = [&](int64_t p) {
      return [&, p](int64_t h, int64_t rows, scalar_t* to, int64_t stride) {
        const int64_t place = p * shape.area() + h * shape.width;
        add_relu_rows(pr + place, ps + place, a[p], b[p], rows, shape.width, to, stride);
      };
    };
    write_dual_dwconv<scalar_t>(shape, load, ps, kx.const_data_ptr<scalar_t>(),
                                ks.const_data_ptr<scalar_t>(), bias.const_data_ptr<scalar_t>(),
                                out.data_ptr<scalar_t>());
  });
  return out;
}

// Mean of o in every plane and the sum of its squared deviations from it, each (B, C).
inline std::tuple<Tensor, Tensor> dual_dwconv_moments(const Tensor& x, const Tensor& s,
                                                    const Tensor& kx, const Tensor& ks) {
  check(x, {x, s});
  const Shape shape(x);
  Tensor mean = vectors(x), m2 = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dual_dwconv_moments", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    auto *pm = mean.data_ptr<scalar_t>(), *pv = m2.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape), width = shape.width;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size), of_s(shape, size);
      const Vec<scalar_t> last = new_in_last<scalar_t>(width);
      for (int64_t p = begin; p < end; ++p) {
        scalar_t shift = 0;  // near the mean, so that nothing cancels
        double sum = 0, squares = 0;
        over_strips(shape, of_x, of_s, size, rows_of(px + p * shape.area(), width),
                    rows_of(ps + p * shape.area(), width), wx + 9 * p, ws + 9 * p,
                    [&](int64_t first, int64_t rows, const DualConv<scalar_t>& convs) {
          const int64_t stride = of_x.stride();
          if (first == 0) {
            Vec<scalar_t> row = {};
            correlate_rows<scalar_t>(convs, stride, 1, width,
                                     [&](int64_t, int64_t c, Vec<scalar_t> o) {
              row += c + LANES<scalar_t> < width ? o : o * last;
            });
            shift = sum_of<scalar_t>(row) / width;
          }
          Vec<scalar_t> r1 = {}, r2 = {};
          correlate_rows<scalar_t>(convs, stride, rows, width,
                                   [&](int64_t, int64_t c, Vec<scalar_t> o) {
            const Vec<scalar_t> d = o - shift, own = c + LANES<scalar_t> < width ? d : d * last;
            r1 += own;
            r2 += own * own;
          });
          sum += sum_of<scalar_t>(r1);
          squares += sum_of<scalar_t>(r2);
        });
        pm[p] = shift + sum / shape.area();
        pv[p] = std::max(0.0, squares - sum * sum / shape.area());
      }
    });
  });
  return {mean, m2};
}

// Correlations of g with the shifted maps, (B, C, 9) each, and the sum of g, (B, C).
inline std::tuple<Tensor, Tensor, Tensor> dual_dwconv_correlate(const Tensor& g, const Tensor& x,
                                                              const Tensor& s) {
  check(x, {x, s, g});
  const Shape shape(x);
  Tensor cx = at::zeros({x.size(0), x.size(1), 9}, x.options()), cs = at::zeros_like(cx);
  Tensor sum = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "dual_dwconv_correlate", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto* pg = g.const_data_ptr<scalar_t>();
    auto *ox = cx.data_ptr<scalar_t>(), *os = cs.data_ptr<scalar_t>();
    auto* total = sum.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape), width = shape.width;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size), of_s(shape, size), of_g(shape, size);
      const int64_t stride = of_x.stride();
      for (int64_t p = begin; p < end; ++p) {
        const int64_t offset = p * shape.area();
        for (int64_t first = 0; first < shape.height; first += size) {
          const int64_t rows = std::min(size, shape.height - first);
          of_x.move_to(first, rows_of(px + offset, width));
          of_s.move_to(first, rows_of(ps + offset, width));
          of_g.move_to(first, rows_of(pg + offset, width));
          add_products<scalar_t>(of_g.row(0), of_x.row(0), stride, rows, width, ox + 9 * p);
          add_products<scalar_t>(of_g.row(0), of_s.row(0), stride, rows, width, os + 9 * p);
          total[p] += sum_of_rows<scalar_t>(of_g.row(0), stride, rows);
        }
      }
    });
  });
  return {cx, cs, sum};
}

namespace {

// With u = alpha g + beta o + gamma (all three (B, C)), the gradient that arrives at o:
// gradients of x and s (of x plus g if residual), correlations of u with the shifted maps, and the
// sum of u in every plane.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
    const Tensor& alpha, const Tensor& beta, const Tensor& gamma, bool residual) {
  check(x, {x, s, g});
  const Shape shape(x);
  Tensor dx = at::empty_like(x), ds = at::empty_like(x);
  Tensor cx = at::zeros({x.size(0), x.size(1), 9}, x.options()), cs = at::zeros_like(cx);
  Tensor sum = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "backward", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto* pg = g.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    const auto *a = alpha.const_data_ptr<scalar_t>(), *b = beta.const_data_ptr<scalar_t>();
    const auto* c = gamma.const_data_ptr<scalar_t>();
    auto *gx = dx.data_ptr<scalar_t>(), *gs = ds.data_ptr<scalar_t>();
    auto *ox = cx.data_ptr<scalar_t>(), *os = cs.data_ptr<scalar_t>();
    auto* total = sum.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape, 1), width = shape.width, height = shape.height;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size), of_s(shape, size);
      Behind<scalar_t> of_u(shape, size);
      const int64_t stride = of_x.stride();
      for (int64_t p = begin; p < end; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        const DualConv<scalar_t> convs{{of_x.row(0), tx}, {of_s.row(0), ts}};
        const Fan<scalar_t, 2> flipped{nullptr, {tx.flipped(), ts.flipped()}};
        const int64_t offset = p * shape.area();
        for (int64_t first = 0; first - 1 < height; first += size) {
          const int64_t rows = of_u.rows(first);
          of_u.move_to(first);
          if (rows > 0) {
            of_x.move_to(first, rows_of(px + offset, width));
            of_s.move_to(first, rows_of(ps + offset, width));
            const auto* here = pg + offset + first * width;
            const auto set = [&](int64_t h, int64_t column, Vec<scalar_t> o) {
              const auto arrived = load_of_row(here + h * width + column, width);
              store_of_row(a[p] * arrived + b[p] * o + c[p], width, of_u.row(h) + column);
            };
            if (b[p] != 0) {
              correlate_rows<scalar_t>(convs, stride, rows, width, set);
            } else {
              for (int64_t h = 0; h < rows; ++h) {
                over_columns<scalar_t>(width, [&](int64_t column) { set(h, column, Vec<scalar_t>{}); });
              }
            }
            add_products<scalar_t>(of_u.row(0), of_x.row(0), stride, rows, width, ox + 9 * p);
            add_products<scalar_t>(of_u.row(0), of_s.row(0), stride, rows, width, os + 9 * p);
            total[p] += sum_of_rows<scalar_t>(of_u.row(0), stride, rows);
          }
          of_u.gradients(first, flipped, [&](int64_t at, Vec<scalar_t> of_x, Vec<scalar_t> of_s) {
            if (residual) of_x += load_of_row(pg + offset + at, width);
            store_of_row(of_x, width, gx + offset + at);
            store_of_row(of_s, width, gs + offset + at);
          });
        }
      }
    });
  });
  return {dx, ds, cx, cs, sum};
}

}  // namespace

// Gradients of x, s, kx, ks and the bias from that of o.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_dwconv_backward(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks) {
  const Tensor zero = vectors(x);
  return backward(g, x, s, kx, ks, at::ones_like(zero), zero, zero, false);
}

// The same where alpha g + beta o + gamma arrives at o, and g besides at x.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> dual_dwconv_backward_normed(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
    const Tensor& alpha, const Tensor& beta, const Tensor& gamma) {
  return backward(g, x, s, kx, ks, alpha, beta, gamma, true);
}

}  // namespace mmdla
