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

// Writes a row to each buffer, if the step is recorded, and the histograms to theirs. A step that is
// skipped, for it is not `finite`, is counted in `skipped`, and takes one of the `spare` rows if the
// plan does not name it.
//
// The last of the buffers get `rows`; the first, whose `widths` are given, get `facts`: `chosen` has a
// place in them for each column, or one of kNorm and so on. `histogram_buffer` holds none, or a
// counter, the steps and the buffer.
REGISTER_OP("DisttrainRecord")
    .Input("record: bool")
    .Input("with_histograms: bool")
    .Input("finite: bool")
    .Input("step: resource")
    .Input("cursor: resource")
    .Input("steps: resource")
    .Input("spare: resource")
    .Input("skipped: C * resource")
    .Input("buffers: B * resource")
    .Input("facts: F * float")
    .Input("rows: R * float")
    .Input("norms: float")
    .Input("histogram_buffer: H * resource")
    .Input("histograms: float")
    .Attr("C: int >= 0")
    .Attr("B: int >= 0")
    .Attr("F: int >= 0")
    .Attr("R: int >= 0")
    .Attr("H: int >= 0")
    .Attr("widths: list(int) >= 0")
    .Attr("chosen: list(int) >= 0")
    .SetIsStateful()
    .SetShapeFn(shape_inference::NoOutputs);

// What is none of the facts: the norm of all `norms` together, what `skipped` has counted, nothing, and
// what is not known.
constexpr int64_t kNorm = -1, kSkipped = -2, kZero = -3, kUnknown = -4;

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
    OP_REQUIRES_OK(context, context->GetAttr("widths", &widths_));
    OP_REQUIRES_OK(context, context->GetAttr("chosen", &chosen_));
    int64_t columns = 0;
    for (const int64_t width : widths_) columns += width;
    OP_REQUIRES(context, columns == chosen_.size(),
                errors::InvalidArgument("widths and columns differ in number"));
  }

  bool IsExpensive() override { return false; }

  void Compute(OpKernelContext* context) override {
    const Tensor *record, *finite;
    OP_REQUIRES_OK(context, context->input("record", &record));
    OP_REQUIRES_OK(context, context->input("finite", &finite));
    const bool named = record->scalar<bool>()(), skips = !finite->scalar<bool>()();
    if (!named && !skips) return;
    const Tensor *count, *norms, *histograms;
    OP_REQUIRES_OK(context, context->input("with_histograms", &count));
    OP_REQUIRES_OK(context, context->input("norms", &norms));
    OP_REQUIRES_OK(context, context->input("histograms", &histograms));
    OpInputList skipped, buffers, facts, rows, histogram_buffer;
    OP_REQUIRES_OK(context, context->input_list("skipped", &skipped));
    OP_REQUIRES_OK(context, context->input_list("buffers", &buffers));
    OP_REQUIRES_OK(context, context->input_list("facts", &facts));
    OP_REQUIRES_OK(context, context->input_list("rows", &rows));
    OP_REQUIRES_OK(context, context->input_list("histogram_buffer", &histogram_buffer));
    Held held;
    // The step, the cursor, the numbers of the steps, and what is left of the spare rows.
    for (int i = 3; i < 7; ++i) OP_REQUIRES_OK(context, held.Hold(context, context->input(i)));
    for (const OpInputList& list : {skipped, buffers, histogram_buffer})
      OP_REQUIRES_OK(context, held.Hold(context, list));
    OP_REQUIRES_OK(context, held.Lock());
    for (size_t i = 1; i < held.size(); ++i) OP_REQUIRES_OK(context, Own(context, held[i]));
    const size_t composed = widths_.size();
    OP_REQUIRES(context, composed + rows.size() == buffers.size(),
                errors::InvalidArgument("lists that belong together differ in length"));

    if (skips && skipped.size() > 0) Scalar<float>(held[4]) += 1;
    // What is left counts down at each skipped step that the plan does not name.
    if (skips && !named && --Scalar<int32_t>(held[3]) < 0) return;
    const int64_t step = Scalar<int64_t>(held[0]);
    int32_t& cursor = Scalar<int32_t>(held[1]);
    auto steps = held[2]->tensor()->flat<int64_t>();
    const int64_t row = cursor % steps.size();
    steps(row) = step;
    ++cursor;
    float missed = 0;
    if (skipped.size() > 0) std::swap(missed, Scalar<float>(held[4]));
    const size_t first = 4 + skipped.size();
    size_t next = 0;
    for (size_t k = 0; k < composed; ++k) {
      float* to;
      OP_REQUIRES_OK(context, Row(held[first + k], row, steps.size(), widths_[k], &to));
      for (int64_t column = 0; column < widths_[k]; ++column) {
        const int64_t from = chosen_[next++];
        OP_REQUIRES(context, from < static_cast<int64_t>(facts.size()),
                    errors::InvalidArgument("there is no such fact"));
        to[column] = from >= 0          ? facts[from].scalar<float>()()
                     : from == kNorm    ? Norm(norms->flat<float>())
                     : from == kSkipped ? missed
                     : from == kZero    ? 0.0f
                                        : kNaN;
      }
    }
    for (size_t k = 0; k < rows.size(); ++k)
      OP_REQUIRES_OK(context,
                     WriteRow(held[first + composed + k], row, steps.size(), rows[k]));
    if (histogram_buffer.size() != 3 || !count->scalar<bool>()()) return;
    const size_t n = buffers.size();
    int32_t& counted = Scalar<int32_t>(held[first + n]);
    auto counted_steps = held[first + n + 1]->tensor()->flat<int64_t>();
    const int64_t place = counted % counted_steps.size();
    OP_REQUIRES_OK(context,
                   WriteRow(held[first + n + 2], place, counted_steps.size(), *histograms));
    counted_steps(place) = step;
    ++counted;
  }

 private:
  static Status Row(Var* buffer, int64_t row, int64_t rows, int64_t columns, float** to) {
    auto all = buffer->tensor()->flat<float>();
    if (all.size() != rows * columns)
      return errors::InvalidArgument("a row and its buffer differ in size");
    *to = all.data() + row * columns;
    return OkStatus();
  }

  static Status WriteRow(Var* buffer, int64_t row, int64_t rows, const Tensor& values) {
    float* to;
    TF_RETURN_IF_ERROR(Row(buffer, row, rows, values.NumElements(), &to));
    std::copy_n(values.flat<float>().data(), values.NumElements(), to);
    return OkStatus();
  }

  static float Norm(const TTypes<float>::ConstFlat& norms) {
    double squares = 0;
    for (int64_t i = 0; i < norms.size(); ++i)
      squares += static_cast<double>(norms(i)) * norms(i);
    return std::sqrt(squares);
  }

  std::vector<int64_t> widths_, chosen_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_RING_H_
