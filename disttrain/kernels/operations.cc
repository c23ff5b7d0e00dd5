// Operations of our own, for what takes TensorFlow's many passes, temporaries and operations for each
// variable. `kernels/__init__.py` compiles this file and loads it; where it cannot be compiled,
// TensorFlow's operations compute the same.

#include "measure.h"
#include "norms.h"
#include "ring.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "update.h"

namespace disttrain {

REGISTER_KERNEL_BUILDER(Name("DisttrainSnapshot").Device(DEVICE_CPU), Snapshot);
REGISTER_KERNEL_BUILDER(Name("DisttrainMeasure").Device(DEVICE_CPU), Measure);
REGISTER_KERNEL_BUILDER(Name("DisttrainNorms").Device(DEVICE_CPU), Norms);
REGISTER_KERNEL_BUILDER(Name("DisttrainUpdate").Device(DEVICE_CPU), Update);
REGISTER_KERNEL_BUILDER(Name("DisttrainBegin").Device(DEVICE_CPU), Begin);
REGISTER_KERNEL_BUILDER(Name("DisttrainRecord").Device(DEVICE_CPU), Record);

}  // namespace disttrain
