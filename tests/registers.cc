// Compares rules and sums in registers of one size with those of another; prints what differs.

#include <cstdio>
#include <random>

#include "rules.h"

namespace disttrain {
namespace {

struct Outcome {
  std::vector<float> weight, kept, slots[kMostSlots];
  Glance found{};
};

template <typename R, typename Rule, bool kRecord>
Outcome Run(int64_t count, bool decayed) {
  std::mt19937 random(count);
  std::normal_distribution<float> normal;
  const auto values = [&](float size) {
    std::vector<float> made(count);
    for (float& value : made) value = size * normal(random);
    return made;
  };
  Outcome outcome;
  outcome.weight = values(1.0f);
  std::vector<float> gradient = values(1e-2f), measured = values(1e-2f);
  for (int64_t i = 0; i < count; i += 5) gradient[i] = measured[i] = i % 2 ? -0.0f : 0.0f;
  outcome.kept.assign(count, 0.0f);
  Block block{count, gradient.data(), measured.data(), outcome.weight.data()};
  for (int k = 0; k < kMostSlots; ++k) {
    outcome.slots[k] = values(1e-2f);
    for (float& value : outcome.slots[k]) value = std::fabs(value);
    block.slots[k] = outcome.slots[k].data();
  }
  // The fourth is epsilon in most rules; without one, lanes that hold no element become NaN.
  const float fourth = decayed ? 0.0f : 0.7f;
  const float numbers[9] = {1e-3f, 0.1f, 0.9f, fourth, 0.8f, 0.3f, 0.6f, 0.5f, 1e-7f};
  block.kept = outcome.kept.data();
  block.numbers = numbers;
  block.scale = 0.7f;
  block.decayed = decayed;
  block.decay = 0.01f;
  block.rate = 0.1f;
  Over<R, Rule, kRecord>(block, &outcome.found);
  return outcome;
}

bool Same(const std::vector<float>& one, const std::vector<float>& other) {
  return one.size() == other.size() &&
         std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0;
}

bool Same(const Glance& one, const Glance& other) {
  return std::memcmp(&one.weight, &other.weight, 5 * sizeof(float)) == 0 &&
         one.zeros == other.zeros && std::memcmp(one.slots, other.slots, sizeof one.slots) == 0;
}

bool Same(const Outcome& one, const Outcome& other) {
  for (int k = 0; k < kMostSlots; ++k)
    if (!Same(one.slots[k], other.slots[k])) return false;
  return Same(one.weight, other.weight) && Same(one.kept, other.kept) &&
         Same(one.found, other.found);
}

int compared = 0;

void Tell(const char* name, int64_t count, bool same) {
  ++compared;
  if (!same) std::printf("%s differs with %d elements\n", name, static_cast<int>(count));
}

template <typename Rule, bool kRecord>
void Compare(const char* name) {
  for (int64_t count : {1, 3, 16, 31, 1000, 1024})
    for (bool decayed : {false, true}) {
      const Outcome one = Run<Of16, Rule, kRecord>(count, decayed);
      Tell(name, count, Same(one, Run<Of32, Rule, kRecord>(count, decayed)));
      Tell(name, count, Same(one, Run<Of64, Rule, kRecord>(count, decayed)));
    }
}

void CompareSums() {
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  std::vector<float> a(1024), b(1024), g(1024);
  for (int i = 0; i < 1024; ++i) a[i] = normal(random), b[i] = normal(random), g[i] = normal(random);
  for (int64_t count : {1, 3, 16, 31, 64, 1000, 1024}) {
    const Glance seen = LookIn<Of16>(a.data(), b.data(), g.data(), count);
    Tell("Look", count, Same(seen, LookIn<Of32>(a.data(), b.data(), g.data(), count)));
    Tell("Look", count, Same(seen, LookIn<Of64>(a.data(), b.data(), g.data(), count)));
    const float sum = ProductIn<Of16>(a.data(), b.data(), count);
    Tell("Product", count, sum == ProductIn<Of32>(a.data(), b.data(), count));
    Tell("Product", count, sum == ProductIn<Of64>(a.data(), b.data(), count));
  }
}

}  // namespace
}  // namespace disttrain

#define COMPARE(name)                   \
  Compare<name, false>(#name);          \
  Compare<name, true>(#name " measured");

int main() {
  using namespace disttrain;
  COMPARE(Sgd)
  COMPARE(Momentum)
  COMPARE(Nesterov)
  COMPARE(Adam)
  COMPARE(Amsgrad)
  COMPARE(Adamax)
  COMPARE(Nadam)
  COMPARE(Adagrad)
  COMPARE(Adadelta)
  COMPARE(Rmsprop)
  COMPARE(RmspropMomentum)
  COMPARE(RmspropCentered)
  COMPARE(RmspropCenteredMomentum)
  COMPARE(Lion)
  COMPARE(Keep0)
  COMPARE(Keep1)
  COMPARE(Keep2)
  COMPARE(Keep3)
  CompareSums();
  std::printf("%d compared\n", compared);
}
