// The running statistics of a norm layer after a batch, as PyTorch's layer updates them.
#pragma once

#include "maps.h"

namespace mmdla {
namespace {

inline void update_statistics(const Tensor& running_mean, const Tensor& running_var,
                              const Tensor& batches, const Tensor& mean, const Tensor& var,
                              std::optional<double> momentum, int64_t count) {
  batches.add_(1);
  // without a momentum: the cumulative average
  const double step = momentum ? *momentum : 1.0 / batches.item<double>();
  running_mean.add_(mean - running_mean, step);
  const double unbiased = double(count) / std::max<int64_t>(count - 1, 1);
  running_var.add_(var * unbiased - running_var, step);
}

}  // namespace
}  // namespace mmdla
