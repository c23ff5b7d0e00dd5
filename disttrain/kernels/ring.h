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

// What both operations are told of the variables: the step, the intervals and their offsets, the
// cursor, the numbers of the recorded steps, what is left of the spare rows, what is counted of skipped
// steps, the buffers, and of histograms a counter, the steps and the buffer. They come together, for
// each input of a graph takes its time at every step.
constexpr int kStep = 0, kIntervals = 1, kOffsets = 2, kCursor = 3, kSteps = 4, kSpare = 5, kOthers = 6;

// Counts the step, and tells whether one of the intervals ends with it, and whether one but the first.
REGISTER_OP("DisttrainBegin")
    .Input("ring: N * resource")
    .Output("record: bool")
    .Output("with_histograms: bool")
    .Attr("N: int >= 1")
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
// place in them for each column, or one of kNorm and so on. `skips` and `counts` tell whether there is
// a counter of skipped steps, and whether there are histograms.
REGISTER_OP("DisttrainRecord")
    .Input("record: bool")
    .Input("with_histograms: bool")
    .Input("finite: bool")
    .Input("ring: N * resource")
    .Input("facts: F * float")
    .Input("rows: R * float")
    .Input("norms: float")
    .Input("histograms: float")
    .Attr("N: int >= 1")
    .Attr("F: int >= 0")
    .Attr("R: int >= 0")
    .Attr("skips: bool")
    .Attr("counts: bool")
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
    OpInputList ring;
    OP_REQUIRES_OK(context, context->input_list("ring", &ring));
    Held held;
    OP_REQUIRES_OK(context, held.Hold(context, ring, kOffsets + 1));
    OP_REQUIRES(context, held.size() == kOffsets + 1, errors::InvalidArgument("the ring is no ring"));
    OP_REQUIRES_OK(context, held.Lock());
    OP_REQUIRES_OK(context, Own(context, held[kStep]));
    Tensor *record, *count;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &record));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({}), &count));
    const int64_t step = ++Scalar<int64_t>(held[kStep]);
    const auto intervals = held[kIntervals]->tensor()->flat<int64_t>();
    const auto offsets = held[kOffsets]->tensor()->flat<int64_t>();
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
    OP_REQUIRES_OK(context, context->GetAttr("skips", &skips_));
    OP_REQUIRES_OK(context, context->GetAttr("counts", &counts_));
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
    OpInputList ring, facts, rows;
    OP_REQUIRES_OK(context, context->input_list("ring", &ring));
    OP_REQUIRES_OK(context, context->input_list("facts", &facts));
    OP_REQUIRES_OK(context, context->input_list("rows", &rows));
    Held held;
    OP_REQUIRES_OK(context, held.Hold(context, ring));
    OP_REQUIRES_OK(context, held.Lock());
    const size_t composed = widths_.size(), n = composed + rows.size();
    const size_t first = kOthers + skips_, last = first + n;
    OP_REQUIRES(context, held.size() == last + (counts_ ? 3 : 0),
                errors::InvalidArgument("lists that belong together differ in length"));
    for (size_t i = kCursor; i < held.size(); ++i) OP_REQUIRES_OK(context, Own(context, held[i]));
    float none = 0;
    float& skipped = skips_ ? Scalar<float>(held[kOthers]) : none;

    if (skips) skipped += 1;
    // What is left counts down at each skipped step that the plan does not name.
    if (skips && !named && --Scalar<int32_t>(held[kSpare]) < 0) return;
    const int64_t step = Scalar<int64_t>(held[kStep]);
    int32_t& cursor = Scalar<int32_t>(held[kCursor]);
    auto steps = held[kSteps]->tensor()->flat<int64_t>();
    const int64_t row = cursor % steps.size();
    steps(row) = step;
    ++cursor;
    float missed = 0;
    std::swap(missed, skipped);
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
    if (!counts_ || !count->scalar<bool>()()) return;
    int32_t& counted = Scalar<int32_t>(held[last]);
    auto counted_steps = held[last + 1]->tensor()->flat<int64_t>();
    const int64_t place = counted % counted_steps.size();
    OP_REQUIRES_OK(context,
                   WriteRow(held[last + 2], place, counted_steps.size(), *histograms));
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
  bool skips_, counts_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_RING_H_
