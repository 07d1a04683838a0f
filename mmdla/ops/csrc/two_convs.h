// Two depthwise 3x3 correlations with a kernel for every plane, summed:
//
//     o = kx * x + ks * s          x, s, o: (B, C, H, W)   kx, ks: (B, C, 9)   zero padding
//
// and what its backward pass needs. One plane (b, c) after another, row by row, so that every map
// is read once. Rows are kept with a zero column on either side, in rings of the last few.

#pragma once

#include "join.h"

namespace mmdla {
namespace {

// The last rows of a map; row(h) is valid for the SIZE rows loaded last. Rows outside are zero.
template <typename T, int SIZE>
class Rows {
 public:
  Rows(int64_t height, int64_t width)
      : height_(height), width_(width), stride_(width + 2), data_(SIZE * (width + 2), T(0)) {}

  // Points at column 0; columns -1 and width are zero.
  T* row(int64_t h) { return data_.data() + ((h + SIZE) % SIZE) * stride_ + 1; }

  void load(const T* plane, int64_t h) {
    if (h < 0 || h >= height_) {
      std::memset(row(h), 0, width_ * sizeof(T));
    } else {
      std::memcpy(row(h), plane + h * width_, width_ * sizeof(T));
    }
  }

  // A row of relu(r + s).
  void load_joined(const T* r, const T* s, int64_t h) {
    if (h < 0 || h >= height_) return load(r, h);
    joined_row(r + h * width_, s + h * width_, width_, row(h));
  }

 private:
  int64_t height_, width_, stride_;
  std::vector<T> data_;
};

template <typename T>
struct Taps {  // nine weights in registers
  T w[9];
  explicit Taps(const T* weights) { std::memcpy(w, weights, sizeof(w)); }
  inline T at(const T* above, const T* here, const T* below, int64_t i) const {
    return w[0] * above[i - 1] + w[1] * above[i] + w[2] * above[i + 1] + w[3] * here[i - 1] +
           w[4] * here[i] + w[5] * here[i + 1] + w[6] * below[i - 1] + w[7] * below[i] +
           w[8] * below[i + 1];
  }
};

template <typename T>
Taps<T> flipped(const Taps<T>& taps) {
  T w[9];
  for (int k = 0; k < 9; ++k) w[k] = taps.w[8 - k];
  return Taps<T>(w);
}

// o of row h, from rows h-1, h, h+1 of both maps.
template <typename T, int SIZE>
inline void two_convs_row(Rows<T, SIZE>& x, Rows<T, SIZE>& s, const Taps<T>& kx,
                          const Taps<T>& ks, int64_t h, int64_t width, T* out) {
  const T *xa = x.row(h - 1), *xh = x.row(h), *xb = x.row(h + 1);
  const T *sa = s.row(h - 1), *sh = s.row(h), *sb = s.row(h + 1);
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) out[i] = kx.at(xa, xh, xb, i) + ks.at(sa, sh, sb, i);
}

// Two correlations of the same three rows.
template <typename T>
inline void convs_row(const T* above, const T* here, const T* below, const Taps<T>& first,
                      const Taps<T>& second, int64_t width, T* __restrict__ out1,
                      T* __restrict__ out2) {
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) {
    out1[i] = first.at(above, here, below, i);
    out2[i] = second.at(above, here, below, i);
  }
}

// sums[k] += sum_i g[i] * map[h + k / 3 - 1][i + k % 3 - 1]
template <typename T, int SIZE>
inline void correlate_row(const T* g, Rows<T, SIZE>& map, int64_t h, int64_t width, T* sums) {
  const T *a = map.row(h - 1), *m = map.row(h), *b = map.row(h + 1);
  T r[9] = {};
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) {
    r[0] += g[i] * a[i - 1];
    r[1] += g[i] * a[i];
    r[2] += g[i] * a[i + 1];
    r[3] += g[i] * m[i - 1];
    r[4] += g[i] * m[i];
    r[5] += g[i] * m[i + 1];
    r[6] += g[i] * b[i - 1];
    r[7] += g[i] * b[i];
    r[8] += g[i] * b[i + 1];
  }
  for (int k = 0; k < 9; ++k) sums[k] += r[k];
}

}  // namespace

