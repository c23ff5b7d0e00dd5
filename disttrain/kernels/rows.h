// What is recorded of a variable: a row of numbers, and its histograms.

#ifndef DISTTRAIN_KERNELS_ROWS_H_
#define DISTTRAIN_KERNELS_ROWS_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "blocks.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/threadpool.h"

namespace disttrain {

constexpr int64_t kChunk = 64 * 1024;  // elements of one task of the thread pool

// Does `count` pieces of work, by several threads if they have so many elements that to wake them
// takes less.
template <typename Work>
void Share(thread::ThreadPool* workers, int64_t count, int64_t elements, int64_t enough,
           const Work& work) {
  if (elements < enough || count < 2)
    work(0, count);
  else
    workers->ParallelFor(count, elements / count, work);
}

// Shapes of the outputs of operations that measure: rows of statistics, and histograms.
Status ShapesOfRows(shape_inference::InferenceContext* context) {
  int64_t columns, lowest, highest;
  TF_RETURN_IF_ERROR(context->GetAttr("slot_columns", &columns));
  TF_RETURN_IF_ERROR(context->GetAttr("lowest_exponent", &lowest));
  TF_RETURN_IF_ERROR(context->GetAttr("highest_exponent", &highest));
  const auto unknown = shape_inference::InferenceContext::kUnknownDim;
  context->set_output(0, context->Matrix(unknown, 8 + columns));
  context->set_output(1, context->MakeShape({unknown, 3 + columns, 5 + highest - lowest}));
  return OkStatus();
}

// A variable with what belongs to it.
struct Subject {
  Tensor before, after, gradient;
  const Tensor* rows = nullptr;  // of a sparse gradient
  int64_t width = 0;             // elements of a row
  float norm = 0;                // of the gradient before clipping
  double scale = 1;              // what the gradient is to be multiplied by
  std::vector<int> slots;
};

// Checks that a sparse gradient has rows that its variable has.
Status CheckRows(const Tensor& rows, const Tensor& variable) {
  if (variable.dims() < 1) return errors::InvalidArgument("a scalar has no rows");
  for (int64_t row = 0; row < rows.NumElements(); ++row) {
    const int64_t at = rows.flat<int64_t>()(row);
    if (at < 0 || at >= variable.dim_size(0))
      return errors::InvalidArgument("a sparse gradient has a row that its variable lacks");
  }
  return OkStatus();
}

int64_t RowWidth(const Tensor& variable) {
  const bool some = variable.dims() > 0 && variable.dim_size(0) > 0;
  return some ? variable.NumElements() / variable.dim_size(0) : 0;
}

// Sums over a part of a variable.
struct Part {
  Sums weight, update, gradient;

  void Add(const Part& other) {
    weight.Add(other.weight);
    update.Add(other.update);
    gradient.Add(other.gradient);
  }
};

// Adds what was seen of a block; all three are float32, and read again if float32 has lost anything.
void Add(const Glance& found, const float* now, const float* before, const float* gradient,
         int64_t count, Part* part) {
  if (LostNothing(found.weight) && LostNothing(found.update) && LostNothing(found.gradient)) {
    part->weight.squares += found.weight;
    part->update.squares += found.update;
    part->update.along += found.along;
    part->gradient.squares += found.gradient;
    part->gradient.largest = std::max(part->gradient.largest, found.largest);
    part->gradient.zeros += found.zeros;
    return;
  }
  // Something is 0, very small, very large or not finite: with more care.
  float difference[kBlock];
  Difference(now, before, count, difference);
  const double update = Squares(difference, count), squares = Squares(gradient, count);
  part->weight.squares += Squares(now, count);
  part->update.squares += update;
  part->gradient.squares += squares;
  part->update.along += Along(difference, update, gradient, squares, count);
  Examine(gradient, count, &part->gradient);
}

// Writes a row in the order of the schema, with `columns` slots.
//
// `absent` counts elements that the gradient does not hold. Returns what the gradient was divided by
// when it was clipped.
double WriteRow(const Subject& subject, const Part& sums, int64_t absent, int64_t columns, float* row) {
  const Sums& gradient = sums.gradient;
  const double given = std::sqrt(gradient.squares), norm = subject.norm;
  // Where the gradient was clipped, the norm before it tells what it was.
  const double scaled = given * subject.scale;
  double factor = std::isfinite(norm) && std::isfinite(scaled) && scaled > 0 ? norm / scaled : 1.0;
  // Without a clip both norms are the same but for the order of their sums, or underflow.
  if (factor < 1.0 + 1e-5) factor = 1.0;
  const int64_t size = subject.after.NumElements();
  const double weight_norm = std::sqrt(sums.weight.squares);
  const double update_norm = std::sqrt(sums.update.squares);
  const double lengths = update_norm * given;
  row[0] = weight_norm;
  row[1] = norm;
  row[2] = update_norm;
  row[3] = weight_norm != 0 ? update_norm / weight_norm : 0.0;
  row[4] = gradient.nan > 0 ? kNaN : gradient.largest * subject.scale * factor;
  row[5] = size > 0 ? static_cast<double>(gradient.zeros + absent) / size : 0.0;
  row[6] = gradient.nonfinite;
  std::fill(row + 7, row + 7 + columns, kNaN);
  row[7 + columns] = lengths != 0 ? -sums.update.along / lengths : 0.0;
  return subject.scale * factor;
}

// Writes the histograms of variables, float32 `[subjects, 3 + columns, bins]`. `places` are the columns
// of the slots, `factors` what each gradient is multiplied by, `updates` their updates' histograms
// where they are known already, else empty.
void CountAll(thread::ThreadPool* workers, const std::vector<Subject>& subjects,
              const std::vector<Tensor>& slots, const std::vector<int64_t>& places,
              const std::vector<double>& factors, const std::vector<Histogram>& updates, int lowest,
              int highest, int64_t columns, float* histograms) {
  const int64_t bins = 5 + highest - lowest, quantities = 3 + columns;
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
      jobs.push_back({owner, 3 + static_cast<int>(places[slot]), slot});
    total += (3 + subjects[i].slots.size()) * subjects[i].after.NumElements();
  }
  const auto count = [&](const Job& job) {
    const Subject& subject = subjects[job.owner];
    float* const to = histograms + (job.owner * quantities + job.quantity) * bins;
    if (job.quantity == 2 && !updates.empty()) {
      updates[job.owner].Write(to);
      return;
    }
    const Tensor& from = job.quantity > 2    ? slots[job.slot]
                         : job.quantity == 1 ? subject.gradient
                                             : subject.after;
    float a[kBlock], b[kBlock], difference[kBlock];
    Histogram histogram(lowest, highest);
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
    histogram.Write(to);
  };
  Share(workers, jobs.size(), total, kChunk, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) count(jobs[k]);
  });
}


}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_ROWS_H_
