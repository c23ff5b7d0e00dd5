// One pass over variables, their gradients and slots for all numbers of `disttrain/layers`, and on
// request a second one for the histograms. TensorFlow's own operations take eight passes and three
// temporaries for the same, and an operation each. `kernels/__init__.py` compiles this file and loads
// it; what the numbers mean is told by `disttrain/telemetry/statistics.py`, which computes the same
// where this file cannot be compiled.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
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
constexpr int64_t kElementsToShare = 2 * 1024 * 1024;
constexpr int kLanes = 32;
// Sums of squares between these have lost nothing in float32. Those of Adam's second moments, say,
// are often below.
constexpr float kLeast = 1e-28, kMost = 1e36;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

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
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      int64_t columns, lowest, highest;
      TF_RETURN_IF_ERROR(context->GetAttr("slot_columns", &columns));
      TF_RETURN_IF_ERROR(context->GetAttr("lowest_exponent", &lowest));
      TF_RETURN_IF_ERROR(context->GetAttr("highest_exponent", &highest));
      const auto unknown = shape_inference::InferenceContext::kUnknownDim;
      context->set_output(0, context->Matrix(unknown, 8 + columns));
      context->set_output(1, context->MakeShape({unknown, 3 + columns, 5 + highest - lowest}));
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

// Sixteen lanes, in as many registers as the processor needs.
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
constexpr int64_t kWide = 16;

#define INLINE static inline __attribute__((always_inline))

