// A block with light layer attention at inference, all norms with running statistics:
//
//     x = relu(norm(r) + s),   out = x + keep norm'(o),   o = a V(x) + lambda (d s + E(s))
//
// from the residual r and the shortcut s; x is not formed. Two passes over the maps: the poolings, and
// the two convolutions into which light_coefficients folds everything.

#pragma once

#include "add_relu_pool.h"
#include "dual_dwconv.h"
#include "light_coefficients.h"

namespace mmdla {
namespace {

// out, h', c', u'; `out` takes the place of r if that is wanted.
inline std::tuple<Tensor, Tensor, Tensor, Tensor> light_block(
    const Tensor& r, const Tensor& shortcut, const std::vector<Tensor>& last_norm, double last_eps,
    const Optional& u, const Optional& c, const Tensor& query, const Tensor& key,
    const Tensor& value, const Tensor& lambda, const Optional& extract,
    const std::vector<Tensor>& dsu, const std::vector<Tensor>& norm, double eps,
    const Optional& keep, int64_t width, bool first, bool in_place) {
  TORCH_CHECK(!norm.empty(), "mmdla: light_block needs the norm of the attention");
  const auto [scale, shift] = rounded_affine(last_norm, last_eps, r);
  const auto [y, s] = pool_add_relu(r, shortcut, scale, shift);
  const auto [kx, ks, bias, h, c_next, u_next] = light_coefficients(
      y, s, u, c, query, key, value, lambda, extract, dsu, norm, eps, keep, width, first);
  const Tensor out = dual_dwconv_of_add_relu(r, shortcut, scale, shift, kx, ks, bias, in_place);
  return {out, h, c_next, u_next};
}

}  // namespace
}  // namespace mmdla
