// Vectors of 32 bytes of what is computed in, float or double, and how they are read and written at
// any address of what maps are kept in: the same, or half precision. Rows are often shorter than two
// vectors, so the last vector of a row overlaps the one before instead of leaving a rest to a scalar
// loop.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace mmdla {
namespace {

// What maps of T are computed in.
template <typename T>
using AccOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename A>
struct VecOf {
  typedef A type __attribute__((vector_size(32)));
  typedef A anywhere __attribute__((vector_size(32), aligned(sizeof(A)), may_alias));
};
template <typename A>
using Vec = typename VecOf<A>::type;
template <typename A>
constexpr int64_t LANES = 32 / sizeof(A);

typedef uint32_t Bits __attribute__((vector_size(32)));
typedef uint16_t HalfBits __attribute__((vector_size(16), aligned(2), may_alias));

inline Vec<float> load(const float* from) {
  return *reinterpret_cast<const VecOf<float>::anywhere*>(from);
}
inline Vec<double> load(const double* from) {
  return *reinterpret_cast<const VecOf<double>::anywhere*>(from);
}

inline Vec<float> load(const c10::BFloat16* from) {
  const auto half = *reinterpret_cast<const HalfBits*>(from);
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(half, Bits) << 16);
}

inline Vec<float> load(const c10::Half* from) {
#ifdef __F16C__
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vec<float> value;
  for (int i = 0; i < LANES<float>; ++i) value[i] = from[i];
  return value;
#endif
}

inline void store(Vec<float> value, float* to) {
  *reinterpret_cast<VecOf<float>::anywhere*>(to) = value;
}
inline void store(Vec<double> value, double* to) {
  *reinterpret_cast<VecOf<double>::anywhere*>(to) = value;
}

// To the nearest, to the even one of two; NaN stays.
inline void store(Vec<float> value, c10::BFloat16* to) {
  const Bits bits = reinterpret_cast<Bits>(value), nan = bits | 0x400000;
  const Bits rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const Bits kept = (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded;
  *reinterpret_cast<HalfBits*>(to) = __builtin_convertvector(kept >> 16, HalfBits);
}

inline void store(Vec<float> value, c10::Half* to) {
#ifdef __F16C__
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < LANES<float>; ++i) to[i] = value[i];
#endif
}

template <typename A>
inline A sum_of(Vec<A> value) {
  A sum = 0;
  for (int i = 0; i < LANES<A>; ++i) sum += value[i];
  return sum;
}

// Copies less than a vector, without a call.
template <typename T>
inline void copy_part(const T* from, int64_t count, T* to) {
  constexpr int64_t half = LANES<AccOf<T>> / 2;
  if (count >= half) {
    std::memcpy(to, from, half * sizeof(T));
    std::memcpy(to + count - half, from + count - half, half * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// The first `count` values of a vector at a place; those beyond are zero and are not read.
template <typename T>
inline Vec<AccOf<T>> load_part(const T* from, int64_t count) {
  if (count >= LANES<AccOf<T>>) return load(from);
  T part[LANES<AccOf<T>>] = {};
  copy_part(from, count, part);
  return load(part);
}

// The converse: those beyond are not written.
template <typename T>
inline void store_part(Vec<AccOf<T>> value, int64_t count, T* to) {
  if (count >= LANES<AccOf<T>>) return store(value, to);
  T part[LANES<AccOf<T>>];
  store(value, part);
  copy_part(part, count, to);
}

// Where the vectors of a row begin: f(column), the last one at length - LANES. A row shorter than a
// vector gives f(0).
template <typename A, typename F>
inline void over_columns(int64_t length, F f) {
  int64_t c = 0;
  for (; c + LANES<A> <= length; c += LANES<A>) f(c);
  if (c < length) f(length < LANES<A> ? 0 : length - LANES<A>);
}

// 1 at the places of the last vector of a row that the vector before it does not have, else 0.
template <typename A>
inline Vec<A> new_in_last(int64_t length) {
  Vec<A> mask;
  const int64_t rest = length % LANES<A>;
  for (int64_t i = 0; i < LANES<A>; ++i) {
    mask[i] = rest == 0 || (length < LANES<A> ? i < length : i >= LANES<A> - rest);
  }
  return mask;
}

// The value as it is: what follows is not put together with how it was computed.
template <typename A>
inline Vec<A> as_computed(Vec<A> value) {
#ifdef __AVX__
  asm("" : "+x"(value));
#else
  asm("" : "+m"(value));
#endif
  return value;
}

// NaN stays.
template <typename A>
inline Vec<A> relu(Vec<A> value) {
  return value < A(0) ? Vec<A>{} : value;
}

}  // namespace
}  // namespace mmdla
