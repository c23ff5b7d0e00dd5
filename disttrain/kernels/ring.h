// The index of a replica's buffers, and their rows; `telemetry/ring.py` tells what is what.
//
// TensorFlow's operations for the same take longer at each step that is not recorded than is worth it.

#ifndef DISTTRAIN_KERNELS_RING_H_
#define DISTTRAIN_KERNELS_RING_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "blocks.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "variables.h"

namespace disttrain {

// Counts the step, and tells whether one of the intervals ends with it, and whether one but the first.
REGISTER_OP("DisttrainBegin")
    .Input("step: resource")
    .Input("intervals: resource")
    .Input("offsets: resource")
    .Output("record: bool")
    .Output("with_histograms: bool")
    .SetIsStateful()
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      context->set_output(0, context->Scalar());
      context->set_output(1, context->Scalar());
      return OkStatus();
    });

// Writes a row to each buffer, if the step is recorded, and the histograms to theirs. The norm of all
// `norms` together goes to column norm_columns[k] of the k-th buffer, and what `skipped` has counted
// to skipped_columns[k]; -1 for nowhere. `histogram_buffer` holds none, or a counter, the steps and the
// buffer.
REGISTER_OP("DisttrainRecord")
    .Input("record: bool")
    .Input("with_histograms: bool")
    .Input("step: resource")
    .Input("cursor: resource")
    .Input("steps: resource")
    .Input("skipped: C * resource")
    .Input("buffers: B * resource")
    .Input("values: B * float")
    .Input("norms: float")
    .Input("histogram_buffer: H * resource")
    .Input("histograms: float")
    .Attr("C: int >= 0")
    .Attr("B: int >= 0")
    .Attr("H: int >= 0")
    .Attr("norm_columns: list(int) >= 0")
    .Attr("skipped_columns: list(int) >= 0")
    .SetIsStateful()
    .SetShapeFn(shape_inference::NoOutputs);

template <typename T>
T& Scalar(Var* variable) {
  return variable->tensor()->scalar<T>()();
}

// Makes sure that a held variable may be written to where it stands.
Status Own(OpKernelContext* context, Var* variable) {
  Tensor before, after;
  TF_RETURN_IF_ERROR(Write(context, variable, &before, &after));
  if (before.TotalBytes() == 0) return OkStatus();
  std::memcpy(const_cast<char*>(after.tensor_data().data()), before.tensor_data().data(),
              before.TotalBytes());
  return OkStatus();
}

class Begin : public OpKernel {
 public:
  explicit Begin(OpKernelConstruction* context) : OpKernel(context) {}

  bool IsExpensive() override { return false; }

  void Compute(OpKernelContext* context) override {
    Held held;
    for (int i = 0; i < 3; ++i) OP_REQUIRES_OK(context, held.Hold(context, context->input(i)));
    OP_REQUIRES_OK(context, held.Lock());
    OP_REQUIRES_OK(context, Own(context, held[0]));
    Tensor *record, *count;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &record));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({}), &count));
    const int64_t step = ++Scalar<int64_t>(held[0]);
    const auto intervals = held[1]->tensor()->flat<int64_t>();
    const auto offsets = held[2]->tensor()->flat<int64_t>();
    OP_REQUIRES(context, intervals.size() == offsets.size(),
                errors::InvalidArgument("intervals and offsets differ in number"));
    bool first = false, others = false;
    for (int64_t i = 0; i < intervals.size(); ++i) {
      OP_REQUIRES(context, intervals(i) > 0, errors::InvalidArgument("an interval is below 1"));
      (i == 0 ? first : others) |= (step - offsets(i)) % intervals(i) == 0;
    }
    record->scalar<bool>()() = first || others;
    count->scalar<bool>()() = others;
  }
};

