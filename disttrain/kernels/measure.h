// Measures variables around an update that other operations make.

#ifndef DISTTRAIN_KERNELS_MEASURE_H_
#define DISTTRAIN_KERNELS_MEASURE_H_

#include <vector>

#include "rows.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "variables.h"

namespace disttrain {

// Elements of a group of variables for which other threads are woken; other groups and updates keep
// them busy anyway.
constexpr int64_t kElementsToShare = 2 * 1024 * 1024;

// The values of variables, shared with them: a variable that is then assigned to in place gets a copy
// of its own. Where nothing is recorded the values are empty and nothing is copied.
REGISTER_OP("DisttrainSnapshot")
    .Input("variables: N * resource")
    .Input("record: bool")
    .Output("values: dtypes")
    .Attr("N: int >= 1")
    .Attr("dtypes: list(type) >= 1")
    .SetIsStateful()
    .SetShapeFn(shape_inference::UnknownShape);

// The rows of variables after their update; no rows where nothing is recorded. `slots` lists all slots,
// slot_owners[k] the variable of the k-th and slot_places[k] its column; `rows` those of the sparse
// gradients, whose variables are `sparse`.
REGISTER_OP("DisttrainMeasure")
    .Input("variables: N * resource")
    .Input("before: dtypes")
    .Input("gradients: gradient_dtypes")
    .Input("rows: M * int64")
    .Input("norms: float")
    .Input("slots: S * resource")
    .Input("record: bool")
    .Input("with_histograms: bool")
    .Output("statistics: float")
    .Output("histograms: float")
    .Attr("N: int >= 1")
    .Attr("M: int >= 0")
    .Attr("S: int >= 0")
    .Attr("dtypes: list(type) >= 1")
    .Attr("gradient_dtypes: list({float, double, half, bfloat16}) >= 1")
    .Attr("norm_places: list(int) >= 1")
    .Attr("sparse: list(int) >= 0")
    .Attr("slot_owners: list(int) >= 0")
    .Attr("slot_places: list(int) >= 0")
    .Attr("slot_columns: int")
    .Attr("lowest_exponent: int")
    .Attr("highest_exponent: int")
    .SetIsStateful()
    .SetShapeFn(ShapesOfRows);

class Snapshot : public OpKernel {
 public:
  explicit Snapshot(OpKernelConstruction* context) : OpKernel(context) {}

  // Not worth handing to another thread.
  bool IsExpensive() override { return false; }

  void Compute(OpKernelContext* context) override {
    OpInputList variables;
    OP_REQUIRES_OK(context, context->input_list("variables", &variables));
    const bool record = context->input(variables.size()).scalar<bool>()();
    for (int i = 0; i < variables.size(); ++i) {
      Tensor value(context->expected_output_dtype(i), TensorShape({0}));
      if (record) OP_REQUIRES_OK(context, Value(context, variables[i], &value));
      OP_REQUIRES(context, value.dtype() == context->expected_output_dtype(i),
                  errors::InvalidArgument("a variable has another dtype than it was given"));
      context->set_output(i, value);
    }
  }
};

// Every task sums a chunk of one tensor; the order in which sums are added is always the same.
struct Task {
  enum Kind { kWeight, kGradient, kRows, kSlot } kind;
  int owner;
  int slot;
  int64_t first, last;
};

class Measure : public OpKernel {
 public:
  explicit Measure(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("norm_places", &norms_));
    OP_REQUIRES_OK(context, context->GetAttr("sparse", &sparse_));
    OP_REQUIRES_OK(context, context->GetAttr("slot_owners", &owners_));
    OP_REQUIRES_OK(context, context->GetAttr("slot_places", &places_));
    OP_REQUIRES_OK(context, context->GetAttr("slot_columns", &columns_));
    OP_REQUIRES_OK(context, context->GetAttr("lowest_exponent", &lowest_));
    OP_REQUIRES_OK(context, context->GetAttr("highest_exponent", &highest_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor *record, *with_histograms;
    OP_REQUIRES_OK(context, context->input("record", &record));
    OP_REQUIRES_OK(context, context->input("with_histograms", &with_histograms));
    OpInputList variables;
    OP_REQUIRES_OK(context, context->input_list("variables", &variables));
    const bool wanted = record->scalar<bool>()();
    const bool counted = wanted && with_histograms->scalar<bool>()();
    const int64_t count = variables.size(), bins = 5 + highest_ - lowest_;
    Tensor *statistics, *histograms;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, TensorShape({wanted ? count : 0, 8 + columns_}), &statistics));
    OP_REQUIRES_OK(
        context, context->allocate_output(
                     1, TensorShape({counted ? count : 0, 3 + columns_, bins}), &histograms));
    if (!wanted) return;

