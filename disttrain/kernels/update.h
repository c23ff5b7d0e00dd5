// An optimizer's update of all variables at once, which on request measures them in the same pass:
// nothing has to be kept for it, and every number is read once.

#ifndef DISTTRAIN_KERNELS_UPDATE_H_
#define DISTTRAIN_KERNELS_UPDATE_H_

#include <string>
#include <vector>

#include "rows.h"
#include "rules.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "variables.h"

namespace disttrain {

// Elements for which other threads are woken.
constexpr int64_t kElementsToUpdate = 32 * 1024;

// `slots` lists those of the first variable in the order of the rule, then the second's, and so on, one
// tensor for several if that is known to be in order: for the graph each input takes its time;
// slot_places their columns, or -1. `rows` are those of the sparse gradients, whose variables are
// `sparse`. The rule gets each gradient times its own of `scales`; times `unscale` it is the gradient
// whose norm, but for a clip, is in `norms`; a clip that does more than to multiply leaves those before
// it in `unclipped`, which is empty else. `decay` holds weight decay and learning rate for the variables that
// are `decayed`. `places` tells in which row of the results a variable is, or -1; what no variable
// takes is NaN. Where nothing is recorded there are no rows. Where the update is not to be applied,
// nothing changes, and there are rows, for who looks for what is wrong.
REGISTER_OP("DisttrainUpdate")
    .Input("variables: N * resource")
    .Input("slots: S * resource")
    .Input("gradients: N * float")
    .Input("unclipped: U * float")
    .Input("rows: M * int64")
    .Input("numbers: float")
    .Input("decay: float")
    .Input("scales: float")
    .Input("unscale: float")
    .Input("apply: bool")
    .Input("norms: float")
    .Input("record: bool")
    .Input("with_histograms: bool")
    .Output("statistics: float")
    .Output("histograms: float")
    .Attr("N: int >= 1")
    .Attr("U: int >= 0")
    .Attr("M: int >= 0")
    .Attr("S: int >= 0")
    .Attr("rule: string")
    .Attr("decayed: list(bool) >= 1")
    .Attr("sparse: list(int) >= 0")
    .Attr("places: list(int) >= 1")
    .Attr("slot_places: list(int) >= 0")
    .Attr("result_rows: int")
    .Attr("slot_columns: int")
    .Attr("lowest_exponent: int")
    .Attr("highest_exponent: int")
    .SetIsStateful()
    .SetShapeFn(ShapesOfRows);

class Update : public OpKernel {
 public:
  explicit Update(OpKernelConstruction* context) : OpKernel(context) {
    std::string rule;
    OP_REQUIRES_OK(context, context->GetAttr("rule", &rule));
    rule_ = FindRule(rule);
    OP_REQUIRES(context, rule_ != nullptr, errors::InvalidArgument("unknown rule ", rule));
    OP_REQUIRES_OK(context, context->GetAttr("decayed", &decayed_));
    OP_REQUIRES_OK(context, context->GetAttr("sparse", &sparse_));
    OP_REQUIRES_OK(context, context->GetAttr("places", &places_));
    OP_REQUIRES_OK(context, context->GetAttr("slot_places", &slot_places_));
    OP_REQUIRES_OK(context, context->GetAttr("result_rows", &rows_));
    OP_REQUIRES_OK(context, context->GetAttr("slot_columns", &columns_));
    OP_REQUIRES_OK(context, context->GetAttr("lowest_exponent", &lowest_));
    OP_REQUIRES_OK(context, context->GetAttr("highest_exponent", &highest_));
  }

  void Compute(OpKernelContext* context) override {
    Step step;
    Held held;
    OP_REQUIRES_OK(context, Begin(context, &step, &held));
    const int64_t bins = 5 + highest_ - lowest_;
    Tensor *statistics, *histograms;
    const TensorShape rows({step.record ? rows_ : 0, 8 + columns_});
    const TensorShape counts({step.count ? rows_ : 0, 3 + columns_, bins});
    OP_REQUIRES_OK(context, context->allocate_output(0, rows, &statistics));
    OP_REQUIRES_OK(context, context->allocate_output(1, counts, &histograms));
    step.statistics = statistics->flat<float>().data();
    step.histograms = histograms->flat<float>().data();
    std::fill(step.statistics, step.statistics + statistics->NumElements(), kNaN);
    std::fill(step.histograms, step.histograms + histograms->NumElements(), kNaN);
    if (!step.apply && !step.record) return;
    OP_REQUIRES_OK(context, Apply(context, step, held));
  }