INLINE Floats At(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

INLINE float Total(const Floats& lanes) {
  float sum = 0;
  for (int lane = 0; lane < kWide; ++lane) sum += lanes[lane];
  return sum;
}

// The sum of products of `count` values.
FOR_EACH_PROCESSOR
float Product(const float* one, const float* other, int64_t count) {
  // Four sums, for an addition takes longer than it is until the next may begin.
  Floats a{}, b{}, c{}, d{};
  int64_t i = 0;
  for (; i + 4 * kWide <= count; i += 4 * kWide) {
    a += At(one + i) * At(other + i);
    b += At(one + i + kWide) * At(other + i + kWide);
    c += At(one + i + 2 * kWide) * At(other + i + 2 * kWide);
    d += At(one + i + 3 * kWide) * At(other + i + 3 * kWide);
  }
  float rest = 0;
  for (; i < count; ++i) rest += one[i] * other[i];
  return Total((a + b) + (c + d)) + rest;
}

// All sums of a variable with a dense gradient, in one pass.
struct Glance {
  float weight, update, along, gradient, largest;
  int64_t zeros;
};

FOR_EACH_PROCESSOR
Glance Look(const float* now, const float* before, const float* gradient, int64_t count) {
  Floats weight{}, update{}, along{}, squares{}, largest{};
  Ints zeros{};
  const Ints magnitude = Ints{} + 0x7fffffff;
  int64_t i = 0;
  for (; i + kWide <= count; i += kWide) {
    const Floats a = At(now + i), g = At(gradient + i), d = a - At(before + i);
    weight += a * a;
    update += d * d;
    along += d * g;
    squares += g * g;
    // By its bits, for a processor that flushes denormal numbers takes them for zeros.
    const Ints bits = reinterpret_cast<const Ints&>(g) & magnitude;
    const Floats size = reinterpret_cast<const Floats&>(bits);
    largest = size > largest ? size : largest;
    zeros -= bits == 0;  // true is -1
  }
  Glance found{Total(weight), Total(update), Total(along), Total(squares), 0, 0};
  for (int lane = 0; lane < kWide; ++lane) {
    found.largest = std::max(found.largest, largest[lane]);
    found.zeros += zeros[lane];
  }
  for (; i < count; ++i) {
    const float a = now[i], g = gradient[i], d = a - before[i];
    uint32_t bits;
    std::memcpy(&bits, &g, sizeof bits);
    found.weight += a * a;
    found.update += d * d;
    found.along += d * g;
    found.gradient += g * g;
    found.largest = std::max(found.largest, std::fabs(g));
    found.zeros += (bits << 1) == 0;
  }
  return found;
}

FOR_EACH_PROCESSOR
double ExactProduct(const float* one, const float* other, int64_t count) {
  double lanes[kLanes] = {0};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      lanes[lane] += static_cast<double>(one[i + lane]) * other[i + lane];
  for (; i < count; ++i) lanes[0] += static_cast<double>(one[i]) * other[i];
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

bool LostNothing(double squares) { return squares > kLeast && squares < kMost; }

double Squares(const float* values, int64_t count) {
  const float squares = Product(values, values, count);
  return LostNothing(squares) ? squares : ExactProduct(values, values, count);
}

FOR_EACH_PROCESSOR
void Difference(const float* one, const float* other, int64_t count, float* result) {
  for (int64_t i = 0; i < count; ++i) result[i] = one[i] - other[i];
}

// `now`, elements [at, at + count) of `after` as float32, less those of `before`.
void Change(const float* now, const Tensor& after, const Tensor& before, int64_t at, int64_t count,
            float* scratch, float* result) {
  if (after.dtype() != DT_DOUBLE) {
    Difference(now, Load(before, at, count, scratch), count, result);
    return;
  }
  // A step may be less than what float32 can tell apart.
  const double* to = after.flat<double>().data() + at;
  const double* from = before.flat<double>().data() + at;
  for (int64_t i = 0; i < count; ++i) result[i] = static_cast<float>(to[i] - from[i]);
}

// What the gradient's own columns need, for `count` values.
FOR_EACH_PROCESSOR
void Examine(const float* values, int64_t count, Sums* sums) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  float largest[kLanes] = {0};
  int32_t zeros[kLanes] = {0}, nonfinite[kLanes] = {0}, nan[kLanes] = {0};
  int64_t i = 0;
  const auto look = [&](float value, int lane) {
    const float size = std::fabs(value);
    largest[lane] = size > largest[lane] ? size : largest[lane];
    // By its bits, for a processor that flushes denormal numbers takes them for zeros.
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    zeros[lane] += (bits << 1) == 0;
    nonfinite[lane] += !(size <= kLargest);
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
      // A product is flushed as well.
      const float value = factor == 1.0f ? values[i] : values[i] * factor;
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
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

// The present value of a variable, shared with it.
Status Value(OpKernelContext* context, const Tensor& handle, Tensor* value) {
  core::RefCountPtr<Var> variable;
  TF_RETURN_IF_ERROR(LookupResource(context, handle.scalar<ResourceHandle>()(), &variable));
  tf_shared_lock lock(*variable->mu());
  if (!variable->copy_on_read_mode.load()) {
    *value = *variable->tensor();
    return OkStatus();
  }
  // Once updated by rows, a variable no longer makes a copy when it is assigned to.
  const Tensor& own = *variable->tensor();
  TF_RETURN_IF_ERROR(context->allocate_temp(own.dtype(), own.shape(), value));
  const StringPiece from = own.tensor_data();
  std::memcpy(const_cast<char*>(value->tensor_data().data()), from.data(), from.size());
  return OkStatus();
}

// Does `count` pieces of work, by several threads if there is enough of it: to wake them takes longer
// than a small group of variables, while other groups and updates keep them busy anyway.
template <typename Work>
void Share(thread::ThreadPool* workers, int64_t count, int64_t elements, const Work& work) {
  if (elements < kElementsToShare || count < 2)
    work(0, count);
  else
    workers->ParallelFor(count, elements / count, work);
}

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

// A variable with what belongs to it.
struct Subject {
  Tensor before, after, gradient;
  const Tensor* rows = nullptr;  // of a sparse gradient
  float norm = 0;
  int64_t width = 0;  // elements of a row
  std::vector<int> slots;
};

// Every task sums a chunk of one tensor; the order in which sums are added is always the same.
struct Task {
  enum Kind { kWeight, kGradient, kRows, kSlot } kind;
  int owner;
  int slot;
  int64_t first, last;
};

struct Part {
  Sums weight, update, gradient;
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
    if (counted) Count(workers, subjects, slots, factors, histograms->flat<float>().data());
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
      const Tensor& after = subject.after;
      if (after.dims() > 0 && after.dim_size(0) > 0)
        subject.width = after.NumElements() / after.dim_size(0);
      for (int64_t row = 0; row < rows[k].NumElements(); ++row) {
        const int64_t at = rows[k].flat<int64_t>()(row);
        if (at < 0 || at >= after.dim_size(0))
          return errors::InvalidArgument("a sparse gradient has a row that its variable lacks");
      }
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
    Share(workers, tasks.size(), total, work);

    std::vector<Part> sums(subjects.size());
    std::vector<double> slot_squares(slots.size(), 0.0);
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (tasks[t].kind == Task::kSlot) {
        slot_squares[tasks[t].slot] += parts[t].weight.squares;
        continue;
      }
      Part& sum = sums[tasks[t].owner];
      sum.weight.Add(parts[t].weight);
      sum.update.Add(parts[t].update);
      sum.gradient.Add(parts[t].gradient);
    }
    for (size_t i = 0; i < subjects.size(); ++i) {
      const Subject& subject = subjects[i];
      const Sums& gradient = sums[i].gradient;
      // Where the gradient was clipped by a factor, the norm before it tells what it was.
      const double given = std::sqrt(gradient.squares);
      const double norm = subject.norm;
      double factor = std::isfinite(norm) && std::isfinite(given) && given > 0 ? norm / given : 1.0;
      // Without a clip both norms are the same but for the order of their sums, or underflow.
      if (factor < 1.0 + 1e-5) factor = 1.0;
      (*factors)[i] = factor;
      const int64_t size = subject.after.NumElements();
      const int64_t absent = size - subject.gradient.NumElements();
      const double weight_norm = std::sqrt(sums[i].weight.squares);
      const double update_norm = std::sqrt(sums[i].update.squares);
      const double lengths = update_norm * given;
      float* row = statistics + i * (8 + columns_);
      row[0] = weight_norm;
      row[1] = norm;
      row[2] = update_norm;
      row[3] = weight_norm != 0 ? update_norm / weight_norm : 0.0;
      row[4] = gradient.nan > 0 ? kNaN : gradient.largest * factor;
      row[5] = size > 0 ? static_cast<double>(gradient.zeros + absent) / size : 0.0;
      row[6] = gradient.nonfinite;
      std::fill(row + 7, row + 7 + columns_, kNaN);
      for (int slot : subject.slots) row[7 + places_[slot]] = std::sqrt(slot_squares[slot]);
      row[7 + columns_] = lengths != 0 ? -sums[i].update.along / lengths : 0.0;
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
        const Glance found =
            Look(Load(subject.after, i, count, a), Load(subject.before, i, count, b),
                 Load(subject.gradient, i, count, g), count);
        if (LostNothing(found.weight) && LostNothing(found.update) && LostNothing(found.gradient)) {
          part.weight.squares += found.weight;
          part.update.squares += found.update;
          part.update.along += found.along;
          part.gradient.squares += found.gradient;
          part.gradient.largest = std::max(part.gradient.largest, found.largest);
          part.gradient.zeros += found.zeros;
          continue;
        }
        // Something is 0, very small, very large or not finite: with more care.
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
      if (!subject.rows && update != 0 && squares != 0)
        part.update.along += LostNothing(update) && LostNothing(squares)
                                 ? Product(difference, values, count)
                                 : ExactProduct(difference, values, count);
      Examine(values, count, &part.gradient);
    }
    return part;
  }

  void Count(thread::ThreadPool* workers, const std::vector<Subject>& subjects,
             const std::vector<Tensor>& slots, const std::vector<double>& factors,
             float* histograms) {
    const int64_t bins = 5 + highest_ - lowest_, quantities = 3 + columns_;
    std::fill(histograms, histograms + subjects.size() * quantities * bins, kNaN);
    struct Job {
      int owner, quantity, slot;
    };
    std::vector<Job> jobs;
    int64_t total = 0;
    for (size_t i = 0; i < subjects.size(); ++i) {
      const int owner = static_cast<int>(i);
      for (int quantity = 0; quantity < 3; ++quantity) jobs.push_back({owner, quantity, 0});
      for (int slot : subjects[i].slots)
        jobs.push_back({owner, 3 + static_cast<int>(places_[slot]), slot});
      total += (3 + subjects[i].slots.size()) * subjects[i].after.NumElements();
    }
    const auto count = [&](const Job& job) {
      const Subject& subject = subjects[job.owner];
      const Tensor& from = job.quantity > 2    ? slots[job.slot]
                           : job.quantity == 1 ? subject.gradient
                                               : subject.after;
      float a[kBlock], b[kBlock], difference[kBlock];
      Histogram histogram(lowest_, highest_);
      for (int64_t i = 0; i < from.NumElements(); i += kBlock) {
        const int64_t block = std::min(kBlock, from.NumElements() - i);
        const float* values = Load(from, i, block, a);
        if (job.quantity == 2) {
          Change(values, from, subject.before, i, block, b, difference);
          values = difference;
        }
        const double factor = job.quantity == 1 ? factors[job.owner] : 1.0;
        histogram.Count(values, block, static_cast<float>(factor));
      }
      if (job.quantity == 1)
        histogram.CountZeros(subject.after.NumElements() - subject.gradient.NumElements());
      histogram.Write(histograms + (job.owner * quantities + job.quantity) * bins);
    };
    Share(workers, jobs.size(), 4 * total, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) count(jobs[k]);
    });
  }

  std::vector<int64_t> norms_, sparse_, owners_, places_;
  int64_t columns_, lowest_, highest_;
};

REGISTER_KERNEL_BUILDER(Name("DisttrainSnapshot").Device(DEVICE_CPU), Snapshot);
REGISTER_KERNEL_BUILDER(Name("DisttrainMeasure").Device(DEVICE_CPU), Measure);

}  // namespace disttrain
