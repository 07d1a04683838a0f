// Two depthwise 3x3 correlations with a kernel for every plane, summed:
//
//     o = kx * x + ks * s          x, s, o: (B, C, H, W)   kx, ks: (B, C, 9)   zero padding
//
// and what its backward pass needs. One plane (b, c) after another, in strips of rows that stay in
// the cache, so that every map is read once. A strip has a zero column on either side of its rows:
// in memory the nine neighbours of a place are then at nine fixed distances, and a whole strip is
// one loop however short its rows. What that loop computes at the zero columns is not used.

#pragma once

#include "join.h"

namespace mmdla {
namespace {

constexpr int64_t STRIP = 1024;  // places of a strip

// Rows first - 1 to first + size of a map; rows outside of the map are zero.
template <typename T>
class Strip {
 public:
  Strip(const Shape& shape, int64_t size)
      : height_(shape.height), width_(shape.width), size_(size), stride_(shape.width + 2),
        data_((size + 2) * stride_, T(0)) {}

  int64_t stride() const { return stride_; }

  // Row i of the strip, from -1 to size, at column 0.
  T* row(int64_t i) { return data_.data() + (i + 1) * stride_ + 1; }
  const T* begin() { return row(0); }

  // Places from the first one of row 0 to the last one of row rows - 1.
  int64_t places(int64_t rows) const { return (rows - 1) * stride_ + width_; }

  // Go to rows from `first` on; load(h, row) fills a row of the map.
  template <typename F>
  void move_to(int64_t first, F load) {
    if (first == 0) {
      clear(-1);
      fill(0, 0, load);
    } else {
      std::copy_n(row(size_ - 1) - 1, 2 * stride_, row(-1) - 1);
    }
    for (int64_t i = 1; i <= size_; ++i) fill(i, first + i, load);
  }

  void clear(int64_t i) { std::fill_n(row(i), width_, T(0)); }

 private:
  template <typename F>
  void fill(int64_t i, int64_t h, F load) {
    if (h < height_) {
      load(h, row(i));
    } else {
      clear(i);
    }
  }

  int64_t height_, width_, size_, stride_;
  std::vector<T> data_;
};

inline int64_t strip_rows(const Shape& shape, int64_t more = 0) {
  const int64_t rows = (STRIP + shape.width + 1) / (shape.width + 2);
  return std::min(rows, shape.height + more);
}

// Copies a row; short rows are the rule, for which a call would cost more than the copy.
template <typename T>
inline void copy_row(const T* from, int64_t width, T* to) {
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) to[i] = from[i];
}

template <typename T>
inline void shifted_row(const T* from, T shift, int64_t width, T* to) {
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) to[i] = from[i] + shift;
}

// out = a x + b y + c
template <typename T>
inline void affine_row(const T* x, const T* y, T a, T b, T c, int64_t width, T* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) out[i] = a * x[i] + b * y[i] + c;
}

template <typename T>
struct Taps {  // nine weights in registers
  T w[9];
  explicit Taps(const T* weights) { std::memcpy(w, weights, sizeof(w)); }
  inline T at(const T* here, int64_t stride) const {
    const T *above = here - stride, *below = here + stride;
    return w[0] * above[-1] + w[1] * above[0] + w[2] * above[1] + w[3] * here[-1] +
           w[4] * here[0] + w[5] * here[1] + w[6] * below[-1] + w[7] * below[0] +
           w[8] * below[1];
  }
};

template <typename T>
Taps<T> flipped(const Taps<T>& taps) {
  T w[9];
  for (int k = 0; k < 9; ++k) w[k] = taps.w[8 - k];
  return Taps<T>(w);
}

// out[i] = correlation of a strip at place i
template <typename T>
inline void correlated(const T* map, Taps<T> taps, int64_t stride, int64_t places,
                       T* __restrict__ out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < places; ++i) out[i] = taps.at(map + i, stride);
}

