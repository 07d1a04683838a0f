// Maps in pieces that stay in the cache, for what is computed value by value and for sums of it: a
// thousand values of a plane or, in channels_last, a few pixels of a unit of planes.
#pragma once

#include "maps.h"

namespace mmdla {
namespace {

constexpr int64_t PIECE = 1024;  // values of a plane
constexpr int64_t PIXELS = 1;  // more would be rows of the cache that get into each other's way
constexpr int64_t PART = 128;  // pixels whose values are added up in one number

inline int64_t parts_of(const Tensor& x) {
  const int64_t size = x.is_contiguous() ? PIECE : PART;
  return (x.size(2) * x.size(3) + size - 1) / size;
}

// Values of a plane in a part.
inline int64_t size_of_part(const Tensor& x, int64_t part) {
  const int64_t size = x.is_contiguous() ? PIECE : PART;
  return std::min(size, x.size(2) * x.size(3) - part * size);
}

// Room for partial sums of numbers like (B, C), or of another size: (parts, B, C).
inline Tensor partial_sums(const Tensor& x, at::IntArrayRef size) {
  std::vector<int64_t> all{parts_of(x)};
  all.insert(all.end(), size.begin(), size.end());
  return at::zeros(all, vector_options(x));
}
inline Tensor partial_sums(const Tensor& x) { return partial_sums(x, x.sizes().slice(0, 2)); }

template <typename M>
struct Piece : Planes<M> {
  int64_t part;
  int64_t place, size, step;  // of its first value; values of a plane; from one pixel to the next

  // f(k, place, count) for its vectors, each with `count` values.
  template <typename F>
  void each(F f) const {
    constexpr int64_t lanes = M::lanes;
    if constexpr (M::last) {
      for (int64_t k = 0; k < size; ++k) f(k, place + k * step, this->count);
    } else {
      const int64_t full = size / lanes;
      for (int64_t k = 0; k < full; ++k) f(k, place + k * lanes, lanes);
      if (size % lanes) f(full, place + full * lanes, size % lanes);
    }
  }

  // Without what lies beyond the `count` values of a vector.
  static typename M::V own(typename M::V value, int64_t count) {
    if (!M::last && count < M::lanes) {
      for (int64_t i = count; i < M::lanes; ++i) value[i] = 0;
    }
    return value;
  }
};

// Vectors of a piece.
template <typename M>
constexpr int64_t VECTORS = M::last ? PIXELS : PIECE / M::lanes;

// f(Piece) for the pieces of one part: of a plane, or of all planes of a sample.
template <typename M, typename F>
__attribute__((flatten)) void over_part(const Shape& shape, int64_t item, int64_t part, F f) {
  const int64_t area = shape.area(), channels = shape.channels;
  if constexpr (M::last) {
    const int64_t stop = std::min(area, (part + 1) * PART);
    for (int64_t start = part * PART; start < stop; start += PIXELS) {
      for (int64_t c = 0; c < channels; c += M::planes) {
        const Planes<M> planes(shape, item, c);
        f(Piece<M>{planes, part, planes.offset + start * channels, std::min(PIXELS, stop - start),
                   channels});
      }
    }
  } else {
    const Planes<M> planes(shape, item / channels, item % channels);
    const int64_t start = part * PIECE;
    f(Piece<M>{planes, part, planes.offset + start, std::min(PIECE, area - start), 1});
  }
}

// f(Piece) for all pieces.
template <typename M, typename F>
void over_pieces(const Tensor& x, F f) {
  const Shape shape(x);
  const int64_t parts = parts_of(x), items = shape.batch * (M::last ? 1 : shape.channels);
  const int64_t grain = std::max<int64_t>(1, 32768 * items / x.numel());
  at::parallel_for(0, items * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) over_part<M>(shape, i / parts, i % parts, f);
  });
}

}  // namespace
}  // namespace mmdla
