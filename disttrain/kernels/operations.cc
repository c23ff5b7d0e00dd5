// Operations of our own, for what takes TensorFlow's many passes, temporaries and operations for each
// variable. `kernels/__init__.py` compiles this file and loads it; where it cannot be compiled,
// TensorFlow's operations compute the same.

#ifdef __linux__
#include "host.h"
#endif
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

#ifdef __linux__
REGISTER_KERNEL_BUILDER(Name("DisttrainHost").Device(DEVICE_CPU), HostOp);
REGISTER_KERNEL_BUILDER(Name("DisttrainSum").Device(DEVICE_CPU).TypeConstraint<float>("T"), SumOp<float>);
REGISTER_KERNEL_BUILDER(Name("DisttrainSum").Device(DEVICE_CPU).TypeConstraint<double>("T"), SumOp<double>);
REGISTER_KERNEL_BUILDER(Name("DisttrainSum").Device(DEVICE_CPU).TypeConstraint<int32>("T"), SumOp<int32>);
REGISTER_KERNEL_BUILDER(Name("DisttrainSum").Device(DEVICE_CPU).TypeConstraint<int64_t>("T"), SumOp<int64_t>);
#endif

}  // namespace disttrain
