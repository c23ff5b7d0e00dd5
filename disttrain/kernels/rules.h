// How Keras's optimizers change variables, as many elements at a time as a register holds.
//
// Each rule has Keras's operations in Keras's order, so that the results are Keras's to the last bit.
// On request the same pass sums up what is recorded, while it waits for memory anyway.

#ifndef DISTTRAIN_KERNELS_RULES_H_
#define DISTTRAIN_KERNELS_RULES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "blocks.h"

namespace disttrain {

constexpr int kMostSlots = 3;

// A part of a variable, up to kBlock elements, with what belongs to it.
struct Block {
  int64_t count;
  const float* gradient;
  const float* measured;  // the gradient that is told of
  float* weight;
  float* slots[kMostSlots];
  float* kept;  // gets the elements before, where they are measured
  const float* numbers;
  float scale;  // of the gradient
  bool decayed;
  float decay, rate;
};

template <typename Floats>
INLINE Floats Sqrt(const Floats& values) {
  float lanes[sizeof values / sizeof(float)];
  std::memcpy(lanes, &values, sizeof lanes);
  for (float& lane : lanes) lane = std::sqrt(lane);
  return At<Floats>(lanes);
}

template <typename R>
INLINE typename R::Floats Masked(const typename R::Floats& values, const typename R::Ints& mask) {
  return Bits<typename R::Floats>(Bits<typename R::Ints>(values) & mask);
}

template <typename R>
INLINE typename R::Floats Magnitude(const typename R::Floats& values) {
  return Masked<R>(values, typename R::Ints{} + 0x7fffffff);
}

template <typename Floats>
INLINE Floats Larger(const Floats& one, const Floats& other) {
  return one > other ? one : other;
}

// A rule takes its numbers `k` in the order in which `optimizers/fused.py` gives them.
#define RULE(name, amount, slots)                                                              \
  struct name {                                                                                \
    static constexpr int kNumbers = amount, kSlots = slots;                                    \
    const float* k;                                                                            \
    template <typename R, typename Floats = typename R::Floats>                                \
    INLINE_MEMBER void Change(const Floats& g, Floats& w, Floats* s) const;                    \
  };                                                                                           \
  template <typename R, typename Floats>                                                       \
  inline void name::Change(const Floats& g, Floats& w, Floats* s) const

// Rate.
RULE(Sgd, 1, 0) { w = w - g * k[0]; }

// Rate and momentum.
RULE(Momentum, 2, 1) {
  s[0] = s[0] * k[1] - g * k[0];
  w = w + s[0];
}

RULE(Nesterov, 2, 1) {
  s[0] = s[0] * k[1] - g * k[0];
  w = w + (s[0] * k[1] - g * k[0]);
}

// Alpha, 1 - beta_1, 1 - beta_2, epsilon.
RULE(Adam, 4, 2) {
  s[0] = s[0] + (g - s[0]) * k[1];
  s[1] = s[1] + (g * g - s[1]) * k[2];
  w = w - (s[0] * k[0]) / (Sqrt(s[1]) + k[3]);
}

RULE(Amsgrad, 4, 3) {
  s[0] = s[0] + (g - s[0]) * k[1];
  s[1] = s[1] + (g * g - s[1]) * k[2];
  s[2] = Larger(s[2], s[1]);
  w = w - (s[0] * k[0]) / (Sqrt(s[2]) + k[3]);
}

// Rate, 1 - beta_1, beta_2, 1 - beta_1^t, epsilon.
RULE(Adamax, 5, 2) {
  s[0] = s[0] + (g - s[0]) * k[1];
  s[1] = Larger(s[1] * k[2], Magnitude<R>(g));
  w = w - (s[0] * k[0]) / ((s[1] + k[4]) * k[3]);
}

// Rate, 1 - beta_1, 1 - beta_2; factor and divisor of the momentum, and of the gradient; 1 - beta_2^t,
// epsilon.
RULE(Nadam, 9, 2) {
  s[0] = s[0] + (g - s[0]) * k[1];
  s[1] = s[1] + (g * g - s[1]) * k[2];
  const Floats ahead = (s[0] * k[3]) / k[4] + (g * k[5]) / k[6];
  w = w - (ahead * k[0]) / (Sqrt(s[1] / k[7]) + k[8]);
}

// Rate and epsilon.
RULE(Adagrad, 2, 1) {
  s[0] = s[0] + g * g;
  w = w - (g * k[0]) / Sqrt(s[0] + k[1]);
}

// Rate, rho, 1 - rho, epsilon.
RULE(Adadelta, 4, 2) {
  s[0] = s[0] * k[1] + (g * g) * k[2];
  const Floats change = -((Sqrt(s[1] + k[3]) * g) / Sqrt(s[0] + k[3]));
  s[1] = s[1] * k[1] + (change * change) * k[2];
  w = w + change * k[0];
}

// Rate, rho, 1 - rho, epsilon; and momentum.
RULE(Rmsprop, 4, 1) {
  s[0] = s[0] * k[1] + (g * g) * k[2];
  w = w - (g * k[0]) / Sqrt(s[0] + k[3]);
}

RULE(RmspropMomentum, 5, 2) {
  s[0] = s[0] * k[1] + (g * g) * k[2];
  s[1] = s[1] * k[4] + (g * k[0]) / Sqrt(s[0] + k[3]);
  w = w - s[1];
}

RULE(RmspropCentered, 4, 2) {
  s[0] = s[0] * k[1] + (g * g) * k[2];
  s[1] = s[1] * k[1] + g * k[2];
  w = w - (g * k[0]) / Sqrt(s[0] - s[1] * s[1] + k[3]);
}

RULE(RmspropCenteredMomentum, 5, 3) {
  s[0] = s[0] * k[1] + (g * g) * k[2];
  s[1] = s[1] * k[1] + g * k[2];
  s[2] = s[2] * k[4] + (g * k[0]) / Sqrt(s[0] - s[1] * s[1] + k[3]);
  w = w - s[2];
}

// Rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2.
RULE(Lion, 5, 1) {
  const Floats toward = s[0] * k[1] + g * k[2];
  const Floats one = Floats{} + 1.0f;
  const Floats sign = toward > 0.0f ? one : (toward < 0.0f ? -one : toward);  // of NaN, NaN
  w = w - sign * k[0];
  s[0] = s[0] * k[3] + g * k[4];
}

// What leaves everything as it is, and only has it measured.
RULE(Keep0, 0, 0) {}
RULE(Keep1, 0, 1) {}
RULE(Keep2, 0, 2) {}
RULE(Keep3, 0, 3) {}

#undef RULE

// Where a block lies, or a copy of its end that fills all lanes.
struct Place {
  const float *gradient, *measured;
  float *weight, *kept;
  float* slots[kMostSlots];
};

// Changes and measures one part of the lanes, from the elements at `first` to those before `last`.
// `mask` keeps lanes that hold no element out of the sums.
template <typename R, typename Rule, bool kRecord>
struct Pass {
  typedef typename R::Floats Floats;
  typedef typename R::Ints Ints;
  const Rule rule;
  const Block& block;
  Sum<R> sum;
  Floats slots[kMostSlots] = {};