class Record : public OpKernel {
 public:
  explicit Record(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("norm_columns", &norm_columns_));
    OP_REQUIRES_OK(context, context->GetAttr("skipped_columns", &skipped_columns_));
  }

  bool IsExpensive() override { return false; }

  void Compute(OpKernelContext* context) override {
    const Tensor *record, *count, *norms, *histograms;
    OP_REQUIRES_OK(context, context->input("record", &record));
    if (!record->scalar<bool>()()) return;
    OP_REQUIRES_OK(context, context->input("with_histograms", &count));
    OP_REQUIRES_OK(context, context->input("norms", &norms));
    OP_REQUIRES_OK(context, context->input("histograms", &histograms));
    OpInputList skipped, buffers, values, histogram_buffer;
    OP_REQUIRES_OK(context, context->input_list("skipped", &skipped));
    OP_REQUIRES_OK(context, context->input_list("buffers", &buffers));
    OP_REQUIRES_OK(context, context->input_list("values", &values));
    OP_REQUIRES_OK(context, context->input_list("histogram_buffer", &histogram_buffer));
    Held held;
    // The step, the cursor and the numbers of the steps.
    for (int i = 2; i < 5; ++i) OP_REQUIRES_OK(context, held.Hold(context, context->input(i)));
    for (const OpInputList& list : {skipped, buffers, histogram_buffer})
      OP_REQUIRES_OK(context, held.Hold(context, list));
    OP_REQUIRES_OK(context, held.Lock());
    for (size_t i = 1; i < held.size(); ++i) OP_REQUIRES_OK(context, Own(context, held[i]));
    const size_t n = buffers.size();
    OP_REQUIRES(context, norm_columns_.size() == n && skipped_columns_.size() == n,
                errors::InvalidArgument("lists that belong together differ in length"));

    const int64_t step = Scalar<int64_t>(held[0]);
    int32_t& cursor = Scalar<int32_t>(held[1]);
    auto steps = held[2]->tensor()->flat<int64_t>();
    const int64_t row = cursor % steps.size();
    steps(row) = step;
    ++cursor;
    float missed = 0;
    if (skipped.size() > 0) std::swap(missed, Scalar<float>(held[3]));
    const size_t first = 3 + skipped.size();
    for (size_t k = 0; k < n; ++k) {
      float* to;
      OP_REQUIRES_OK(context, WriteRow(held[first + k], row, steps.size(), values[k], &to));
      const int64_t columns = values[k].NumElements();
      if (norm_columns_[k] >= 0 && norm_columns_[k] < columns)
        to[norm_columns_[k]] = Norm(norms->flat<float>());
      if (skipped_columns_[k] >= 0 && skipped_columns_[k] < columns)
        to[skipped_columns_[k]] = missed;
    }
    if (histogram_buffer.size() != 3 || !count->scalar<bool>()()) return;
    int32_t& counted = Scalar<int32_t>(held[first + n]);
    auto counted_steps = held[first + n + 1]->tensor()->flat<int64_t>();
    const int64_t place = counted % counted_steps.size();
    float* to;
    OP_REQUIRES_OK(context,
                   WriteRow(held[first + n + 2], place, counted_steps.size(), *histograms, &to));
    counted_steps(place) = step;
    ++counted;
  }

 private:
  static Status WriteRow(Var* buffer, int64_t row, int64_t rows, const Tensor& values, float** to) {
    auto all = buffer->tensor()->flat<float>();
    const int64_t columns = values.NumElements();
    if (all.size() != rows * columns)
      return errors::InvalidArgument("a row and its buffer differ in size");
    *to = all.data() + row * columns;
    std::copy_n(values.flat<float>().data(), columns, *to);
    return OkStatus();
  }

  static float Norm(const TTypes<float>::ConstFlat& norms) {
    double squares = 0;
    for (int64_t i = 0; i < norms.size(); ++i)
      squares += static_cast<double>(norms(i)) * norms(i);
    return std::sqrt(squares);
  }

  std::vector<int64_t> norm_columns_, skipped_columns_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_RING_H_
