// The CPU kernels as functions of PyTorch's dispatcher, torch.ops.mmdla_cpu.*. They know nothing of
// gradients: the operations of mmdla/ops call them. What they compute is said where they are defined.

#include <torch/library.h>

#include "add_relu_pool.h"
#include "base_block.h"
#include "base_coefficients.h"
#include "dual_dwconv.h"
#include "dual_dwconv_backward.h"
#include "dwconv_pool.h"
#include "light_block.h"
#include "light_coefficients.h"
#include "statistics.h"
#include "weighted_sum.h"
#include "weighted_sum_backward.h"

TORCH_LIBRARY(mmdla_cpu, m) {
  m.def("dwconv_pool", &mmdla::dwconv_pool);
  m.def("dwconv_pool_backward", &mmdla::dwconv_pool_backward);
  m.def("base_block", &mmdla::base_block);
  m.def("base_coefficients", &mmdla::base_coefficients);
  m.def("base_coefficients_backward", &mmdla::base_coefficients_backward);
  m.def("light_block", &mmdla::light_block);
  m.def("light_coefficients", &mmdla::light_coefficients);
  m.def("light_coefficients_backward", &mmdla::light_coefficients_backward);
  m.def("dual_dwconv", &mmdla::dual_dwconv);
  m.def("dual_dwconv_moments", &mmdla::dual_dwconv_moments);
  m.def("dual_dwconv_correlate", &mmdla::dual_dwconv_correlate);
  m.def("dual_dwconv_backward", &mmdla::dual_dwconv_backward);
  m.def("dual_dwconv_backward_normed", &mmdla::dual_dwconv_backward_normed);
  m.def("add_relu_pool", &mmdla::add_relu_pool);
  m.def("pool_add_relu", &mmdla::pool_add_relu);
  m.def("add_relu_pool_backward", &mmdla::add_relu_pool_backward);
  m.def("weighted_sum", &mmdla::weighted_sum);
  m.def("weighted_sum_moments", &mmdla::weighted_sum_moments);
  m.def("update_statistics", &mmdla::update_statistics);
  m.def("relu_add", &mmdla::relu_add);
  m.def("weighted_sum_relu_add", &mmdla::weighted_sum_relu_add);
  m.def("relu_products", &mmdla::relu_products);
  m.def("relu_gradient", &mmdla::relu_gradient);
}
