// What the kernels share: maps (B, C, H, W) are seen as B * C planes, one after another in parallel.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

namespace mmdla {

using at::Tensor;

struct Shape {
  int64_t planes, height, width;
  explicit Shape(const Tensor& x)
      : planes(x.size(0) * x.size(1)), height(x.size(2)), width(x.size(3)) {}
  int64_t area() const { return height * width; }
};

// Run f(first, last) over planes, in parallel.
template <typename F>
void over_planes(const Shape& shape, F f) {
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, shape.area()));
  at::parallel_for(0, shape.planes, grain, f);
}

inline void check(const Tensor& like, at::ArrayRef<Tensor> maps) {
  for (const Tensor& map : maps) {
    TORCH_CHECK(map.is_contiguous() && map.sizes() == like.sizes() &&
                    map.scalar_type() == like.scalar_type(),
                "mmdla: maps must be contiguous, of one shape and dtype");
  }
}

inline Tensor vectors(const Tensor& x) { return at::zeros({x.size(0), x.size(1)}, x.options()); }

}  // namespace mmdla
