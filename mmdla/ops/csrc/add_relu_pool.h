// The end of a residual block and the poolings that layer attention starts with, in one pass:
//
//     x = relu(scale * r + shift + s), GAP(x), GAP(s)          scale, shift: (B, C)
//
// where scale and shift are a norm layer's that the residual has yet to pass.

#pragma once

#include "planes.h"

namespace mmdla {
namespace {

// x of rows, which may be r itself; NaN stays. Rounded as PyTorch's batch norm and sum round, so that
// an attention which starts as the identity leaves the plain network's features bit for bit.
template <typename T>
__attribute__((noinline, optimize("no-associative-math"))) void add_relu_rows(
    const T* r, const T* s, T scale, T shift, int64_t rows, int64_t width, T* x, int64_t stride) {
  for (int64_t h = 0; h < rows; ++h, r += width, s += width, x += stride) {
#pragma GCC ivdep
    for (int64_t i = 0; i < width; ++i) {
      const T normed = r[i] * scale + shift;
      const T v = normed + s[i];
      x[i] = v < 0 ? T(0) : v;
    }
  }
}

// Sums of x and of s over a plane; x is written to `out` if STORED, which may be r.
template <bool STORED, typename T>
inline std::tuple<double, double> add_relu_sums(const T* r, const T* s, T scale, T shift,
                                                int64_t area, T* out) {
  double sum_x = 0, sum_s = 0;
  T buffer[1024];
  for (int64_t start = 0; start < area; start += 1024) {  // short sums stay exact
    const int64_t size = std::min<int64_t>(area - start, 1024);
    T* x = buffer;
    if constexpr (STORED) x = out + start;
    add_relu_rows(r + start, s + start, scale, shift, 1, size, x, size);
    T part_x = 0, part_s = 0;
    for (int64_t i = 0; i < size; ++i) {
      part_x += x[i];
      part_s += s[start + i];
    }
    sum_x += part_x;
    sum_s += part_s;
  }
  return {sum_x, sum_s};
}

// dr is zero where x is, ds is dr plus a constant and, if ADDED, what is in `more`. The sum is formed
// in any case: a load that depends on a condition would keep the loop from being vectorized.
template <bool ADDED, typename T>
inline void backward_row(const T* g, const T* x, const T* more, T grad_x, T grad_s, int64_t size,
                         T* __restrict__ dr, T* __restrict__ ds) {
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) {
    const T sum = g[i] + grad_x;
    const T v = x[i] > 0 ? sum : T(0);
    dr[i] = v;
    if constexpr (ADDED) {
      ds[i] = v + grad_s + more[i];
    } else {
      ds[i] = v + grad_s;
    }
  }
}

template <bool STORED>
std::tuple<Tensor, Tensor> add_relu_pools(const Tensor& r, const Tensor& s, const Tensor& scale,
                                          const Tensor& shift, const Tensor& out) {
  check(r, {r, s, out});
  const Shape shape(r);
  Tensor pooled_x = vectors(r), pooled_s = vectors(r);
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "add_relu_pools", [&] {
    const auto *pr = r.const_data_ptr<scalar_t>(), *ps = s.const_data_ptr<scalar_t>();
    const auto *a = scale.const_data_ptr<scalar_t>(), *b = shift.const_data_ptr<scalar_t>();
    auto *gx = pooled_x.data_ptr<scalar_t>(), *gs = pooled_s.data_ptr<scalar_t>();
    scalar_t* po = nullptr;
    if constexpr (STORED) po = out.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      const int64_t area = shape.area();
      for (int64_t p = first; p < last; ++p) {
        const auto [sum_x, sum_s] = add_relu_sums<STORED, scalar_t>(
            pr + p * area, ps + p * area, a[p], b[p], area, po + p * area);
        gx[p] = sum_x / area;
        gs[p] = sum_s / area;
      }
    });
  });
  return {pooled_x, pooled_s};
}

}  // namespace

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
  const Shape shape(x);
  Tensor dr = at::empty_like(x), ds = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "add_relu_pool_backward", [&] {
    const auto *pg = g.const_data_ptr<scalar_t>(), *px = x.const_data_ptr<scalar_t>();
    const auto* pm = more ? more->const_data_ptr<scalar_t>() : nullptr;
    const auto* gx = pooled_x.const_data_ptr<scalar_t>();
    const auto* gs = pooled_s.const_data_ptr<scalar_t>();
    auto *pr = dr.data_ptr<scalar_t>(), *ps = ds.data_ptr<scalar_t>();
    over_planes(shape, [&](int64_t first, int64_t last) {
      const int64_t area = shape.area();
      for (int64_t p = first; p < last; ++p) {
        const scalar_t grad_x = gx[p] / area, grad_s = gs[p] / area;
        const int64_t at = p * area;
        if (pm) {
          backward_row<true>(pg + at, px + at, pm + at, grad_x, grad_s, area, pr + at, ps + at);
        } else {
          backward_row<false>(pg + at, px + at, pm, grad_x, grad_s, area, pr + at, ps + at);
        }
      }
    });
  });
  return {dr, ds};
}

}  // namespace mmdla
