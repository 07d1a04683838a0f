// A block with base layer attention at inference, all norms with running statistics:
//
//     x = relu(norm(r) + s),   v = V(x),   out = x + keep relu(norm'(sum_m w_m v_m))
//
// from the residual r and the shortcut s, over the value maps v_m of the blocks before and v.

#pragma once

#include "add_relu_pool.h"
#include "base_coefficients.h"
#include "dwconv_pool.h"
#include "norms.h"
#include "weighted_sum.h"

namespace mmdla {
namespace {

// (B, C) from (C,), times a factor (B,) for every sample if there is one.
inline Tensor of_samples(const Tensor& vector, const Tensor& factor, int64_t batch) {
  const Tensor rows = vector.unsqueeze(0).expand({batch, vector.numel()});
  return (factor.numel() ? rows * factor.unsqueeze(1) : rows).contiguous();
}

// out, v, the keys, gates and poolings of all blocks, h', c', u'; `out` takes the place of r if that is
// wanted. scale: one more factor of the branch, (C,).
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> base_block(
    const Tensor& r, const Tensor& s, const std::vector<Tensor>& last_norm, double last_eps,
    const Tensor& value, const std::vector<Tensor>& values, const std::vector<Tensor>& norm, double eps,
    const Optional& keep, const Optional& scale, const Tensor& keys, const Tensor& gates,
    const Tensor& pooled, const Optional& u, const Optional& c, const Tensor& query,
    const Tensor& key, const std::vector<Tensor>& dsu, int64_t width, double gain, bool first,
    bool in_place) {
  const auto [last_scale, last_shift] = rounded_affine(last_norm, last_eps, r);
  const auto [x, y, _] = add_relu_pool(r, s, last_scale, last_shift, in_place);
  const auto [v, p] = dwconv_pool(x, vector_of(value, y));
  const auto [weights, new_keys, new_gates, new_pooled, h, c_next, u_next] =
      base_coefficients(y, p, keys, gates, pooled, u, c, query, key, dsu, width, gain, first);
  std::vector<Tensor> maps = values;
  maps.push_back(v);
  const Affine affine(vectors_of(norm, y), eps, keep, y);
  const int64_t batch = r.size(0);
  const Tensor none = at::empty({0}, y.options());
  const Tensor branch = scale ? vector_of(scale->reshape(-1), y) : at::ones({r.size(1)}, y.options());
  const Tensor out = weighted_sum_relu_add(
      x, weights, maps, of_samples(affine.scale, none, batch),
      of_samples(affine.shift, none, batch), of_samples(branch, affine.keep, batch), true);
  return {out, v, new_keys, new_gates, new_pooled, h, c_next, u_next};
}

}  // namespace
}  // namespace mmdla
