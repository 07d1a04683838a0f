// Planes in strips of rows that stay in the cache, and 3x3 correlations over them.
//
// The rows of a strip have zeros on either side, so that the nine neighbours of any place are at
// nine fixed distances. Four rows are worked on at a time: of the six rows of neighbours that they
// have, every vector is loaded once for all of them.
#pragma once

#include <algorithm>
#include <vector>

#include "planes.h"
#include "rows.h"

namespace mmdla {
namespace {

constexpr int64_t STRIP = 1024;  // places of a strip

inline int64_t strip_rows(const Shape& shape, int64_t more = 0) {
  const int64_t rows = std::max<int64_t>(4, STRIP / (shape.width + 2) / 4 * 4);
  return std::min(rows, shape.height + more);
}

// Rows first - 1 to first + size of a map; rows outside of the map are zero.
template <typename T>
class Strip {
 public:
  Strip(const Shape& shape, int64_t size)
      : height_(shape.height),
        width_(shape.width),
        size_(size),
        stride_((shape.width + LANES<T>) / LANES<T> * LANES<T>),
        data_((size + 2) * stride_ + 4 * LANES<T>, T(0)) {
    const auto misplaced = reinterpret_cast<uintptr_t>(data_.data()) % 64 / sizeof(T);
    first_ = data_.data() + 64 / sizeof(T) - misplaced + stride_;
  }
  Strip(const Strip&) = delete;

  int64_t stride() const { return stride_; }

  // Row i of the strip, from -1 to size, at column 0.
  T* row(int64_t i) { return first_ + i * stride_; }

  // Go to rows from `first` on; load(h, rows, to, stride) fills rows h to h + rows - 1 of the map.
  template <typename F>
  void move_to(int64_t first, F load) {
    int64_t have = 0;  // rows -1 to have - 1 are there
    if (first == 0) {
      clear(-1);
    } else {
      keep_last_two();
      have = 1;
    }
    const int64_t known = std::clamp<int64_t>(height_ - first - have, 0, size_ + 1 - have);
    if (known > 0) load(first + have, known, row(have), stride_);
    for (int64_t i = have + known; i <= size_; ++i) clear(i);
  }

  // The last two rows become the first two.
  void keep_last_two() { std::copy_n(row(size_ - 1), 2 * stride_, row(-1)); }

  void clear(int64_t i) { std::fill_n(row(i), width_, T(0)); }

 private:
  int64_t height_, width_, size_, stride_;
  std::vector<T> data_;
  T* first_;
};

// Fills rows of a strip from a plane.
template <typename T>
inline auto rows_of(const T* plane, int64_t width) {
  return [=](int64_t h, int64_t rows, T* to, int64_t stride) {
    for (int64_t i = 0; i < rows; ++i) copy_row(plane + (h + i) * width, width, to + i * stride);
  };
}

template <typename T>
struct Taps {  // nine weights in registers
  T w[9];
  explicit Taps(const T* weights) { std::memcpy(w, weights, sizeof(w)); }
  Taps flipped() const {
    T reversed[9];
    for (int k = 0; k < 9; ++k) reversed[k] = w[8 - k];
    return Taps(reversed);
  }
};

// sums[n][r] += correlation of taps[n] at row r of `here`, for R rows and N sets of weights
template <int R, int N, typename T>
inline __attribute__((always_inline)) void add_correlations(const T* here, int64_t stride,
                                                            const Taps<T>* taps,
                                                            Vec<T> (*sums)[R]) {
#pragma GCC unroll 6
  for (int j = -1; j <= R; ++j) {
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
      const Vec<T> v = load(here + j * stride + k - 1);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if (j - r < -1 || j - r > 1) continue;
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[n][r] += taps[n].w[3 * (j - r + 1) + k] * v;
      }
    }
  }
}

// acc[tap] += u * map at the tap, over R rows
template <int R, typename T>
inline __attribute__((always_inline)) void add_products_of_rows(const T* u, const T* map,
                                                                int64_t stride, Vec<T>* acc) {
  Vec<T> row[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) row[r] = load(u + r * stride);
#pragma GCC unroll 6
  for (int j = -1; j <= R; ++j) {
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
      const Vec<T> v = load(map + j * stride + k - 1);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if (j - r >= -1 && j - r <= 1) acc[3 * (j - r + 1) + k] += row[r] * v;
      }
    }
  }
}

template <int R>
struct Rows {  // as a type, to call generic lambdas with it
  static constexpr int count = R;
};

