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

// Scale and shift (B, C) of a norm, rounded as PyTorch's layer rounds: the shift once, after all of it.
inline std::tuple<Tensor, Tensor> rounded_affine(const std::vector<Tensor>& norm, double eps,
                                                 const Tensor& r) {
  const at::IntArrayRef size = r.sizes().slice(0, 2);
  const auto options = vector_options(r);
  if (norm.empty()) return {at::ones(size, options), at::zeros(size, options)};
  const Tensor own = at::empty({0}, norm[0].options().dtype(acc_type(norm[0])));
  const std::vector<Tensor> n = vectors_of(norm, own);
  for (const Tensor& t : n) TORCH_CHECK(t.numel() == r.size(1), "mmdla: norm of another size");
  Tensor scale = at::empty(size, options), shift = at::empty(size, options);
  AT_DISPATCH_FLOATING_TYPES(own.scalar_type(), "rounded_affine", [&] {
    using Own = scalar_t;
    const Own *weight = n[0].const_data_ptr<Own>(), *bias = n[1].const_data_ptr<Own>();
    const Own *mean = n[2].const_data_ptr<Own>(), *var = n[3].const_data_ptr<Own>();
    AT_DISPATCH_FLOATING_TYPES(scale.scalar_type(), "rounded_affine", [&] {
      auto *by = scale.data_ptr<scalar_t>(), *to = shift.data_ptr<scalar_t>();
      const int64_t channels = r.size(1);
      for (int64_t c = 0; c < channels; ++c) {
        const Own rstd = Own(1) / std::sqrt(var[c] + Own(eps)), factor = weight[c] * rstd;
        by[c] = factor;
        to[c] = Own(double(bias[c]) - double(mean[c]) * double(factor));
      }
      for (int64_t b = 1; b < r.size(0); ++b) {
        std::copy_n(by, channels, by + b * channels);
        std::copy_n(to, channels, to + b * channels);
      }
    });
  });
  return {scale, shift};
}

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