  INLINE_MEMBER void Over(const Place& place, int64_t first, int64_t last, const int32_t* mask) {
    for (int64_t i = first; i < last; i += kWide) {
      const Floats before = At<Floats>(place.weight + i);
      Floats now = before, own[kMostSlots];
      for (int k = 0; k < Rule::kSlots; ++k) own[k] = At<Floats>(place.slots[k] + i);
      if (block.decayed) now = now - now * block.decay * block.rate;
      rule.template Change<R>(At<Floats>(place.gradient + i) * block.scale, now, own);
      std::memcpy(place.weight + i, &now, sizeof now);
      for (int k = 0; k < Rule::kSlots; ++k) std::memcpy(place.slots[k] + i, &own[k], sizeof now);
      if (!kRecord) continue;
      std::memcpy(place.kept + i, &before, sizeof before);
      Floats change = now - before, gradient = At<Floats>(place.measured + i);
      if (mask) {
        const Ints held = At<Ints>(mask + i);
        now = Masked<R>(now, held);
        change = Masked<R>(change, held);
        gradient = Masked<R>(gradient, held);
        for (int k = 0; k < Rule::kSlots; ++k) own[k] = Masked<R>(own[k], held);
      }
      sum.Add(now, change, gradient);
      for (int k = 0; k < Rule::kSlots; ++k) slots[k] += own[k] * own[k];
    }
  }
};

// Changes a block, and measures it if it is recorded.
template <typename R, typename Rule, bool kRecord>
INLINE void Over(const Block& block, Glance* found) {
  const int64_t whole = block.count / kWide * kWide, rest = block.count - whole;
  const size_t size = rest * sizeof(float);
  Place place{block.gradient, block.measured, block.weight, block.kept}, end;
  for (int k = 0; k < Rule::kSlots; ++k) place.slots[k] = block.slots[k];
  float g[kWide] = {0}, told[kWide] = {0}, w[kWide] = {0}, kept[kWide], s[kMostSlots][kWide] = {{0}};
  int32_t mask[kWide];
  if (rest > 0) {
    end = {g, told, w, kept};
    for (int lane = 0; lane < kWide; ++lane) mask[lane] = lane < rest ? -1 : 0;
    std::memcpy(g, block.gradient + whole, size);
    if (kRecord) std::memcpy(told, block.measured + whole, size);
    std::memcpy(w, block.weight + whole, size);
    for (int k = 0; k < Rule::kSlots; ++k) {
      end.slots[k] = s[k];
      std::memcpy(s[k], block.slots[k] + whole, size);
    }
  }
  Lanes lanes;
  float slots[kMostSlots][kWide];
  for (int64_t part = 0; part < kWide; part += R::kLanes) {
    Pass<R, Rule, kRecord> pass{{block.numbers}, block};
    pass.Over(place, part, whole, nullptr);
    if (rest > 0) pass.Over(end, part, kWide, mask);
    if (!kRecord) continue;
    pass.sum.Write(part, &lanes);
    for (int k = 0; k < Rule::kSlots; ++k)
      std::memcpy(slots[k] + part, &pass.slots[k], sizeof pass.slots[k]);
  }
  if (rest > 0) {
    std::memcpy(block.weight + whole, w, size);
    for (int k = 0; k < Rule::kSlots; ++k) std::memcpy(block.slots[k] + whole, s[k], size);
    if (kRecord) std::memcpy(block.kept + whole, kept, size);
  }
  if (!kRecord) return;
  *found = lanes.Sum();
  if (rest > 0) found->zeros -= kWide - rest;
  for (int k = 0; k < Rule::kSlots; ++k) found->slots[k] = Total(slots[k]);
}

typedef void (*OnBlock)(const Block& block, Glance* found);

struct Rule {
  const char* name;
  int numbers, slots;
  bool nothing_by_zero;  // whether a gradient of 0 changes neither variable nor slots
  OnBlock change, change_and_measure;
};

#define COMPILED(name)                                                                         \
  template <typename R>                                                                        \
  INLINE void Change##name##In(const Block& block, Glance* found) {                            \
    Over<R, name, false>(block, found);                                                        \
  }                                                                                            \
  template <typename R>                                                                        \
  INLINE void Measure##name##In(const Block& block, Glance* found) {                           \
    Over<R, name, true>(block, found);                                                         \
  }                                                                                            \
  WITH_REGISTERS(void, Change##name, (const Block& block, Glance* found), (block, found))      \
  WITH_REGISTERS(void, Measure##name, (const Block& block, Glance* found), (block, found))

COMPILED(Sgd)
COMPILED(Momentum)
COMPILED(Nesterov)
COMPILED(Adam)
COMPILED(Amsgrad)
COMPILED(Adamax)
COMPILED(Nadam)
COMPILED(Adagrad)
COMPILED(Adadelta)
COMPILED(Rmsprop)
COMPILED(RmspropMomentum)
COMPILED(RmspropCentered)
COMPILED(RmspropCenteredMomentum)
COMPILED(Lion)
COMPILED(Keep0)
COMPILED(Keep1)
COMPILED(Keep2)
COMPILED(Keep3)

#undef COMPILED

#define ENTRY(title, name, nothing_by_zero)                                                    \
  {title, name::kNumbers, name::kSlots, nothing_by_zero, Change##name, Measure##name}

const Rule kRules[] = {
    ENTRY("sgd", Sgd, true),
    ENTRY("momentum", Momentum, false),
    ENTRY("nesterov", Nesterov, false),
    ENTRY("adam", Adam, false),
    ENTRY("amsgrad", Amsgrad, false),
    ENTRY("adamax", Adamax, false),
    ENTRY("nadam", Nadam, false),
    ENTRY("adagrad", Adagrad, true),
    ENTRY("adadelta", Adadelta, false),
    ENTRY("rmsprop", Rmsprop, false),
    ENTRY("rmsprop_momentum", RmspropMomentum, false),
    ENTRY("rmsprop_centered", RmspropCentered, false),
    ENTRY("rmsprop_centered_momentum", RmspropCenteredMomentum, false),
    ENTRY("lion", Lion, false),
};

// By the number of slots of the rule that is not applied.
const Rule kKeep[kMostSlots + 1] = {
    ENTRY("", Keep0, true),
    ENTRY("", Keep1, true),
    ENTRY("", Keep2, true),
    ENTRY("", Keep3, true),
};

#undef ENTRY

const Rule* FindRule(const std::string& name) {
  for (const Rule& rule : kRules)
    if (name == rule.name) return &rule;
  return nullptr;
}

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_RULES_H_