// o of a strip: two loops, so that the weights of each stay in registers.
template <typename T>
inline void two_correlated(Strip<T>& x, Strip<T>& s, Taps<T> kx, Taps<T> ks, int64_t rows,
                           T* __restrict__ out) {
  const int64_t places = x.places(rows), stride = x.stride();
  correlated(x.begin(), kx, stride, places, out);
  const T* map = s.begin();
#pragma GCC ivdep
  for (int64_t i = 0; i < places; ++i) out[i] += ks.at(map + i, stride);
}

// sums[k] += sum_i u[i] map[i + distance of tap k]; u is zero at the zero columns
template <typename T>
inline void add_products(const T* u, const T* map, int64_t stride, int64_t places, T* sums) {
  const T *a = map - stride, *b = map + stride;
  T r[9] = {};
#pragma GCC ivdep
  for (int64_t i = 0; i < places; ++i) {
    r[0] += u[i] * a[i - 1];
    r[1] += u[i] * a[i];
    r[2] += u[i] * a[i + 1];
    r[3] += u[i] * map[i - 1];
    r[4] += u[i] * map[i];
    r[5] += u[i] * map[i + 1];
    r[6] += u[i] * b[i - 1];
    r[7] += u[i] * b[i];
    r[8] += u[i] * b[i + 1];
  }
  for (int k = 0; k < 9; ++k) sums[k] += r[k];
}

template <typename T>
inline T sum_of(const T* values, int64_t size) {
  T sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += values[i];
  return sum;
}

// Both maps of a plane, strip by strip: f(first row, rows, x, s) with the strips at those rows.
// load_x(h, row) and load_s(h, row) fill a row.
template <typename T, typename X, typename S, typename F>
inline void over_strips(const Shape& shape, Strip<T>& x, Strip<T>& s, int64_t size, X load_x,
                        S load_s, F f) {
  for (int64_t first = 0; first < shape.height; first += size) {
    x.move_to(first, load_x);
    s.move_to(first, load_s);
    f(first, std::min(size, shape.height - first));
  }
}

template <typename T>
inline auto rows_of(const T* plane, int64_t width) {
  return [=](int64_t h, T* row) { copy_row(plane + h * width, width, row); };
}

// o + bias of maps whose rows load_x(plane, h, row) fills and s.
template <typename T, typename X>
inline void write_two_convs(const Shape& shape, X load_x, const T* s, const T* kx, const T* ks,
                            const T* bias, T* out) {
  const int64_t size = strip_rows(shape), width = shape.width;
  over_planes(shape, [&](int64_t begin, int64_t end) {
    Strip<T> of_x(shape, size), of_s(shape, size);
    std::vector<T> o(size * of_x.stride());
    for (int64_t p = begin; p < end; ++p) {
      const Taps<T> tx(kx + 9 * p), ts(ks + 9 * p);
      const int64_t offset = p * shape.area();
      over_strips(
          shape, of_x, of_s, size, [&](int64_t h, T* row) { load_x(offset + h * width, row); },
          rows_of(s + offset, width), [&](int64_t first, int64_t rows) {
            two_correlated(of_x, of_s, tx, ts, rows, o.data());
            for (int64_t i = 0; i < rows; ++i) {
              const T* from = o.data() + i * of_x.stride();
              shifted_row(from, bias[p], width, out + offset + (first + i) * width);
            }
          });
    }
  });
}

}  // namespace

// o + bias, bias: (B, C)
inline Tensor two_convs_forward(const Tensor& x, const Tensor& s, const Tensor& kx,
                                const Tensor& ks, const Tensor& bias) {
  check(x, {x, s});
  const Shape shape(x);
  Tensor out = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "two_convs_forward", [&] {
    const auto* px = x.const_data_ptr<scalar_t>();
    const auto load = [&](int64_t place, scalar_t* row) {
      copy_row(px + place, shape.width, row);
    };
    write_two_convs<scalar_t>(shape, load, s.const_data_ptr<scalar_t>(),
                              kx.const_data_ptr<scalar_t>(), ks.const_data_ptr<scalar_t>(),
                              bias.const_data_ptr<scalar_t>(), out.data_ptr<scalar_t>());
  });
  return out;
}

