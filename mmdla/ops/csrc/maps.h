// What the kernels share: how maps (B, C, H, W) of any dtype and layout are seen.
//
// The work is cut into units: a plane of an NCHW map, or, in channels_last, as many planes as a
// vector has lanes. A number of a plane is then a `Lane`: a scalar, or a vector of them.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "rows.h"

namespace mmdla {
namespace {

using at::Tensor;

template <typename T_, bool LAST>
struct Maps {  // T: what they are kept in; A: what they are computed in
  using T = T_;
  using A = AccOf<T>;
  using V = Vec<A>;
  using Lane = std::conditional_t<LAST, V, A>;
  static constexpr bool last = LAST;
  static constexpr int64_t lanes = LANES<A>;
  static constexpr int64_t planes = LAST ? lanes : 1;  // of a unit
  // units that are worked on together, since they share lines of the cache
  static constexpr int64_t units = LAST ? std::max<int64_t>(1, 128 / (lanes * sizeof(T))) : 1;
};

// f(Maps{}) with the dtype and layout of a map.
template <typename F>
void dispatch(const Tensor& x, F f) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "mmdla", [&] {
    if (x.is_contiguous()) {
      f(Maps<scalar_t, false>{});
    } else {
      f(Maps<scalar_t, true>{});
    }
  });
}

struct Shape {
  int64_t batch, channels, height, width;
  explicit Shape(const Tensor& x)
      : batch(x.size(0)), channels(x.size(1)), height(x.size(2)), width(x.size(3)) {}
  int64_t area() const { return height * width; }
};

// Consecutive planes, from `plane` of all B * C on, which are those of sample `batch` from `channel` on.
template <typename M>
struct Planes {
  int64_t batch, channel, count, plane, offset;  // offset: of their first value in a map
  Planes(const Shape& shape, int64_t b, int64_t c)
      : batch(b),
        channel(c),
        count(std::min(M::planes, shape.channels - c)),
        plane(b * shape.channels + c),
        offset(M::last ? b * shape.channels * shape.area() + c : plane * shape.area()) {}

  // Their numbers, from that of the first one on.
  typename M::Lane lane(const typename M::A* numbers) const {
    if constexpr (M::last) {
      return load_part(numbers, count);
    } else {
      return *numbers;
    }
  }

  // Add what a vector holds for each of them to their numbers.
  void add(typename M::V sum, typename M::A* numbers) const {
    if constexpr (M::last) {
      store_part(load_part(numbers, count) + sum, count, numbers);
    } else {
      *numbers += sum_of<typename M::A>(sum);
    }
  }
};

inline at::ScalarType acc_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline void check(const Tensor& like, at::ArrayRef<Tensor> maps) {
  TORCH_CHECK(like.dim() == 4 && like.numel() > 0, "mmdla: maps must be (B, C, H, W), not empty");
  const auto layout =
      like.is_contiguous() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  for (const Tensor& map : maps) {
    TORCH_CHECK(map.sizes() == like.sizes() && map.scalar_type() == like.scalar_type() &&
                    map.is_contiguous(layout),
                "mmdla: maps must be of one shape and dtype, all in NCHW or all in channels_last");
  }
}

// A map like x in what x is computed in.
inline void check_like(const Tensor& computed, const Tensor& x) {
  check(x, {x});
  check(computed, {computed});
  TORCH_CHECK(computed.sizes() == x.sizes() && computed.is_contiguous() == x.is_contiguous() &&
                  computed.scalar_type() == acc_type(x),
              "mmdla: o must be a map like the others in ", acc_type(x));
}

// What is read by pointers has the size that is read: `size` numbers for maps like `like`.
inline void check_vectors(const Tensor& like, int64_t size, at::ArrayRef<Tensor> vectors) {
  for (const Tensor& v : vectors) {
    TORCH_CHECK(v.numel() == size && v.is_contiguous() && v.scalar_type() == acc_type(like),
                "mmdla: expected a contiguous ", acc_type(like), " tensor of ", size,
                " numbers, got ", v.scalar_type(), " of shape ", v.sizes());
  }
}

inline int64_t planes_of(const Tensor& x) { return x.size(0) * x.size(1); }

inline at::TensorOptions vector_options(const Tensor& x) {
  return x.options().dtype(acc_type(x)).memory_format(std::nullopt);
}

// The sum of partial sums (parts, ...), over a count; few of them were added up in one number, so it
// is exact.
inline Tensor total(const Tensor& parts, double count = 1) {
  Tensor out = at::empty(parts.sizes().slice(1), parts.options());
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "total", [&] {
    const auto* from = parts.const_data_ptr<scalar_t>();
    auto* to = out.data_ptr<scalar_t>();
    const int64_t size = out.numel();
    std::vector<double> sums(size, 0);
    for (int64_t part = 0; part < parts.size(0); ++part) {
      for (int64_t i = 0; i < size; ++i) sums[i] += from[part * size + i];
    }
    for (int64_t i = 0; i < size; ++i) to[i] = sums[i] / count;
  });
  return out;
}

}  // namespace
}  // namespace mmdla
