// How Keras's optimizers change variables, sixteen elements at a time.
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

INLINE Floats Sqrt(const Floats& values) {
  float lanes[kWide];
  std::memcpy(lanes, &values, sizeof lanes);
  for (int lane = 0; lane < kWide; ++lane) lanes[lane] = std::sqrt(lanes[lane]);
  return At(lanes);
}

INLINE Floats Masked(const Floats& values, const Ints& mask) {
  const Ints bits = reinterpret_cast<const Ints&>(values) & mask;
  return reinterpret_cast<const Floats&>(bits);
}

INLINE Floats Magnitude(const Floats& values) { return Masked(values, Ints{} + 0x7fffffff); }

INLINE Floats Larger(const Floats& one, const Floats& other) { return one > other ? one : other; }

// A rule takes its numbers `k` in the order in which `optimizers/fused.py` gives them.
#define RULE(name, amount, slots)                                                              \
  struct name {                                                                                \
    static constexpr int kNumbers = amount, kSlots = slots;                                    \
    const float* k;                                                                            \
    INLINE_MEMBER void operator()(const Floats& g, Floats& w, Floats* s) const;                \
  };                                                                                           \
  inline void name::operator()(const Floats& g, Floats& w, Floats* s) const

#define INLINE_MEMBER inline __attribute__((always_inline))

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
  s[1] = Larger(s[1] * k[2], Magnitude(g));
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
#undef INLINE_MEMBER

// Changes a block, and measures it if it is recorded.
template <typename Rule, bool kRecord>
INLINE void Over(const Block& block, Glance* found) {
  const Rule rule{block.numbers};
  Floats weight{}, update{}, along{}, squares{}, slots[kMostSlots] = {};
  Ints largest{}, zeros{};
  // `mask` keeps lanes that hold no element out of the sums.
  const auto step = [&](const float* g, const float* told, float* w, float* const* s, float* kept,
                        const Ints* mask) __attribute__((always_inline)) {
    const Floats before = At(w);
    Floats now = before, own[kMostSlots];
    for (int k = 0; k < Rule::kSlots; ++k) own[k] = At(s[k]);
    if (block.decayed) now = now - now * block.decay * block.rate;
    rule(At(g) * block.scale, now, own);
    std::memcpy(w, &now, sizeof now);
    for (int k = 0; k < Rule::kSlots; ++k) std::memcpy(s[k], &own[k], sizeof own[k]);
    if (!kRecord) return;
    std::memcpy(kept, &before, sizeof before);
    Floats change = now - before, gradient = At(told);
    if (mask) {
      now = Masked(now, *mask);
      change = Masked(change, *mask);
      gradient = Masked(gradient, *mask);
      for (int k = 0; k < Rule::kSlots; ++k) own[k] = Masked(own[k], *mask);
    }
    weight += now * now;
    update += change * change;
    along += change * gradient;
    squares += gradient * gradient;
    for (int k = 0; k < Rule::kSlots; ++k) slots[k] += own[k] * own[k];
    const Floats size = Magnitude(gradient);
    const Ints bits = reinterpret_cast<const Ints&>(size);
    largest = bits > largest ? bits : largest;
    zeros -= bits == 0;  // true is -1
  };
  int64_t i = 0;
  for (; i + kWide <= block.count; i += kWide) {
    float* own[kMostSlots];
    for (int k = 0; k < Rule::kSlots; ++k) own[k] = block.slots[k] + i;
    step(block.gradient + i, block.measured + i, block.weight + i, own, block.kept + i, nullptr);
  }
  const int64_t rest = block.count - i;
  if (rest > 0) {
    float g[kWide] = {0}, told[kWide] = {0}, w[kWide] = {0}, kept[kWide];
    float s[kMostSlots][kWide] = {{0}};
    float* own[kMostSlots];
    const size_t size = rest * sizeof(float);
    Ints mask;
    for (int lane = 0; lane < kWide; ++lane) mask[lane] = lane < rest ? -1 : 0;
    std::memcpy(g, block.gradient + i, size);
    if (kRecord) std::memcpy(told, block.measured + i, size);
    std::memcpy(w, block.weight + i, size);
    for (int k = 0; k < Rule::kSlots; ++k) {
      own[k] = s[k];
      std::memcpy(s[k], block.slots[k] + i, size);
    }
    step(g, told, w, own, kept, &mask);
    std::memcpy(block.weight + i, w, size);
    for (int k = 0; k < Rule::kSlots; ++k) std::memcpy(block.slots[k] + i, s[k], size);
    if (kRecord) std::memcpy(block.kept + i, kept, size);
  }
  if (!kRecord) return;
  *found = Sum(weight, update, along, squares, largest, zeros);
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
  FOR_EACH_PROCESSOR static void Change##name(const Block& block, Glance* found) {             \
    Over<name, false>(block, found);                                                           \
  }                                                                                            \
  FOR_EACH_PROCESSOR static void Measure##name(const Block& block, Glance* found) {            \
    Over<name, true>(block, found);                                                            \
  }

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
