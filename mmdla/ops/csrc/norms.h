// Scale and shift of a norm with running statistics: weight, bias, mean and variance, each (C,).
#pragma once

#include "vector_math.h"

namespace mmdla {
namespace {

struct Affine {  // of a norm with running statistics, (C,), and drop path's factor, (B,) or empty
  Tensor scale, shift, keep;
  Affine(const std::vector<Tensor>& norm, double eps, const Optional& factor, const Tensor& y) {
    const int64_t channels = y.size(1);
    scale = at::empty({channels}, y.options()), shift = at::empty_like(scale);
    keep = factor ? vector_of(factor->reshape(-1), y) : at::empty({0}, y.options());
    TORCH_CHECK(norm.size() == 4, "mmdla: a norm has four vectors");
    for (const Tensor& t : norm) TORCH_CHECK(t.numel() == channels, "mmdla: norm of another size");
    TORCH_CHECK(!factor || keep.numel() == y.size(0),
                "mmdla: keep must have an entry for every sample");
    AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "affine", [&] {
      const auto *weight = norm[0].const_data_ptr<scalar_t>();
      const auto *bias = norm[1].const_data_ptr<scalar_t>();
      const auto *mean = norm[2].const_data_ptr<scalar_t>();
      const auto *var = norm[3].const_data_ptr<scalar_t>();
      auto *by = scale.data_ptr<scalar_t>(), *to = shift.data_ptr<scalar_t>();
      for (int64_t c = 0; c < channels; ++c) {
        by[c] = weight[c] / std::sqrt(var[c] + scalar_t(eps));
        to[c] = bias[c] - by[c] * mean[c];
      }
    });
  }
};

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

}  // namespace
}  // namespace mmdla