 private:
  // What the whole step has in common.
  struct Step {
    OpInputList gradients, unclipped, rows;
    const float *numbers, *norms, *scales;
    float decay, rate, unscale;
    const Rule* rule;
    bool apply, record, count;
    float *statistics, *histograms;

    // The gradient that is told of.
    const Tensor& measured(int i) const { return unclipped.size() ? unclipped[i] : gradients[i]; }
  };

  // What is being written to.
  struct Target {
    Tensor before, after;
    // Where the elements still have to be taken from `before`.
    bool to_copy() const { return before.NumElements() > 0; }
    float* data() { return after.flat<float>().data(); }
    const float* old() const { return before.flat<float>().data(); }
  };

  struct Owner {
    Target weight, slots[kMostSlots];
    const Tensor* rows = nullptr;
    int64_t width = 0;
    // For each row of the variable, which of the gradient's rows is its own, or -1.
    std::vector<int32_t> row_of;
    bool decayed, by_rows = false, record;
  };

  struct Task {
    int owner;
    int64_t first, last;  // elements, or rows of the gradient
  };

  struct Found : Part {
    double slots[kMostSlots] = {0};
    std::vector<Histogram> update;  // one, on request

    void Add(const Found& other) {
      Part::Add(other);
      for (int k = 0; k < kMostSlots; ++k) slots[k] += other.slots[k];
      for (size_t k = 0; k < update.size(); ++k) update[k].Add(other.update[k]);
    }
  };

  Status Begin(OpKernelContext* context, Step* step, Held* held) {
    OpInputList variables, slots;
    const Tensor *numbers, *decay, *scales, *unscale, *apply, *norms, *record, *count;
    TF_RETURN_IF_ERROR(context->input_list("variables", &variables));
    TF_RETURN_IF_ERROR(context->input_list("slots", &slots));
    TF_RETURN_IF_ERROR(context->input_list("gradients", &step->gradients));
    TF_RETURN_IF_ERROR(context->input_list("unclipped", &step->unclipped));
    TF_RETURN_IF_ERROR(context->input_list("rows", &step->rows));
    TF_RETURN_IF_ERROR(context->input("numbers", &numbers));
    TF_RETURN_IF_ERROR(context->input("decay", &decay));
    TF_RETURN_IF_ERROR(context->input("scales", &scales));
    TF_RETURN_IF_ERROR(context->input("unscale", &unscale));
    TF_RETURN_IF_ERROR(context->input("apply", &apply));
    TF_RETURN_IF_ERROR(context->input("norms", &norms));
    TF_RETURN_IF_ERROR(context->input("record", &record));
    TF_RETURN_IF_ERROR(context->input("with_histograms", &count));
    const size_t n = variables.size();
    const bool fits = numbers->NumElements() == rule_->numbers &&
                      decay->NumElements() == 2 && scales->NumElements() == n &&
                      norms->NumElements() == n &&
                      (step->unclipped.size() == 0 || step->unclipped.size() == n) && decayed_.size() == n && places_.size() == n &&
                      slot_places_.size() == n * rule_->slots && sparse_.size() == step->rows.size();
    if (!fits) return errors::InvalidArgument("lists that belong together differ in length");
    for (const int64_t place : places_)
      if (place >= rows_) return errors::InvalidArgument("there is no row for a variable");
    for (const int64_t place : slot_places_)
      if (place >= columns_) return errors::InvalidArgument("there is no column for a slot");
    for (const int64_t place : sparse_)
      if (place < 0 || place >= n) return errors::InvalidArgument("there is no such variable");
    step->numbers = numbers->flat<float>().data();
    step->norms = norms->flat<float>().data();
    step->decay = decay->flat<float>()(0);
    step->rate = decay->flat<float>()(1);
    step->scales = scales->flat<float>().data();
    step->unscale = unscale->scalar<float>()();
    step->apply = apply->scalar<bool>()();
    step->rule = step->apply ? rule_ : &kKeep[rule_->slots];
    step->record = rows_ > 0 && (record->scalar<bool>()() || !step->apply);
    step->count = step->record && count->scalar<bool>()();
    TF_RETURN_IF_ERROR(held->Hold(context, variables));
    TF_RETURN_IF_ERROR(held->Hold(context, slots));
    if (held->size() != n * (1 + rule_->slots))
      return errors::InvalidArgument("there are not as many slots as the rule needs");
    TF_RETURN_IF_ERROR(held->Lock());
    // Before anything is changed.
    for (size_t i = 0; i < n; ++i) TF_RETURN_IF_ERROR(Check(*step, *held, i));
    return OkStatus();
  }

