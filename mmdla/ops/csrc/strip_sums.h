// Sums over strips, and the strips of a backward pass.
#pragma once

#include "strips.h"

namespace mmdla {
namespace {

// A sum for every plane of a unit, in float64.
template <typename M>
struct Sum {
  double of[M::planes] = {};
  void add(typename M::V part) {
    for (int64_t i = 0; i < M::planes; ++i) {
      of[i] += M::last ? part[i] : sum_of<typename M::A>(part);
    }
  }
};

// total[tap] += products of u, which is zero beside its rows, with the map at the tap. Not inlined,
// so that the sums stay in registers.
template <typename M>
__attribute__((noinline)) void add_products(Strip<M>& of_u, int64_t first, Strip<M>& of_map,
                                            int64_t rows, typename M::V* total) {
  const typename M::A *u = of_u.row(first), *map = of_map.row(0);
  const int64_t stride = of_map.stride();
  typename M::V acc[9] = {};
  by_four(rows, [&](int64_t h, auto count) {
    constexpr int R = decltype(count)::count;
    for (int64_t c = 0; c < of_map.length(); c += M::lanes) {
      add_products_of_rows<M, R>(u + h * stride + c, map + h * stride + c, stride, acc);
    }
  });
  for (int k = 0; k < 9; ++k) total[k] += acc[k];
}

// The sum of rows from `first` on of u, which is zero beside them.
template <typename M>
inline typename M::V sum_of_rows(Strip<M>& of_u, int64_t first, int64_t rows) {
  const typename M::A* u = of_u.row(first);
  const int64_t size = rows * of_u.stride();
  typename M::V sum = {}, other = {};  // two, since an addition waits for the one before
  int64_t i = 0;
  for (; i + M::lanes < size; i += 2 * M::lanes) {
    sum += load(u + i);
    other += load(u + i + M::lanes);
  }
  if (i < size) sum += load(u + i);
  return sum + other;
}

// Write nine numbers for every plane of a unit, (B, C, 9).
template <typename M>
inline void write_taps(const typename M::V* sums, const Planes<M>& planes, typename M::A* to) {
  for (int64_t i = 0; i < planes.count; ++i) {
    for (int k = 0; k < 9; ++k) {
      to[9 * (planes.plane + i) + k] = M::last ? sums[k][i] : sum_of<typename M::A>(sums[k]);
    }
  }
}

// The gradients of correlated maps from u, the gradient of what they gave, strip by strip. The strip
// of u is one row behind those of the maps: all of its rows are known, and the gradients of the rows
// that have both neighbours follow. Row first + i of u is row i + 1 of its strip.
template <typename M>
class Behind {
  using V = typename M::V;

 public:
  Behind(const Shape& shape, int64_t size) : shape_(shape), size_(size), u_(shape, size) {}

  Strip<M>& strip() { return u_; }

  // Set row first + i of u.
  void store(V value, int64_t i, int64_t column) { u_.store(value, i + 1, column); }

  // To strip `first` of the maps; rows of it that are none of the map's are zero.
  void move_to(int64_t first) {
    if (first == 0) {
      u_.clear(-1), u_.clear(0);
    } else {
      u_.keep_last_two();
    }
    for (int64_t i = rows(first); i < size_; ++i) u_.clear(i + 1);
  }

  // Rows of strip `first` that are the map's.
  int64_t rows(int64_t first) const {
    return std::clamp<int64_t>(shape_.height - first, 0, size_);
  }

  // f(row of the map, column, vectors...) for the now known rows of the gradients of the maps that
  // had these weights.
  template <int N, typename F>
  void gradients(int64_t first, const Fan<M, N>& flipped, F f) {
    const int64_t start = first == 0, stop = std::min(size_, shape_.height + 1 - first);
    Fan<M, N> conv = flipped;
    conv.x = u_.row(start);
    correlate_rows<M>(
        conv, u_, std::max<int64_t>(0, stop - start),
        [&](int64_t h, int64_t c, auto... values) { f(first - 1 + start + h, c, values...); });
  }

 private:
  Shape shape_;
  int64_t size_;
  Strip<M> u_;
};

}  // namespace
}  // namespace mmdla