    std::vector<Subject> subjects;
    std::vector<Tensor> slots;
    OP_REQUIRES_OK(context, Collect(context, variables, &subjects, &slots));
    thread::ThreadPool* workers = context->device()->tensorflow_cpu_worker_threads()->workers;
    std::vector<double> factors(count);
    Sum(workers, subjects, slots, statistics->flat<float>().data(), &factors);
    if (counted)
      CountAll(workers, subjects, slots, places_, factors, {}, lowest_, highest_, columns_,
               histograms->flat<float>().data());
  }

 private:
  Status Collect(OpKernelContext* context, const OpInputList& variables,
                 std::vector<Subject>* subjects, std::vector<Tensor>* slots) {
    OpInputList before, gradients, rows, slot_handles;
    const Tensor* norms;
    TF_RETURN_IF_ERROR(context->input_list("before", &before));
    TF_RETURN_IF_ERROR(context->input_list("gradients", &gradients));
    TF_RETURN_IF_ERROR(context->input_list("rows", &rows));
    TF_RETURN_IF_ERROR(context->input_list("slots", &slot_handles));
    TF_RETURN_IF_ERROR(context->input("norms", &norms));
    const int count = variables.size();
    if (before.size() != count || gradients.size() != count || static_cast<int>(norms_.size()) != count ||
        rows.size() != static_cast<int>(sparse_.size()) ||
        slot_handles.size() != static_cast<int>(owners_.size()) ||
        owners_.size() != places_.size())
      return errors::InvalidArgument("lists that belong together differ in length");
    subjects->resize(count);
    for (int i = 0; i < count; ++i) {
      Subject& subject = (*subjects)[i];
      TF_RETURN_IF_ERROR(Value(context, variables[i], &subject.after));
      subject.before = before[i];
      subject.gradient = gradients[i];
      if (norms_[i] < 0 || norms_[i] >= norms->NumElements())
        return errors::InvalidArgument("there is no norm for a gradient");
      subject.norm = norms->flat<float>()(norms_[i]);
    }
    for (size_t k = 0; k < sparse_.size(); ++k) {
      Subject& subject = (*subjects)[sparse_[k]];
      subject.rows = &rows[k];
      subject.width = RowWidth(subject.after);
      TF_RETURN_IF_ERROR(CheckRows(rows[k], subject.after));
    }
    for (const Subject& subject : *subjects) {
      const int64_t size = subject.after.NumElements();
      const int64_t held = subject.rows ? subject.rows->NumElements() * subject.width : size;
      if (subject.before.NumElements() != size || subject.gradient.NumElements() != held)
        return errors::InvalidArgument("a variable and its gradient differ in size");
    }
    slots->resize(slot_handles.size());
    for (int k = 0; k < slot_handles.size(); ++k) {
      TF_RETURN_IF_ERROR(Value(context, slot_handles[k], &(*slots)[k]));
      if (owners_[k] < 0 || owners_[k] >= count || places_[k] < 0 || places_[k] >= columns_)
        return errors::InvalidArgument("a slot has no place");
      (*subjects)[owners_[k]].slots.push_back(k);
    }
    return OkStatus();
  }

