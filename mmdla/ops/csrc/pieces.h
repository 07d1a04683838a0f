// Maps in pieces that stay in the cache, for what is computed value by value and for sums of it: a
// thousand values of a plane or, in channels_last, a few pixels of a unit of planes.
#pragma once

#include "maps.h"

namespace mmdla {
namespace {

constexpr int64_t PIECE = 1024;  // values of a plane
constexpr int64_t PIXELS = 8;

template <typename M>
struct Piece : Planes<M> {
  int64_t place, size, step;  // of its first value; values of a plane; from one pixel to the next

  // f(k, place, count) for its vectors, each with `count` values.
  template <typename F>
  void each(F f) const {
    constexpr int64_t lanes = M::lanes;
    if constexpr (M::last) {
      if (this->count == lanes) {
        for (int64_t k = 0; k < size; ++k) f(k, place + k * step, lanes);
      } else {
        for (int64_t k = 0; k < size; ++k) f(k, place + k * step, this->count);
      }
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

  bool is_first() const { return place == this->offset; }
};

// Vectors of a piece.
template <typename M>
constexpr int64_t VECTORS = M::last ? PIXELS : PIECE / M::lanes;

// f(Piece) for all pieces, those of a plane one after another.
template <typename M, typename F>
void over_pieces(const Shape& shape, F f) {
  const int64_t area = shape.area(), channels = shape.channels;
  if constexpr (M::last) {
    // a pixel's channels lie together: they are shared out only if the samples are too few
    const int64_t wanted = (2 * at::get_num_threads() + shape.batch - 1) / shape.batch;
    const int64_t line = 64 / sizeof(typename M::T);
    const int64_t part = (channels / wanted + line - 1) / line * line;
    const int64_t span = shape.batch % at::get_num_threads() == 0 ? channels : std::max(part, line);
    const int64_t spans = (channels + span - 1) / span;
    at::parallel_for(0, shape.batch * spans, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = i % spans * span, to = std::min(channels, from + span);
        for (int64_t start = 0; start < area; start += PIXELS) {
          for (int64_t c = from; c < to; c += M::planes) {
            const Planes<M> planes(shape, i / spans, c);
            f(Piece<M>{planes, planes.offset + start * channels, std::min(PIXELS, area - start),
                       channels});
          }
        }
      }
    });
  } else {
    const int64_t grain = std::max<int64_t>(1, 32768 / area);
    at::parallel_for(0, shape.batch * channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const Planes<M> planes(shape, p / channels, p % channels);
        for (int64_t start = 0; start < area; start += PIECE) {
          f(Piece<M>{planes, planes.offset + start, std::min(PIECE, area - start), 1});
        }
      }
    });
  }
}

}  // namespace
}  // namespace mmdla
