// The norm of each gradient, and whether all of them are finite.

#ifndef DISTTRAIN_KERNELS_NORMS_H_
#define DISTTRAIN_KERNELS_NORMS_H_

#include <cmath>
#include <vector>

#include "rows.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace disttrain {

constexpr int64_t kElementsToSquare = 128 * 1024;

REGISTER_OP("DisttrainNorms")
    .Input("gradients: dtypes")
    .Output("norms: float")
    .Output("finite: bool")
    .Attr("dtypes: list({float, half, bfloat16}) >= 1")
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      context->set_output(0, context->Vector(context->num_inputs()));
      context->set_output(1, context->Scalar());
      return OkStatus();
    });

class Norms : public OpKernel {
 public:
  explicit Norms(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    struct Task {
      int gradient;
      int64_t first, last;
      double squares;
    };
    std::vector<Task> tasks;
    int64_t total = 0;
    for (int i = 0; i < context->num_inputs(); ++i) {
      const int64_t size = context->input(i).NumElements();
      for (int64_t at = 0; at < size; at += kChunk)
        tasks.push_back({i, at, std::min(size, at + kChunk), 0.0});
      total += size;
    }
    thread::ThreadPool* workers = context->device()->tensorflow_cpu_worker_threads()->workers;
    Share(workers, tasks.size(), total, kElementsToSquare, [&](int64_t first, int64_t last) {
      float block[kBlock];
      for (int64_t t = first; t < last; ++t) {
        Task& task = tasks[t];
        const Tensor& gradient = context->input(task.gradient);
        for (int64_t at = task.first; at < task.last; at += kBlock) {
          const int64_t count = std::min(kBlock, task.last - at);
          task.squares += Squares(Load(gradient, at, count, block), count);
        }
      }
    });
    std::vector<double> squares(context->num_inputs(), 0.0);
    bool finite = true;
    for (const Task& task : tasks) {
      squares[task.gradient] += task.squares;
      // No squares of float32 are too large for float64.
      finite &= std::isfinite(task.squares);
    }
    Tensor *norms, *all;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, TensorShape({context->num_inputs()}), &norms));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({}), &all));
    for (int i = 0; i < context->num_inputs(); ++i)
      norms->flat<float>()(i) = std::sqrt(squares[i]);
    all->scalar<bool>()() = finite;
  }
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_NORMS_H_