// The same of x = relu(scale * r + shift + s), in the place of r, of which a strip keeps what it
// still needs. scale, shift: (B, C)
inline Tensor two_convs_joined(const Tensor& r, const Tensor& s, const Tensor& scale,
                               const Tensor& shift, const Tensor& kx, const Tensor& ks,
                               const Tensor& bias) {
  check(r, {r, s});
  const Shape shape(r);
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "two_convs_joined", [&] {
    auto* pr = r.data_ptr<scalar_t>();
    const auto* ps = s.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    const auto load = [&](int64_t place, scalar_t* row) {
      const int64_t p = place / shape.area();
      joined_row(pr + place, ps + place, a[p], b[p], shape.width, row);
    };
    write_two_convs<scalar_t>(shape, load, ps, kx.const_data_ptr<scalar_t>(),
                              ks.const_data_ptr<scalar_t>(), bias.const_data_ptr<scalar_t>(), pr);
  });
  return r;
}

// Mean of o in every plane and the sum of its squared deviations from it, each (B, C).
inline std::tuple<Tensor, Tensor> two_convs_moments(const Tensor& x, const Tensor& s,
                                                    const Tensor& kx, const Tensor& ks) {
  check(x, {x, s});
  const Shape shape(x);
  Tensor mean = vectors(x), m2 = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "two_convs_moments", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto *wx = kx.const_data_ptr<scalar_t>(), *ws = ks.const_data_ptr<scalar_t>();
    auto *pm = mean.data_ptr<scalar_t>(), *pv = m2.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape), width = shape.width;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size), of_s(shape, size);
      const int64_t stride = of_x.stride();
      std::vector<scalar_t> o(size * stride), inside(size * stride);
      for (int64_t i = 0; i < size * stride; ++i) inside[i] = i % stride < width;
      for (int64_t p = begin; p < end; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        scalar_t shift = 0;  // near the mean, so that nothing cancels
        double sum = 0, squares = 0;
        over_strips(
            shape, of_x, of_s, size, rows_of(px + p * shape.area(), width),
            rows_of(ps + p * shape.area(), width), [&](int64_t first, int64_t rows) {
              two_correlated(of_x, of_s, tx, ts, rows, o.data());
              if (first == 0) shift = sum_of(o.data(), width) / width;
              scalar_t r1 = 0, r2 = 0;
              const int64_t places = of_x.places(rows);
              for (int64_t i = 0; i < places; ++i) {
                const scalar_t d = (o[i] - shift) * inside[i];
                r1 += d;
                r2 += d * d;
              }
              sum += r1;
              squares += r2;
            });
        pm[p] = shift + sum / shape.area();
        pv[p] = std::max(0.0, squares - sum * sum / shape.area());
      }
    });
  });
  return {mean, m2};
}

