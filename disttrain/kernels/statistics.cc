// One pass over a variable, its gradient and its slots for all numbers of `disttrain/layers`, and on
// request a second one for the histograms. TensorFlow's own operations take eight passes and three
// temporaries for the same. `kernels/__init__.py` compiles this file and loads it; what the numbers
// mean is told by `disttrain/telemetry/statistics.py`, which computes the same where this file
// cannot be compiled.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/threadpool.h"

// One binary for all processors of its kind; the loader chooses.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace disttrain {

using namespace tensorflow;  // NOLINT: the macros below expect its names

constexpr int64_t kBlock = 1024;       // elements that are summed in float32
constexpr int64_t kChunk = 64 * 1024;  // elements of one task of the thread pool
constexpr int kLanes = 32;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

REGISTER_OP("DisttrainLayerStatistics")
    .Input("before: T")
    .Input("after: T")
    .Input("gradient: T")
    .Input("rows: int64")
    .Input("norm: float")
    .Input("slots: slot_types")
    .Input("with_histograms: bool")
    .Attr("T: {float, double, half, bfloat16}")
    .Attr("slot_types: list({float, double, half, bfloat16}) >= 0")
    .Attr("slot_places: list(int) >= 0")
    .Attr("slot_columns: int")
    .Attr("sparse: bool")
    .Attr("lowest_exponent: int")
    .Attr("highest_exponent: int")
    .Output("row: float")
    .Output("histograms: float")
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      int64_t columns, lowest, highest;
      TF_RETURN_IF_ERROR(context->GetAttr("slot_columns", &columns));
      TF_RETURN_IF_ERROR(context->GetAttr("lowest_exponent", &lowest));
      TF_RETURN_IF_ERROR(context->GetAttr("highest_exponent", &highest));
      context->set_output(0, context->Vector(8 + columns));
      context->set_output(1, context->Matrix(3 + columns, 5 + highest - lowest));
      return OkStatus();
    });

// Elements [at, at + count) of a tensor as float32; `scratch` holds them if they have to be made.
const float* Load(const Tensor& tensor, int64_t at, int64_t count, float* scratch) {
  if (tensor.dtype() == DT_FLOAT) return tensor.flat<float>().data() + at;
  const auto convert = [&](const auto* from) {
    for (int64_t i = 0; i < count; ++i) scratch[i] = static_cast<float>(from[i]);
  };
  if (tensor.dtype() == DT_DOUBLE) convert(tensor.flat<double>().data() + at);
  if (tensor.dtype() == DT_HALF) convert(tensor.flat<Eigen::half>().data() + at);
  if (tensor.dtype() == DT_BFLOAT16) convert(tensor.flat<bfloat16>().data() + at);
  return scratch;
}

struct Sums {
  double squares = 0, along = 0;
  float largest = 0;
  int64_t zeros = 0, nonfinite = 0, nan = 0;

  void Add(const Sums& other) {
    squares += other.squares;
    along += other.along;
    largest = std::max(largest, other.largest);
    zeros += other.zeros;
    nonfinite += other.nonfinite;
    nan += other.nan;
  }
};

// The sum of squares of `count` values. Lanes let the compiler use vectors without reordering sums.
FOR_EACH_PROCESSOR
float Squares(const float* values, int64_t count) {
  float lanes[kLanes] = {0};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane] * values[i + lane];
  for (; i < count; ++i) lanes[0] += values[i] * values[i];
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

FOR_EACH_PROCESSOR
float Product(const float* one, const float* other, int64_t count) {
  float lanes[kLanes] = {0};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += one[i + lane] * other[i + lane];
  for (; i < count; ++i) lanes[0] += one[i] * other[i];
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

FOR_EACH_PROCESSOR
void Difference(const float* one, const float* other, int64_t count, float* result) {
  for (int64_t i = 0; i < count; ++i) result[i] = one[i] - other[i];
}

// What the gradient's own columns need, for `count` values.
FOR_EACH_PROCESSOR
void Examine(const float* values, int64_t count, Sums* sums) {
  constexpr float kMost = std::numeric_limits<float>::max();
  float largest[kLanes] = {0};
  int32_t zeros[kLanes] = {0}, nonfinite[kLanes] = {0}, nan[kLanes] = {0};
  int64_t i = 0;
  const auto look = [&](float value, int lane) {
    const float size = std::fabs(value);
    largest[lane] = size > largest[lane] ? size : largest[lane];
    zeros[lane] += value == 0.0f;
    nonfinite[lane] += !(size <= kMost);
    nan[lane] += value != value;
  };
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) look(values[i + lane], lane);
  for (; i < count; ++i) look(values[i], 0);
  for (int lane = 0; lane < kLanes; ++lane) {
    sums->largest = std::max(sums->largest, largest[lane]);
    sums->zeros += zeros[lane];
    sums->nonfinite += nonfinite[lane];
    sums->nan += nan[lane];
  }
}