// f(first row, Rows<R>) over all rows, up to four at a time.
template <typename F>
inline __attribute__((always_inline)) void by_four(int64_t rows, F f) {
  int64_t h = 0;
  for (; h + 4 <= rows; h += 4) f(h, Rows<4>{});
  if (rows - h == 3) f(h, Rows<3>{});
  if (rows - h == 2) f(h, Rows<2>{});
  if (rows - h == 1) f(h, Rows<1>{});
}

// One map with its weights: one result.
template <typename T>
struct OneConv {
  static constexpr int results = 1;
  const T* x;
  Taps<T> taps;
  template <int R>
  inline void add(int64_t place, int64_t stride, Vec<T> (*sums)[R]) const {
    add_correlations<R, 1>(x + place, stride, &taps, sums);
  }
};

// The sum of two.
template <typename T>
struct DualConv {
  static constexpr int results = 1;
  OneConv<T> x, s;
  template <int R>
  inline void add(int64_t place, int64_t stride, Vec<T> (*sums)[R]) const {
    x.template add<R>(place, stride, sums);
    s.template add<R>(place, stride, sums);
  }
};

// One map with N sets of weights: N results.
template <typename T, int N>
struct Fan {
  static constexpr int results = N;
  const T* x;
  Taps<T> taps[N];
  template <int R>
  inline void add(int64_t place, int64_t stride, Vec<T> (*sums)[R]) const {
    add_correlations<R, N>(x + place, stride, taps, sums);
  }
};

// f(row, column, result...) for all vectors of `rows` rows, see over_columns.
template <typename T, typename Conv, typename F>
inline void correlate_rows(const Conv& conv, int64_t stride, int64_t rows, int64_t width, F f) {
  by_four(rows, [&](int64_t h, auto count) {
    constexpr int R = decltype(count)::count;
    over_columns<T>(width, [&](int64_t c) {
      Vec<T> sums[Conv::results][R] = {};
      conv.template add<R>(h * stride + c, stride, sums);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if constexpr (Conv::results == 1) {
          f(h + r, c, sums[0][r]);
        } else {
          f(h + r, c, sums[0][r], sums[1][r]);
        }
      }
    });
  });
}

// sums[tap] += products of u, which is zero beside its rows, with the map at the tap. Not inlined, so
// that the sums stay in registers.
template <typename T>
__attribute__((noinline)) void add_products(const T* u, const T* map, int64_t stride, int64_t rows, int64_t width,
                         T* sums) {
  Vec<T> acc[9] = {};
  by_four(rows, [&](int64_t h, auto count) {
    constexpr int R = decltype(count)::count;
    for (int64_t c = 0; c < width; c += LANES<T>) {
      add_products_of_rows<R>(u + h * stride + c, map + h * stride + c, stride, acc);
    }
  });
  for (int k = 0; k < 9; ++k) sums[k] += sum_of<T>(acc[k]);
}

// The sum of u, which is zero beside its rows.
template <typename T>
inline T sum_of_rows(const T* u, int64_t stride, int64_t rows) {
  Vec<T> sum = {}, other = {};  // two, since an addition waits for the one before
  int64_t i = 0;
  for (; i + LANES<T> < rows * stride; i += 2 * LANES<T>) {
    sum += load(u + i);
    other += load(u + i + LANES<T>);
  }
  if (i < rows * stride) sum += load(u + i);
  return sum_of<T>(sum + other);
}

// The gradients of correlated maps from u, the gradient of what they gave, strip by strip. The strip
// of u is one row behind those of the maps: all of its rows are known, and the gradients of the rows
// that have both neighbours follow.
template <typename T>
class Behind {
 public:
  Behind(const Shape& shape, int64_t size) : shape_(shape), size_(size), u_(shape, size) {}

  // Row first + i of u.
  T* row(int64_t i) { return u_.row(i + 1); }

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

  // f(place in the plane, vectors...) for the now known rows of the gradients of the maps that had
  // these weights.
  template <int N, typename F>
  void gradients(int64_t first, const Fan<T, N>& flipped, F f) {
    const int64_t start = first == 0, stop = std::min(size_, shape_.height + 1 - first);
    Fan<T, N> conv = flipped;
    conv.x = u_.row(start);
    const int64_t above = (first - 1 + start) * shape_.width;
    correlate_rows<T>(conv, u_.stride(), std::max<int64_t>(0, stop - start), shape_.width,
                      [&](int64_t h, int64_t c, auto... values) {
                        f(above + h * shape_.width + c, values...);
                      });
  }

 private:
  Shape shape_;
  int64_t size_;
  Strip<T> u_;
};

}  // namespace
}  // namespace mmdla