// o + bias, bias: (B, C)
inline Tensor two_convs_forward(const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
               const Tensor& bias) {
  check(x, {x, s});
  const Shape shape(x);
  Tensor out = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "two_convs_forward", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    const auto* b = bias.const_data_ptr<scalar_t>();
    auto* po = out.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      Rows<scalar_t, 3> rx(shape.height, shape.width), rs(shape.height, shape.width);
      for (int64_t p = first; p < last; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        const auto *x0 = px + p * shape.area(), *s0 = ps + p * shape.area();
        for (int64_t h = -1; h < 1; ++h) rx.load(x0, h), rs.load(s0, h);
        for (int64_t h = 0; h < shape.height; ++h) {
          rx.load(x0, h + 1), rs.load(s0, h + 1);
          auto* row = po + p * shape.area() + h * shape.width;
          two_convs_row(rx, rs, tx, ts, h, shape.width, row);
          for (int64_t i = 0; i < shape.width; ++i) row[i] += b[p];
        }
      }
    });
  });
  return out;
}

// The same of x = relu(r + s), in the place of r: a row is read before the one above is written.
inline Tensor two_convs_joined(const Tensor& r, const Tensor& s, const Tensor& kx,
                               const Tensor& ks, const Tensor& bias) {
  check(r, {r, s});
  const Shape shape(r);
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "two_convs_joined", [&] {
    auto* pr = r.data_ptr<scalar_t>();
    const auto* ps = s.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    const auto* b = bias.const_data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      Rows<scalar_t, 3> rx(shape.height, shape.width), rs(shape.height, shape.width);
      for (int64_t p = first; p < last; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        auto* r0 = pr + p * shape.area();
        const auto* s0 = ps + p * shape.area();
        for (int64_t h = -1; h < 1; ++h) rx.load_joined(r0, s0, h), rs.load(s0, h);
        for (int64_t h = 0; h < shape.height; ++h) {
          rx.load_joined(r0, s0, h + 1), rs.load(s0, h + 1);
          auto* row = r0 + h * shape.width;
          two_convs_row(rx, rs, tx, ts, h, shape.width, row);
          for (int64_t i = 0; i < shape.width; ++i) row[i] += b[p];
        }
      }
    });
  });
  return r;
}

// Mean of o in every plane and the sum of its squared deviations from it, each (B, C).
inline std::tuple<Tensor, Tensor> two_convs_moments(const Tensor& x, const Tensor& s, const Tensor& kx,
                                   const Tensor& ks) {
  check(x, {x, s});
  const Shape shape(x);
  Tensor mean = vectors(x), m2 = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "two_convs_moments", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    auto *pm = mean.data_ptr<scalar_t>(), *pv = m2.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      Rows<scalar_t, 3> rx(shape.height, shape.width), rs(shape.height, shape.width);
      std::vector<scalar_t> row(shape.width);
      for (int64_t p = first; p < last; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        const auto *x0 = px + p * shape.area(), *s0 = ps + p * shape.area();
        scalar_t shift = 0;  // near the mean, so that nothing cancels
        double sum = 0, squares = 0;
        for (int64_t h = -1; h < 1; ++h) rx.load(x0, h), rs.load(s0, h);
        for (int64_t h = 0; h < shape.height; ++h) {
          rx.load(x0, h + 1), rs.load(s0, h + 1);
          two_convs_row(rx, rs, tx, ts, h, shape.width, row.data());
          scalar_t r1 = 0, r2 = 0;
          if (h == 0) {
            for (int64_t i = 0; i < shape.width; ++i) r1 += row[i];
            shift = r1 / shape.width;
            r1 = 0;
          }
          for (int64_t i = 0; i < shape.width; ++i) {
            const scalar_t d = row[i] - shift;
            r1 += d;
            r2 += d * d;
          }
          sum += r1;
          squares += r2;
        }
        pm[p] = shift + sum / shape.area();
        pv[p] = std::max(0.0, squares - sum * sum / shape.area());
      }
    });
  });
  return {mean, m2};
}