  void Sum(thread::ThreadPool* workers, const std::vector<Subject>& subjects,
           const std::vector<Tensor>& slots, float* statistics, std::vector<double>* factors) {
    std::vector<Task> tasks;
    const auto add = [&](Task::Kind kind, int owner, int slot, int64_t size, int64_t chunk) {
      for (int64_t first = 0; first < size; first += chunk)
        tasks.push_back({kind, owner, slot, first, std::min(size, first + chunk)});
    };
    int64_t total = 0;
    for (size_t i = 0; i < subjects.size(); ++i) {
      const Subject& subject = subjects[i];
      add(Task::kWeight, i, 0, subject.after.NumElements(), kChunk);
      total += 3 * subject.after.NumElements();
      if (subject.rows) {
        add(Task::kGradient, i, 0, subject.gradient.NumElements(), kChunk);
        add(Task::kRows, i, 0, subject.rows->NumElements(),
            std::max<int64_t>(1, kChunk / std::max<int64_t>(1, subject.width)));
      }
      for (int slot : subject.slots) {
        add(Task::kSlot, i, slot, slots[slot].NumElements(), kChunk);
        total += slots[slot].NumElements();
      }
    }
    std::vector<Part> parts(tasks.size());
    const auto work = [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t)
        parts[t] = Measured(tasks[t], subjects[tasks[t].owner], slots);
    };
    Share(workers, tasks.size(), total, kElementsToShare, work);

    std::vector<Part> sums(subjects.size());
    std::vector<double> slot_squares(slots.size(), 0.0);
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (tasks[t].kind == Task::kSlot) {
        slot_squares[tasks[t].slot] += parts[t].weight.squares;
        continue;
      }
      sums[tasks[t].owner].Add(parts[t]);
    }
    for (size_t i = 0; i < subjects.size(); ++i) {
      const Subject& subject = subjects[i];
      const int64_t absent = subject.after.NumElements() - subject.gradient.NumElements();
      float* row = statistics + i * (8 + columns_);
      (*factors)[i] = WriteRow(subject, sums[i], absent, columns_, row);
      for (int slot : subject.slots) row[7 + places_[slot]] = std::sqrt(slot_squares[slot]);
    }
  }

  static Part Measured(const Task& task, const Subject& subject, const std::vector<Tensor>& slots) {
    Part part;
    float a[kBlock], b[kBlock], g[kBlock], difference[kBlock];
    if (task.kind == Task::kRows) {
      for (int64_t row = task.first; row < task.last; ++row) {
        const int64_t at = subject.rows->flat<int64_t>()(row) * subject.width;
        for (int64_t i = 0; i < subject.width; i += kBlock) {
          const int64_t count = std::min(kBlock, subject.width - i);
          Change(Load(subject.after, at + i, count, a), subject.after, subject.before, at + i, count,
                 b, difference);
          const float* values = Load(subject.gradient, row * subject.width + i, count, g);
          part.update.along += ExactProduct(difference, values, count);
        }
      }
      return part;
    }
    const bool at_a_glance = task.kind == Task::kWeight && !subject.rows &&
                             subject.after.dtype() != DT_DOUBLE;
    for (int64_t i = task.first; i < task.last; i += kBlock) {
      const int64_t count = std::min(kBlock, task.last - i);
      if (at_a_glance) {
        const float* now = Load(subject.after, i, count, a);
        const float* before = Load(subject.before, i, count, b);
        const float* gradient = Load(subject.gradient, i, count, g);
        Add(Look(now, before, gradient, count), now, before, gradient, count, &part);
        continue;
      }
      if (task.kind == Task::kSlot) {
        part.weight.squares += Squares(Load(slots[task.slot], i, count, a), count);
        continue;
      }
      double update = 0;
      if (task.kind == Task::kWeight) {
        const float* now = Load(subject.after, i, count, a);
        Change(now, subject.after, subject.before, i, count, b, difference);
        update = Squares(difference, count);
        part.weight.squares += Squares(now, count);
        part.update.squares += update;
        if (subject.rows) continue;
      }
      const float* values = Load(subject.gradient, i, count, g);
      const double squares = Squares(values, count);
      part.gradient.squares += squares;
      if (!subject.rows)
        part.update.along += Along(difference, update, values, squares, count);
      Examine(values, count, &part.gradient);
    }
    return part;
  }

  std::vector<int64_t> norms_, sparse_, owners_, places_;
  int64_t columns_, lowest_, highest_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_MEASURE_H_