// Counts of one quantity, in the order of the schema's bins.
class Histogram {
 public:
  Histogram(int lowest, int highest) : lowest_(lowest), counts_(5 + highest - lowest) {}

  void Count(const float* values, int64_t count, float factor) {
    uint32_t table[512] = {0};
    for (int64_t i = 0; i < count; ++i) {
      const float value = values[i] * factor;
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      // By its bits, for a processor that flushes denormal numbers takes them for zeros.
      if ((bits << 1) == 0)
        counts_[0] += 1;
      else if (value != value)
        counts_[2] += 1;
      else
        ++table[bits >> 23];
    }
    const int last = static_cast<int>(counts_.size()) - 1;
    for (int entry = 0; entry < 512; ++entry) {
      if (table[entry] == 0) continue;
      const int exponent = (entry & 255) - 127;
      if (entry > 255) counts_[1] += table[entry];
      if (exponent == 128)
        counts_[3] += table[entry];
      else
        counts_[std::clamp(4 + exponent - lowest_, 4, last)] += table[entry];
    }
  }

  void CountZeros(int64_t count) { counts_[0] += count; }

  void Write(float* to) const { std::copy(counts_.begin(), counts_.end(), to); }

 private:
  int lowest_;
  std::vector<double> counts_;
};

class LayerStatistics : public OpKernel {
 public:
  explicit LayerStatistics(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("slot_places", &places_));
    OP_REQUIRES_OK(context, context->GetAttr("slot_columns", &columns_));
    OP_REQUIRES_OK(context, context->GetAttr("sparse", &sparse_));
    OP_REQUIRES_OK(context, context->GetAttr("lowest_exponent", &lowest_));
    OP_REQUIRES_OK(context, context->GetAttr("highest_exponent", &highest_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& before = context->input(0);
    const Tensor& after = context->input(1);
    const Tensor& gradient = context->input(2);
    const Tensor& rows = context->input(3);
    const float norm = context->input(4).scalar<float>()();
    OpInputList slots;
    OP_REQUIRES_OK(context, context->input_list("slots", &slots));
    const Tensor* with_histograms;
    OP_REQUIRES_OK(context, context->input("with_histograms", &with_histograms));
    const bool sparse = sparse_;
    const int64_t width =
        sparse ? after.NumElements() / std::max<int64_t>(1, after.dim_size(0)) : 0;
    OP_REQUIRES(context, before.NumElements() == after.NumElements(),
                errors::InvalidArgument("before and after differ in size"));
    OP_REQUIRES(context,
                gradient.NumElements() ==
                    (sparse ? rows.NumElements() * width : after.NumElements()),
                errors::InvalidArgument("the gradient does not have the variable's size"));
    OP_REQUIRES(context, slots.size() == static_cast<int>(places_.size()),
                errors::InvalidArgument("there are not as many slots as places for them"));

    // Every task sums a chunk of one tensor; the order in which sums are added is always the same.
    struct Task {
      enum Kind { kWeight, kGradient, kRows, kSlot } kind;
      int slot;
      int64_t first, last;
    };
    std::vector<Task> tasks;
    const auto add = [&](Task::Kind kind, int slot, int64_t size, int64_t chunk) {
      for (int64_t first = 0; first < size; first += chunk)
        tasks.push_back({kind, slot, first, std::min(size, first + chunk)});
    };
    add(Task::kWeight, 0, after.NumElements(), kChunk);
    if (sparse) {
      add(Task::kGradient, 0, gradient.NumElements(), kChunk);
      add(Task::kRows, 0, rows.NumElements(), std::max<int64_t>(1, kChunk / std::max<int64_t>(1, width)));
    }
    for (int slot = 0; slot < slots.size(); ++slot)
      add(Task::kSlot, slot, slots[slot].NumElements(), kChunk);

    struct Part {
      Sums weight, update, gradient;
    };
    std::vector<Part> parts(tasks.size());
    const auto work = [&](int64_t first_task, int64_t last_task) {
      float a[kBlock], b[kBlock], g[kBlock], difference[kBlock];
      for (int64_t t = first_task; t < last_task; ++t) {
        const Task& task = tasks[t];
        Part& part = parts[t];
        if (task.kind == Task::kRows) {
          for (int64_t row = task.first; row < task.last; ++row) {
            const int64_t at = rows.flat<int64_t>()(row) * width;
            for (int64_t i = 0; i < width; i += kBlock) {
              const int64_t count = std::min(kBlock, width - i);
              Difference(Load(after, at + i, count, a), Load(before, at + i, count, b), count,
                         difference);
              part.update.along +=
                  Product(difference, Load(gradient, row * width + i, count, g), count);
            }
          }
          continue;
        }
        for (int64_t i = task.first; i < task.last; i += kBlock) {
          const int64_t count = std::min(kBlock, task.last - i);
          if (task.kind == Task::kSlot) {
            part.weight.squares += Squares(Load(slots[task.slot], i, count, a), count);
          } else if (task.kind == Task::kGradient) {
            const float* values = Load(gradient, i, count, g);
            part.gradient.squares += Squares(values, count);
            Examine(values, count, &part.gradient);
          } else {
            const float* now = Load(after, i, count, a);
            Difference(now, Load(before, i, count, b), count, difference);
            part.weight.squares += Squares(now, count);
            part.update.squares += Squares(difference, count);
            if (!sparse) {
              const float* values = Load(gradient, i, count, g);
              part.update.along += Product(difference, values, count);
              part.gradient.squares += Squares(values, count);
              Examine(values, count, &part.gradient);
            }
          }
        }
      }
    };
    thread::ThreadPool* workers =
        context->device()->tensorflow_cpu_worker_threads()->workers;
    workers->ParallelFor(tasks.size(), kChunk, work);

    Sums weight, update, seen;
    std::vector<double> slot_squares(slots.size(), 0.0);
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (tasks[t].kind == Task::kSlot) {
        slot_squares[tasks[t].slot] += parts[t].weight.squares;
        continue;
      }
      weight.Add(parts[t].weight);
      update.Add(parts[t].update);
      seen.Add(parts[t].gradient);
    }

    // Where the gradient was clipped by a factor, the norm before it tells what it was.
    const double given = std::sqrt(seen.squares);
    double factor = std::isfinite(norm) && std::isfinite(given) && given > 0 ? norm / given : 1.0;
    if (std::fabs(factor - 1.0) < 1e-5) factor = 1.0;
    const int64_t size = after.NumElements();
    const int64_t absent = sparse ? size - gradient.NumElements() : 0;
    const double weight_norm = std::sqrt(weight.squares);
    const double update_norm = std::sqrt(update.squares);
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({8 + columns_}), &output));
    float* row = output->flat<float>().data();
    row[0] = weight_norm;
    row[1] = norm;
    row[2] = update_norm;
    row[3] = weight_norm > 0 ? update_norm / weight_norm : 0.0;
    row[4] = seen.nan > 0 ? kNaN : seen.largest * factor;
    row[5] = size > 0 ? static_cast<double>(seen.zeros + absent) / size : 0.0;
    row[6] = seen.nonfinite;
    std::fill(row + 7, row + 7 + columns_, kNaN);
    for (int slot = 0; slot < slots.size(); ++slot)
      row[7 + places_[slot]] = std::sqrt(slot_squares[slot]);
    const double lengths = update_norm * given;
    row[7 + columns_] = lengths != 0 ? -update.along / lengths : 0.0;

    const int64_t bins = 5 + highest_ - lowest_;
    Tensor* counted;
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, TensorShape({3 + columns_, bins}), &counted));
    float* histograms = counted->flat<float>().data();
    if (!with_histograms->scalar<bool>()()) {
      std::fill(histograms, histograms + counted->NumElements(), 0.0f);
      return;
    }
    std::fill(histograms, histograms + counted->NumElements(), kNaN);
    const auto count = [&](int64_t quantity) {
      const int slot = static_cast<int>(quantity) - 3;
      const Tensor& from = slot >= 0 ? slots[slot] : quantity == 1 ? gradient : after;
      float a[kBlock], b[kBlock], difference[kBlock];
      Histogram histogram(lowest_, highest_);
      for (int64_t i = 0; i < from.NumElements(); i += kBlock) {
        const int64_t block = std::min(kBlock, from.NumElements() - i);
        const float* values = Load(from, i, block, a);
        if (quantity == 2) {
          Difference(values, Load(before, i, block, b), block, difference);
          values = difference;
        }
        histogram.Count(values, block, quantity == 1 ? static_cast<float>(factor) : 1.0f);
      }
      if (quantity == 1) histogram.CountZeros(absent);
      histogram.Write(histograms + (slot >= 0 ? 3 + places_[slot] : quantity) * bins);
    };
    workers->ParallelFor(3 + slots.size(), 4 * size + 1, [&](int64_t first, int64_t last) {
      for (int64_t quantity = first; quantity < last; ++quantity) count(quantity);
    });
  }

 private:
  std::vector<int64_t> places_;
  int64_t columns_, lowest_, highest_;
  bool sparse_;
};

REGISTER_KERNEL_BUILDER(Name("DisttrainLayerStatistics").Device(DEVICE_CPU), LayerStatistics);

}  // namespace disttrain