  Status Check(const Step& step, const Held& held, int i) {
    const Tensor& weight = *held[i]->tensor();
    const Tensor* rows = nullptr;
    for (size_t k = 0; k < sparse_.size(); ++k)
      if (sparse_[k] == i) rows = &step.rows[k];
    if (rows) TF_RETURN_IF_ERROR(CheckRows(*rows, weight));
    const int64_t expected =
        rows ? rows->NumElements() * RowWidth(weight) : weight.NumElements();
    const bool in_shape = rows || step.gradients[i].shape() == weight.shape();
    if (!in_shape || step.gradients[i].NumElements() != expected ||
        step.measured(i).NumElements() != expected)
      return errors::InvalidArgument("a variable and its gradient differ in size");
    for (int k = -1; k < rule_->slots; ++k) {
      Var* variable = k < 0 ? held[i] : Slot(held, i, k);
      if (!variable->is_initialized)
        return errors::FailedPrecondition("a variable is not initialized");
      if (variable->tensor()->dtype() != DT_FLOAT)
        return errors::InvalidArgument("a variable is not float32");
      if (variable->tensor()->NumElements() != weight.NumElements())
        return errors::InvalidArgument("a variable and its slot differ in size");
    }
    return OkStatus();
  }

  Var* Slot(const Held& held, int variable, int k) const {
    return held[decayed_.size() + variable * rule_->slots + k];
  }

  Status Apply(OpKernelContext* context, const Step& step, const Held& held) {
    std::vector<Owner> owners(decayed_.size());
    std::vector<Task> tasks;
    int64_t total = 0;
    for (size_t i = 0; i < owners.size(); ++i) {
      Owner& owner = owners[i];
      TF_RETURN_IF_ERROR(Prepare(context, step, held, i, &owner));
      const int64_t size = owner.by_rows ? owner.rows->NumElements() : owner.weight.after.NumElements();
      const int64_t width = owner.by_rows ? std::max<int64_t>(1, owner.width) : 1;
      const int64_t chunk = std::max<int64_t>(1, kUpdateChunk / width);
      for (int64_t at = 0; at < size; at += chunk)
        tasks.push_back({static_cast<int>(i), at, std::min(size, at + chunk)});
      total += size * width;
    }
    Found nothing;
    if (step.count) nothing.update.emplace_back(lowest_, highest_);
    std::vector<Found> found(tasks.size(), nothing);
    thread::ThreadPool* workers = context->device()->tensorflow_cpu_worker_threads()->workers;
    Share(workers, tasks.size(), total * kCost, kElementsToUpdate * kCost,
          [&](int64_t from, int64_t to) {
            for (int64_t t = from; t < to; ++t) Do(step, owners, tasks[t], &found[t]);
          });
    if (!step.record) return OkStatus();
    std::vector<Found> sums(owners.size(), nothing);
    for (size_t t = 0; t < tasks.size(); ++t) sums[tasks[t].owner].Add(found[t]);
    Report(step, owners, sums, workers);
    return OkStatus();
  }

  Status Prepare(OpKernelContext* context, const Step& step, const Held& held, int i, Owner* owner) {
    owner->record = step.record && places_[i] >= 0;
    if (!step.apply && !owner->record) return OkStatus();
    owner->decayed = step.apply && decayed_[i];
    for (size_t k = 0; k < sparse_.size(); ++k)
      if (sparse_[k] == i) owner->rows = &step.rows[k];
    owner->width = RowWidth(*held[i]->tensor());
    owner->by_rows =
        owner->rows && step.rule->nothing_by_zero && !owner->decayed && !owner->record;
    TF_RETURN_IF_ERROR(Take(context, held[i], owner, &owner->weight));
    for (int k = 0; k < rule_->slots; ++k)
      TF_RETURN_IF_ERROR(Take(context, Slot(held, i, k), owner, &owner->slots[k]));
    if (owner->rows && !owner->by_rows) {
      owner->row_of.assign(owner->weight.after.dim_size(0), -1);
      for (int64_t row = 0; row < owner->rows->NumElements(); ++row)
        owner->row_of[owner->rows->flat<int64_t>()(row)] = row;
    }
    return OkStatus();
  }

  Status Take(OpKernelContext* context, Var* variable, Owner* owner, Target* target) {
    TF_RETURN_IF_ERROR(Write(context, variable, &target->before, &target->after));
    if (owner->by_rows && target->to_copy()) {
      // No task comes by all of its elements.
      std::memcpy(target->data(), target->old(), target->after.NumElements() * sizeof(float));
      target->before = Tensor();
    }
    return OkStatus();
  }

