// Functions of vectors, and the linear layers that they pass through.
#pragma once

#include "maps.h"

namespace mmdla {
namespace {

typedef int32_t Ints __attribute__((vector_size(32)));

// e^x - 1, exact near 0: x = n ln 2 + r, and then 2^n (e^r - 1) + (2^n - 1). NaN stays.
inline Vec<float> expm1(Vec<float> x) {
  x = x < -87.0f ? Vec<float>{} - 87.0f : x;
  x = x > 88.0f ? Vec<float>{} + 88.0f : x;
  const Vec<float> scaled = x * 1.44269504f;
  const Ints n = __builtin_convertvector(scaled < 0.0f ? scaled - 0.5f : scaled + 0.5f, Ints);
  const Vec<float> r = x - __builtin_convertvector(n, Vec<float>) * 0.693147181f;
  Vec<float> series = r / 5040.0f + 1 / 720.0f;  // |r| < 0.35: the eighth term is below rounding
  series = series * r + 1 / 120.0f;
  series = series * r + 1 / 24.0f;
  series = series * r + 1 / 6.0f;
  series = series * r + 1 / 2.0f;
  series = series * r * r + r;
  const Vec<float> power = reinterpret_cast<Vec<float>>((n + 127) << 23);
  return power * series + as_computed<float>(power - 1.0f);
}
inline Vec<double> expm1(Vec<double> x) {
  for (int64_t i = 0; i < LANES<double>; ++i) x[i] = std::expm1(std::min(x[i], 700.0));
  return x;
}

template <typename V>
inline V sigmoid(V x) {
  return 1 / (2 + expm1(-x));
}

template <typename V>
inline V tanh(V x) {
  const V e = expm1(2 * x);
  return e / (2 + e);
}

// f(place, count) for the vectors of `size` numbers.
template <typename A, typename F>
inline void over_vector(int64_t size, F f) {
  for (int64_t i = 0; i < size; i += LANES<A>) f(i, std::min(LANES<A>, size - i));
}

// to[n][o] = x[n] · w[o] + b[o] for R outputs and N inputs, through a ReLU if wanted.
template <typename A, int R, int N>
inline void dot_products(const A* x, const A* w, const A* b, int64_t inputs, int64_t outputs,
                         bool relu, A* to) {
  Vec<A> sums[R][N] = {};
  const auto add = [&](int64_t i, auto read) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Vec<A> weight = read(w + r * inputs + i);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[r][n] += weight * read(x + n * inputs + i);
    }
  };
  int64_t i = 0;
  for (; i + LANES<A> <= inputs; i += LANES<A>) add(i, [](const A* from) { return load(from); });
  if (i < inputs) add(i, [rest = inputs - i](const A* from) { return load_part(from, rest); });
  for (int n = 0; n < N; ++n) {
    for (int r = 0; r < R; ++r) {
      const A value = sum_of<A>(sums[r][n]) + b[r];
      to[n * outputs + r] = relu && value < 0 ? A(0) : value;
    }
  }
}

// x (n, in) to x w^T + b (n, out), through a ReLU if wanted. For a few inputs the time is that of
// reading the weights; a library of matrix products takes several times as long.
inline Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, bool relu) {
  constexpr int64_t few = 16;
  const int64_t rows = x.size(0), inputs = w.size(1), outputs = w.size(0);
  if (rows > few) {
    Tensor product = at::addmm(b, x, w.t());
    return relu ? product.relu_() : product;
  }
  Tensor out = at::empty({rows, outputs}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "linear", [&] {
    using A = scalar_t;
    const A *px = x.const_data_ptr<A>(), *pw = w.const_data_ptr<A>(), *pb = b.const_data_ptr<A>();
    A* to = out.data_ptr<A>();
    const int64_t work = std::max<int64_t>(1, rows * inputs);  // there may be no row
    const int64_t grain = std::max<int64_t>(4, 65536 / work);
    at::parallel_for(0, outputs, grain, [&](int64_t begin, int64_t end) {
      const auto row = [&](int64_t o, auto count) {
        constexpr int R = decltype(count)::value;
        const A *from = pw + o * inputs, *bias = pb + o;
        int64_t n = 0;
        for (; n + 2 <= rows; n += 2) {
          dot_products<A, R, 2>(px + n * inputs, from, bias, inputs, outputs, relu,
                                to + n * outputs + o);
        }
        if (n < rows) {
          dot_products<A, R, 1>(px + n * inputs, from, bias, inputs, outputs, relu,
                                to + n * outputs + o);
        }
      };
      int64_t o = begin;
      for (; o + 4 <= end; o += 4) row(o, std::integral_constant<int, 4>{});
      for (; o < end; ++o) row(o, std::integral_constant<int, 1>{});
    });
  });
  return out;
}

using Optional = std::optional<Tensor>;

// A vector in the dtype of another one, as pointers read it.
inline Tensor vector_of(const Tensor& t, const Tensor& like) {
  if (t.scalar_type() == like.scalar_type() && t.is_contiguous()) return t;
  return t.to(like.scalar_type()).contiguous();
}

inline std::vector<Tensor> vectors_of(const std::vector<Tensor>& list, const Tensor& like) {
  std::vector<Tensor> result;
  result.reserve(list.size());
  for (const Tensor& t : list) result.push_back(vector_of(t, like));
  return result;
}

}  // namespace
}  // namespace mmdla
