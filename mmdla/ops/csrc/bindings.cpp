// The kernels as functions of a Python module; what they compute is said where they are defined.

#include <torch/extension.h>

#include "conv_pooled.h"
#include "join.h"
#include "two_convs.h"
#include "weighted_sum.h"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("conv_pooled", &mmdla::conv_pooled);
  m.def("conv_pooled_backward", &mmdla::conv_pooled_backward);
  m.def("two_convs_forward", &mmdla::two_convs_forward);
  m.def("two_convs_joined", &mmdla::two_convs_joined);
  m.def("two_convs_moments", &mmdla::two_convs_moments);
  m.def("two_convs_correlate", &mmdla::two_convs_correlate);
  m.def("two_convs_backward", &mmdla::two_convs_backward);
  m.def("two_convs_backward_normed", &mmdla::two_convs_backward_normed);
  m.def("join_forward", &mmdla::join_forward);
  m.def("join_pooled", &mmdla::join_pooled);
  m.def("join_backward", &mmdla::join_backward);
  m.def("join_backward_in_place", &mmdla::join_backward_in_place);
  m.def("weighted_sum", &mmdla::weighted_sum);
  m.def("weighted_sum_moments", &mmdla::weighted_sum_moments);
  m.def("add_rectified", &mmdla::add_rectified);
  m.def("add_rectified_sum", &mmdla::add_rectified_sum);
  m.def("rectified_products", &mmdla::rectified_products);
  m.def("rectified_gradient", &mmdla::rectified_gradient);
}
