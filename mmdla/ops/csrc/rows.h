// Rows of maps as vectors of 32 bytes, at any address. Rows are often shorter than two vectors, so
// the last vector of a row overlaps the one before instead of leaving a rest to a scalar loop.
#pragma once

#include <cstdint>
#include <cstring>

namespace mmdla {
namespace {

template <typename T>
struct VecOf {
  typedef T type __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};
template <typename T>
using Vec = typename VecOf<T>::type;
template <typename T>
constexpr int64_t LANES = 32 / sizeof(T);

template <typename T>
inline Vec<T> load(const T* from) {
  return *reinterpret_cast<const Vec<T>*>(from);
}

template <typename T>
inline void store(Vec<T> value, T* to) {
  *reinterpret_cast<Vec<T>*>(to) = value;
}

template <typename T>
inline T sum_of(Vec<T> value) {
  T sum = 0;
  for (int i = 0; i < LANES<T>; ++i) sum += value[i];
  return sum;
}

// Where the vectors of a row begin: f(column), the last one at width - LANES. A row shorter than a
// vector gives f(0).
template <typename T, typename F>
inline void over_columns(int64_t width, F f) {
  int64_t c = 0;
  for (; c + LANES<T> <= width; c += LANES<T>) f(c);
  if (c < width) f(width < LANES<T> ? 0 : width - LANES<T>);
}

// Copies a row, also a short one, without a call.
template <typename T>
inline void copy_row(const T* from, int64_t width, T* to) {
  constexpr int64_t half = LANES<T> / 2;
  if (width >= LANES<T>) {
    over_columns<T>(width, [&](int64_t c) { store(load(from + c), to + c); });
  } else if (width >= half) {
    std::memcpy(to, from, half * sizeof(T));
    std::memcpy(to + width - half, from + width - half, half * sizeof(T));
  } else {
    for (int64_t i = 0; i < width; ++i) to[i] = from[i];
  }
}

// The vector at a place of a row; of a row shorter than a vector, what lies beyond it is zero.
template <typename T>
inline Vec<T> load_of_row(const T* from, int64_t width) {
  if (width >= LANES<T>) return load(from);
  T part[LANES<T>] = {};
  copy_row(from, width, part);
  return load(part);
}

// The converse: what lies beyond a row is not written.
template <typename T>
inline void store_of_row(Vec<T> value, int64_t width, T* to) {
  if (width >= LANES<T>) return store(value, to);
  T part[LANES<T>];
  store(value, part);
  copy_row(part, width, to);
}

// 1 at the places of the last vector of a row that the vector before it does not have, else 0.
template <typename T>
inline Vec<T> new_in_last(int64_t width) {
  Vec<T> mask;
  const int64_t rest = width % LANES<T>;
  for (int64_t i = 0; i < LANES<T>; ++i) {
    mask[i] = rest == 0 || (width < LANES<T> ? i < width : i >= LANES<T> - rest);
  }
  return mask;
}

}  // namespace
}  // namespace mmdla
