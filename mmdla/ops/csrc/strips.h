// Maps in strips of rows that stay in the cache, and 3x3 correlations over them.
//
// A strip holds the rows of one unit of planes as they are computed with: of a plane of an NCHW map
// value by value, of a channels_last map with the unit's planes side by side, so that in both a row
// is a row of numbers and a step to the next column is a fixed distance. The rows have zeros on
// either side, so that the nine neighbours of any place are at nine fixed distances. Four rows are
// worked on at a time: of the six rows of neighbours that they have, every vector is loaded once.
#pragma once

#include <deque>

#include "maps.h"

namespace mmdla {
namespace {

// Rows of a strip; `more` rows follow those of the map.
template <typename M>
inline int64_t strip_rows(const Shape& shape, int64_t more = 0) {
  constexpr int64_t places = M::last ? 256 : 1024;
  const int64_t rows = std::max<int64_t>(4, places / (shape.width + 2) / 4 * 4);
  return std::min(rows, shape.height + more);
}

// The planes of a unit in a map. Columns are counted in numbers of a strip, so by M::planes.
template <typename M, typename T = const typename M::T>
struct View {
  using V = typename M::V;
  T* data;
  int64_t width, pixel, count;
  View(T* map, const Shape& shape, const Planes<M>& planes)
      : data(map + planes.offset),
        width(shape.width),
        pixel(M::last ? shape.channels : 1),
        count(planes.count) {}

  T* at(int64_t row, int64_t column) const {
    return data + (row * width + column / M::planes) * pixel;
  }
  V load(int64_t row, int64_t column) const {
    return load_part<typename M::T>(at(row, column), M::last ? count : width);
  }
  void store(V value, int64_t row, int64_t column) const {
    store_part<typename M::T>(value, M::last ? count : width, at(row, column));
  }
};

// Rows first - 1 to first + size of a map; rows outside of the map are zero.
template <typename M>
class Strip {
  using A = typename M::A;

 public:
  Strip(const Shape& shape, int64_t size)
      : height_(shape.height),
        length_(shape.width * M::planes),
        size_(size),
        stride_((length_ + M::lanes) / M::lanes * M::lanes),
        data_((size + 2) * stride_ + 6 * M::lanes, A(0)) {
    const auto misplaced = reinterpret_cast<uintptr_t>(data_.data()) % 64 / sizeof(A);
    first_ = data_.data() + 2 * M::lanes + 64 / sizeof(A) - misplaced + stride_;
  }
  Strip(const Strip&) = delete;

  int64_t length() const { return length_; }
  int64_t stride() const { return stride_; }

  // Row i of the strip, from -1 to size, at column 0.
  A* row(int64_t i) { return first_ + i * stride_; }

  void store(Vec<A> value, int64_t i, int64_t column) {
    store_part(value, length_, row(i) + column);
  }

  // Go to rows from `first` on of a map whose numbers are load(row, column).
  template <typename F>
  void move_to(int64_t first, F load) {
    int64_t have = 0;  // rows -1 to have - 1 are there
    if (first == 0) {
      clear(-1);
    } else {
      keep_last_two();
      have = 1;
    }
    const int64_t known = std::clamp<int64_t>(height_ - first, have, size_ + 1);
    const int64_t length = length_, stride = stride_;
    A* const to = first_;
    for (int64_t i = have; i < known; ++i) {
      over_columns<A>(length, [&](int64_t c) {
        store_part(load(first + i, c), length, to + i * stride + c);
      });
    }
    for (int64_t i = known; i <= size_; ++i) clear(i);
  }
  void move_to(int64_t first, const View<M>& map) {
    move_to(first, [map](int64_t row, int64_t c) { return map.load(row, c); });
  }

  // The last two rows become the first two.
  void keep_last_two() { std::copy_n(row(size_ - 1), 2 * stride_, row(-1)); }

  void clear(int64_t i) { std::fill_n(row(i), length_, A(0)); }