// Correlations of g with the shifted maps, (B, C, 9) each, and the sum of g, (B, C).
inline std::tuple<Tensor, Tensor, Tensor> two_convs_correlate(const Tensor& g, const Tensor& x, const Tensor& s) {
  check(x, {x, s, g});
  const Shape shape(x);
  Tensor cx = at::zeros({x.size(0), x.size(1), 9}, x.options()), cs = at::zeros_like(cx);
  Tensor sum = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "two_convs_correlate", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto* pg = g.const_data_ptr<scalar_t>();
    auto *ox = cx.data_ptr<scalar_t>(), *os = cs.data_ptr<scalar_t>();
    auto* total = sum.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      Rows<scalar_t, 3> rx(shape.height, shape.width), rs(shape.height, shape.width);
      for (int64_t p = first; p < last; ++p) {
        const auto *x0 = px + p * shape.area(), *s0 = ps + p * shape.area();
        for (int64_t h = -1; h < 1; ++h) rx.load(x0, h), rs.load(s0, h);
        for (int64_t h = 0; h < shape.height; ++h) {
          rx.load(x0, h + 1), rs.load(s0, h + 1);
          const auto* row = pg + p * shape.area() + h * shape.width;
          correlate_row(row, rx, h, shape.width, ox + 9 * p);
          correlate_row(row, rs, h, shape.width, os + 9 * p);
          scalar_t r = 0;
          for (int64_t i = 0; i < shape.width; ++i) r += row[i];
          total[p] += r;
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
    auto* total = sum.data_ptr<scalar_t>();
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto* pg = g.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    const auto *a = alpha.const_data_ptr<scalar_t>(), *b = beta.const_data_ptr<scalar_t>();
    const auto* c = gamma.const_data_ptr<scalar_t>();
    auto *gx = dx.data_ptr<scalar_t>(), *gs = ds.data_ptr<scalar_t>();
    auto *ox = cx.data_ptr<scalar_t>(), *os = cs.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      // u runs one row ahead of the gradients, the maps one row ahead of u
      Rows<scalar_t, 3> rx(shape.height, shape.width), rs(shape.height, shape.width);
      Rows<scalar_t, 3> ru(shape.height, shape.width);
      const int64_t width = shape.width;
      for (int64_t p = first; p < last; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        const Taps<scalar_t> fx = flipped(tx), fs = flipped(ts);
        const int64_t offset = p * shape.area();
        for (int64_t h = -1; h < 1; ++h) rx.load(px + offset, h), rs.load(ps + offset, h);
        ru.load(nullptr, -1);
        for (int64_t h = 0; h <= shape.height; ++h) {
          rx.load(px + offset, h + 1), rs.load(ps + offset, h + 1);
          auto* u = ru.row(h);
          if (h == shape.height) {
            ru.load(nullptr, h);
          } else {
            const auto* row = pg + offset + h * width;
            if (b[p] == 0) {
              for (int64_t i = 0; i < width; ++i) u[i] = a[p] * row[i] + c[p];
            } else {
              two_convs_row(rx, rs, tx, ts, h, width, u);
              for (int64_t i = 0; i < width; ++i) u[i] = a[p] * row[i] + b[p] * u[i] + c[p];
            }
            correlate_row(u, rx, h, width, ox + 9 * p);
            correlate_row(u, rs, h, width, os + 9 * p);
            scalar_t r = 0;
            for (int64_t i = 0; i < width; ++i) r += u[i];
            total[p] += r;
          }
          if (h > 0) {
            const auto *ua = ru.row(h - 2), *uh = ru.row(h - 1), *ub = ru.row(h);
            auto *rowx = gx + offset + (h - 1) * width, *rows = gs + offset + (h - 1) * width;
            convs_row(ua, uh, ub, fx, fs, width, rowx, rows);
            if (residual) {
              const auto* row = pg + offset + (h - 1) * width;
              for (int64_t i = 0; i < width; ++i) rowx[i] += row[i];
            }
          }
        }
      }
    });
  });
  return {dx, ds, cx, cs, sum};
}

}  // namespace

// Gradients of x, s, kx, ks and the bias from that of o.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> two_convs_backward(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks) {
  const Tensor zero = vectors(x);
  return backward(g, x, s, kx, ks, at::ones_like(zero), zero, zero, false);
}

// The same where alpha g + beta o + gamma arrives at o, and g besides at x.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> two_convs_backward_normed(
    const Tensor& g, const Tensor& x, const Tensor& s, const Tensor& kx, const Tensor& ks,
    const Tensor& alpha, const Tensor& beta, const Tensor& gamma) {
  return backward(g, x, s, kx, ks, alpha, beta, gamma, true);
}

}  // namespace mmdla
