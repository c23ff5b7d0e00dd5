// Sums and counts over blocks of elements, in float32 where it loses nothing and in float64 elsewhere.

#ifndef DISTTRAIN_KERNELS_BLOCKS_H_
#define DISTTRAIN_KERNELS_BLOCKS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tensorflow/core/framework/tensor.h"

// One binary for all processors of its kind; the loader chooses. What is written for vectors takes the
// processor's own, `R`, for GCC moves those of more than a register holds through the stack by the word.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#define WITH_REGISTERS(result, name, parameters, arguments)                                    \
  __attribute__((target("avx512f"))) result name parameters { return name##In<Of64> arguments; } \
  __attribute__((target("avx2"))) result name parameters { return name##In<Of32> arguments; }  \
  __attribute__((target("default"))) result name parameters { return name##In<Of16> arguments; }
#else
#define FOR_EACH_PROCESSOR
#define WITH_REGISTERS(result, name, parameters, arguments) \
  result name parameters { return name##In<Of16> arguments; }
#endif

namespace disttrain {

using namespace tensorflow;  // NOLINT: TensorFlow's macros expect its names

constexpr int64_t kBlock = 1024;       // elements that are summed in float32
constexpr int kLanes = 32;
// Sums of squares between these have lost nothing in float32. Those of Adam's second moments, say,
// are often below.
constexpr float kLeast = 1e-28, kMost = 1e36;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

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

// Registers of so many bytes.
#define REGISTERS(bytes)                                              \
  struct Of##bytes {                                                  \
    typedef float Floats __attribute__((vector_size(bytes)));         \
    typedef int32_t Ints __attribute__((vector_size(bytes)));         \
    static constexpr int64_t kLanes = bytes / sizeof(float);          \
  };

REGISTERS(16)
REGISTERS(32)
REGISTERS(64)

#undef REGISTERS

// Lanes of a sum, with any registers, so that it is the same to the last bit on all processors. Where
// a register holds fewer, a block is gone through once for each part of the lanes: it is in the
// processor's nearest cache, and all sums of a pass in registers.
constexpr int64_t kWide = 16;

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

template <typename Vector>
INLINE Vector At(const void* from) {
  Vector values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

template <typename To, typename From>
INLINE To Bits(const From& values) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  return reinterpret_cast<const To&>(values);
}

INLINE float Total(const float* lanes) {
  float sum = 0;
  for (int lane = 0; lane < kWide; ++lane) sum += lanes[lane];
  return sum;
}

template <typename R>
INLINE float ProductIn(const float* one, const float* other, int64_t count) {
  // Four sums, for an addition takes longer than it is until the next may begin.
  constexpr int64_t kSums = 4, kParts = kWide / R::kLanes;
  typename R::Floats sums[kSums][kParts] = {};
  int64_t i = 0;
  for (; i + kSums * kWide <= count; i += kSums * kWide)
    for (int64_t k = 0; k < kSums; ++k)
      for (int64_t part = 0; part < kParts; ++part) {
        const int64_t at = i + k * kWide + part * R::kLanes;
        sums[k][part] += At<typename R::Floats>(one + at) * At<typename R::Floats>(other + at);
      }
  float rest = 0, lanes[kWide];
  for (; i < count; ++i) rest += one[i] * other[i];
  for (int64_t part = 0; part < kParts; ++part) {
    const typename R::Floats sum =
        (sums[0][part] + sums[1][part]) + (sums[2][part] + sums[3][part]);
    std::memcpy(lanes + part * R::kLanes, &sum, sizeof sum);
  }
  return Total(lanes) + rest;
}

// The sum of products of `count` values.
WITH_REGISTERS(float, Product, (const float* one, const float* other, int64_t count),
               (one, other, count))

// Sums over a block of a variable with its gradient.
struct Glance {
  float weight, update, along, gradient, largest;
  int64_t zeros;
  float slots[3];
};

// Of sixteen lanes each: squares of weight, update, update times gradient, and gradient; the largest
// magnitude and the zeros of the gradient.
struct Lanes {
  float weight[kWide], update[kWide], along[kWide], squares[kWide];
  int32_t largest[kWide], zeros[kWide];

  INLINE_MEMBER Glance Sum() const {
    Glance found{Total(weight), Total(update), Total(along), Total(squares)};
    int32_t bits = 0;
    for (int lane = 0; lane < kWide; ++lane) {
      bits = std::max(bits, largest[lane]);
      found.zeros += zeros[lane];
    }
    std::memcpy(&found.largest, &bits, sizeof bits);
    return found;
  }
};

// The lanes of them that are in registers.
template <typename R>
struct Sum {
  typedef typename R::Floats Floats;
  typedef typename R::Ints Ints;
  Floats weight{}, update{}, along{}, squares{};
  Ints largest{}, zeros{};

  INLINE_MEMBER void Add(const Floats& now, const Floats& change, const Floats& gradient) {
    weight += now * now;
    update += change * change;
    along += change * gradient;
    squares += gradient * gradient;
    // By its bits, for a processor that flushes denormal numbers takes them for zeros; those of
    // magnitudes are in the order of what they stand for.
    const Ints bits = Bits<Ints>(gradient) & (Ints{} + 0x7fffffff);
    largest = bits > largest ? bits : largest;
    zeros -= bits == 0;  // true is -1
  }

  INLINE_MEMBER void Write(int64_t part, Lanes* lanes) const {
    std::memcpy(lanes->weight + part, &weight, sizeof weight);
    std::memcpy(lanes->update + part, &update, sizeof update);
    std::memcpy(lanes->along + part, &along, sizeof along);
    std::memcpy(lanes->squares + part, &squares, sizeof squares);
    std::memcpy(lanes->largest + part, &largest, sizeof largest);
    std::memcpy(lanes->zeros + part, &zeros, sizeof zeros);
  }
};

template <typename R>
INLINE Glance LookIn(const float* now, const float* before, const float* gradient, int64_t count) {
  typedef typename R::Floats Floats;
  Lanes lanes;
  int64_t i = count / kWide * kWide;
  for (int64_t part = 0; part < kWide; part += R::kLanes) {
    Sum<R> sum;
    for (int64_t at = part; at < i; at += kWide) {
      const Floats a = At<Floats>(now + at);
      sum.Add(a, a - At<Floats>(before + at), At<Floats>(gradient + at));
    }
    sum.Write(part, &lanes);
  }
  Glance found = lanes.Sum();
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

// All of them in one pass.
WITH_REGISTERS(Glance, Look,
               (const float* now, const float* before, const float* gradient, int64_t count),
               (now, before, gradient, count))

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

FOR_EACH_PROCESSOR
bool AllZero(const float* values, int64_t count) {
  uint32_t any = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    any |= bits << 1;
  }
  return any == 0;
}

double Squares(const float* values, int64_t count) {
  const float squares = Product(values, values, count);
  if (LostNothing(squares)) return squares;
  // What no gradient has reached yet is common.
  return squares == 0 && AllZero(values, count) ? 0.0 : ExactProduct(values, values, count);
}

// The product of two blocks whose squares are known.
double Along(const float* one, double squares, const float* other, double other_squares,
             int64_t count) {
  if (squares == 0 || other_squares == 0) return 0;
  return LostNothing(squares) && LostNothing(other_squares) ? Product(one, other, count)
                                                            : ExactProduct(one, other, count);
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

  void Add(const Histogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }

  void Write(float* to) const { std::copy(counts_.begin(), counts_.end(), to); }

 private:
  int lowest_;
  std::vector<double> counts_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_BLOCKS_H_