 private:
  int64_t height_, length_, size_, stride_;
  std::vector<A> data_;
  A* first_;
};

// Work through all units strip by strip, with one State(args...) for each of those that share lines
// of the cache: start(Planes), step(first row) for every strip up to `rows`, finish().
template <typename M, typename State, typename... Args>
void over_strips(const Shape& shape, int64_t size, int64_t rows, const Args&... args) {
  const int64_t together = M::planes * M::units;
  const int64_t groups = (shape.channels + together - 1) / together;
  const int64_t grain = std::max<int64_t>(1, 32768 / (shape.area() * together));
  at::parallel_for(0, shape.batch * groups, grain, [&](int64_t begin, int64_t end) {
    std::deque<State> states;
    for (int64_t i = 0; i < M::units; ++i) states.emplace_back(shape, size, args...);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t from = group % groups * together;
      const int64_t count = std::min(M::units, (shape.channels - from - 1) / M::planes + 1);
      for (int64_t i = 0; i < count; ++i) {
        states[i].start(Planes<M>(shape, group / groups, from + i * M::planes));
      }
      for (int64_t first = 0; first < rows; first += size) {
        for (int64_t i = 0; i < count; ++i) states[i].step(first);
      }
      for (int64_t i = 0; i < count; ++i) states[i].finish();
    }
  });
}

template <typename M>
struct Taps {  // nine weights of a unit
  typename M::Lane w[9];
  Taps() = default;
  Taps(const typename M::A* weights, const Planes<M>& planes) {
    for (int k = 0; k < 9; ++k) {
      if constexpr (M::last) {
        w[k] = typename M::V{};
        for (int64_t i = 0; i < planes.count; ++i) w[k][i] = weights[9 * i + k];
      } else {
        w[k] = weights[k];
      }
    }
  }
  Taps flipped() const {
    Taps reversed;
    for (int k = 0; k < 9; ++k) reversed.w[k] = w[8 - k];
    return reversed;
  }
};

// sums[n][r] += correlation of taps[n] at row r of `here`, for R rows and N sets of weights
template <typename M, int R, int N>
inline __attribute__((always_inline)) void add_correlations(const typename M::A* here,
                                                            int64_t stride, const Taps<M>* taps,
                                                            typename M::V (*sums)[R]) {
#pragma GCC unroll 6
  for (int j = -1; j <= R; ++j) {
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
      const typename M::V v = load(here + j * stride + (k - 1) * M::planes);
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
template <typename M, int R>
inline __attribute__((always_inline)) void add_products_of_rows(const typename M::A* u,
                                                                const typename M::A* map,
                                                                int64_t stride,
                                                                typename M::V* acc) {
  typename M::V row[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) row[r] = load(u + r * stride);
#pragma GCC unroll 6
  for (int j = -1; j <= R; ++j) {
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
      const typename M::V v = load(map + j * stride + (k - 1) * M::planes);
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

// N sets of weights over one strip: N results.
template <typename M, int N>
struct Fan {
  static constexpr int results = N;
  const typename M::A* x;
  Taps<M> taps[N];
  template <int R>
  inline __attribute__((always_inline)) void add(int64_t place, int64_t stride,
                                                 typename M::V (*sums)[R]) const {
    add_correlations<M, R, N>(x + place, stride, taps, sums);
  }
};

// The sum of two correlations.
template <typename M>
struct DualConv {
  static constexpr int results = 1;
  Fan<M, 1> x, s;
  template <int R>
  inline __attribute__((always_inline)) void add(int64_t place, int64_t stride,
                                                 typename M::V (*sums)[R]) const {
    x.template add<R>(place, stride, sums);
    s.template add<R>(place, stride, sums);
  }
};

// f(row, column, result...) for all vectors of `rows` rows of a strip, see over_columns.
template <typename M, typename Conv, typename F>
inline void correlate_rows(const Conv& conv, const Strip<M>& strip, int64_t rows, F f) {
  const int64_t length = strip.length(), stride = strip.stride();
  by_four(rows, [&](int64_t h, auto count) {
    constexpr int R = decltype(count)::count;
    over_columns<typename M::A>(length, [&](int64_t c) {
      typename M::V sums[Conv::results][R] = {};
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

}  // namespace
}  // namespace mmdla