  void Do(const Step& step, std::vector<Owner>& owners, const Task& task, Found* found) const {
    Owner& owner = owners[task.owner];
    const float* values = step.gradients[task.owner].flat<float>().data();
    const float* told = step.measured(task.owner).flat<float>().data();
    const float scale = step.scales[task.owner];
    float spread[kBlock], spread_told[kBlock];
    if (!owner.by_rows) {
      for (int64_t at = task.first; at < task.last; at += kBlock) {
        const int64_t count = std::min(kBlock, task.last - at);
        const float* gradient = Gradient(owner, values, at, count, spread);
        const float* measured =
            told == values ? gradient : Gradient(owner, told, at, count, spread_told);
        DoBlock(step, owner, at, gradient, measured, scale, count, found);
      }
      return;
    }
    for (int64_t row = task.first; row < task.last; ++row)
      for (int64_t i = 0; i < owner.width; i += kBlock)
        DoBlock(step, owner, owner.rows->flat<int64_t>()(row) * owner.width + i,
                values + row * owner.width + i, nullptr, scale, std::min(kBlock, owner.width - i),
                found);
  }

  void DoBlock(const Step& step, Owner& owner, int64_t at, const float* gradient,
               const float* measured, float scale, int64_t count, Found* found) const {
    float kept[kBlock];
    Block block{count, gradient, measured, Reach(owner.weight, at, count)};
    for (int k = 0; k < rule_->slots; ++k) block.slots[k] = Reach(owner.slots[k], at, count);
    block.kept = kept;
    block.numbers = step.numbers;
    block.scale = scale;
    block.decayed = owner.decayed;
    block.decay = step.decay;
    block.rate = step.rate;
    if (!owner.record) {
      step.rule->change(block, nullptr);
      return;
    }
    Glance glance;
    step.rule->change_and_measure(block, &glance);
    disttrain::Add(glance, block.weight, kept, measured, count, found);
    for (int k = 0; k < rule_->slots; ++k)
      found->slots[k] += LostNothing(glance.slots[k]) ? glance.slots[k]
                                                      : Squares(block.slots[k], count);
    if (!step.count) return;
    float change[kBlock];
    Difference(block.weight, kept, count, change);
    found->update[0].Count(change, count, 1.0f);
  }

  // A block of a target, with its elements in it.
  static float* Reach(Target& target, int64_t at, int64_t count) {
    float* block = target.data() + at;
    if (target.to_copy()) std::memcpy(block, target.old() + at, count * sizeof(float));
    return block;
  }

  // A block of a gradient; `spread` holds it where rows are missing.
  static const float* Gradient(const Owner& owner, const float* values, int64_t at, int64_t count,
                               float* spread) {
    if (!owner.rows) return values + at;
    std::fill(spread, spread + count, 0.0f);
    for (int64_t i = at; i < at + count;) {
      const int64_t row = i / owner.width, within = i % owner.width;
      const int64_t some = std::min(owner.width - within, at + count - i);
      if (owner.row_of[row] >= 0)
        std::memcpy(spread + (i - at), values + owner.row_of[row] * owner.width + within,
                    some * sizeof(float));
      i += some;
    }
    return spread;
  }

  void Report(const Step& step, const std::vector<Owner>& owners, const std::vector<Found>& sums,
              thread::ThreadPool* workers) const {
    for (size_t i = 0; i < owners.size(); ++i) {
      const Owner& owner = owners[i];
      if (!owner.record) continue;
      const int64_t place = places_[i];
      Subject subject{Tensor(), owner.weight.after, step.measured(i)};
      subject.norm = step.norms[i];
      subject.scale = step.unscale;
      float* row = step.statistics + place * (8 + columns_);
      // A gradient that was spread has its zeros counted.
      const double factor = WriteRow(subject, sums[i], 0, columns_, row);
      std::vector<Tensor> slots;
      std::vector<int64_t> columns;
      for (int k = 0; k < rule_->slots; ++k) {
        const int64_t column = slot_places_[i * rule_->slots + k];
        if (column < 0) continue;
        row[7 + column] = std::sqrt(sums[i].slots[k]);
        subject.slots.push_back(slots.size());
        slots.push_back(owner.slots[k].after);
        columns.push_back(column);
      }
      if (step.count)
        CountAll(workers, {subject}, slots, columns, {factor}, sums[i].update, lowest_, highest_,
                 columns_, step.histograms + place * (3 + columns_) * (5 + highest_ - lowest_));
    }
  }

  // Elements of one task; about what a nanosecond is to the thread pool for each.
  static constexpr int64_t kUpdateChunk = 16 * 1024, kCost = 4;

  const Rule* rule_;
  std::vector<bool> decayed_;
  std::vector<int64_t> sparse_, places_, slot_places_;
  int64_t rows_, columns_, lowest_, highest_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_UPDATE_H_