// Correlations of g with the shifted maps, (B, C, 9) each, and the sum of g, (B, C).
inline std::tuple<Tensor, Tensor, Tensor> two_convs_correlate(const Tensor& g, const Tensor& x,
                                                              const Tensor& s) {
  check(x, {x, s, g});
  const Shape shape(x);
  Tensor cx = at::zeros({x.size(0), x.size(1), 9}, x.options()), cs = at::zeros_like(cx);
  Tensor sum = vectors(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "two_convs_correlate", [&] {
    const auto *px = x.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto* pg = g.const_data_ptr<scalar_t>();
    auto *ox = cx.data_ptr<scalar_t>(), *os = cs.data_ptr<scalar_t>();
    auto* total = sum.data_ptr<scalar_t>();
    const int64_t size = strip_rows(shape), width = shape.width;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size), of_s(shape, size), of_g(shape, size);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t offset = p * shape.area();
        over_strips(
            shape, of_x, of_s, size, rows_of(px + offset, width), rows_of(ps + offset, width),
            [&](int64_t first, int64_t rows) {
              const int64_t stride = of_x.stride(), places = of_x.places(rows);
              for (int64_t i = 0; i < rows; ++i) {
                copy_row(pg + offset + (first + i) * width, width, of_g.row(i));
              }
              add_products(of_g.begin(), of_x.begin(), stride, places, ox + 9 * p);
              add_products(of_g.begin(), of_s.begin(), stride, places, os + 9 * p);
              total[p] += sum_of(of_g.begin(), places);
            });
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
    // The strip of u is one row behind those of the maps: all of its rows are known, and the
    // gradients of the rows that have both neighbours follow.
    const int64_t size = strip_rows(shape, 1), width = shape.width, height = shape.height;
    over_planes(shape, [&](int64_t begin, int64_t end) {
      Strip<scalar_t> of_x(shape, size), of_s(shape, size), of_u(shape, size);
      const int64_t stride = of_x.stride();
      std::vector<scalar_t> o(size * stride), more(size * stride);
      for (int64_t p = begin; p < end; ++p) {
        const Taps<scalar_t> tx(wx + 9 * p), ts(ws + 9 * p);
        const Taps<scalar_t> fx = flipped(tx), fs = flipped(ts);
        const int64_t offset = p * shape.area();
        for (int64_t first = 0; first - 1 < height; first += size) {
          if (first == 0) {
            of_u.clear(-1), of_u.clear(0);
          } else {
            std::copy_n(of_u.row(size - 1) - 1, 2 * stride, of_u.row(-1) - 1);
          }
          const int64_t rows = std::clamp<int64_t>(height - first, 0, size);
          if (rows > 0) {
            of_x.move_to(first, rows_of(px + offset, width));
            of_s.move_to(first, rows_of(ps + offset, width));
            if (b[p] != 0) two_correlated(of_x, of_s, tx, ts, rows, o.data());
          }
          for (int64_t i = 0; i < size; ++i) {  // u of row first + i
            auto* u = of_u.row(i + 1);
            if (i >= rows) {
              of_u.clear(i + 1);
              continue;
            }
            const auto *row = pg + offset + (first + i) * width, *own = o.data() + i * stride;
            if (b[p] == 0) {
              affine_row(row, row, a[p], scalar_t(0), c[p], width, u);  // o is not known
            } else {
              affine_row(row, own, a[p], b[p], c[p], width, u);
            }
          }
          if (rows > 0) {
            const int64_t places = of_x.places(rows);
            add_products<scalar_t>(of_u.row(1), of_x.begin(), stride, places, ox + 9 * p);
            add_products<scalar_t>(of_u.row(1), of_s.begin(), stride, places, os + 9 * p);
            total[p] += sum_of<scalar_t>(of_u.row(1), places);
          }
          // gradients of rows first - 1 + i
          const int64_t start = first == 0, stop = std::min(size, height + 1 - first);
          if (start >= stop) continue;
          const int64_t places = of_x.places(stop - start);
          correlated<scalar_t>(of_u.row(start), fx, stride, places, o.data());
          correlated<scalar_t>(of_u.row(start), fs, stride, places, more.data());
          for (int64_t i = start; i < stop; ++i) {
            const int64_t place = offset + (first - 1 + i) * width, from = (i - start) * stride;
            copy_row(o.data() + from, width, gx + place);
            copy_row(more.data() + from, width, gs + place);
          }
          if (!residual) continue;
          const int64_t above = offset + (first - 1 + start) * width;
          const int64_t below = offset + (first - 1 + stop) * width;
          for (int64_t i = above; i < below; ++i) gx[i] += pg[i];
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
