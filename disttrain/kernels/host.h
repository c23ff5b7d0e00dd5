// Sums over ranks that share a host, through memory that they share.
//
// `replication/host.py` lets them find each other. The operation waits for the other ranks where it
// stands: no other thread has to be woken, nobody is asked whether all are there, and a sum is one
// meeting.

#ifndef DISTTRAIN_KERNELS_HOST_H_
#define DISTTRAIN_KERNELS_HOST_H_

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "blocks.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/hash.h"

namespace disttrain {

// The memory of `ranks` ranks, of which this is one; `file` is open, and may be empty yet. Who waits
// for `tell_seconds` says so.
REGISTER_OP("DisttrainHost")
    .Output("host: resource")
    .Attr("file: int")
    .Attr("rank: int >= 0")
    .Attr("ranks: int >= 2")
    .Attr("tell_seconds: float")
    .SetIsStateful()
    .SetShapeFn(shape_inference::ScalarShape);

// Sums tensors over the ranks, in their order: the same bits on all of them. `what` they are is the
// same on all ranks.
//
// TensorFlow keeps in order what uses the same resource, so that all ranks come to the same sums in
// the same order.
REGISTER_OP("DisttrainSum")
    .Input("host: resource")
    .Input("values: N * T")
    .Output("sums: N * T")
    .Attr("N: int >= 1")
    .Attr("T: {float, double, int32, int64}")
    .Attr("what: string")
    .SetIsStateful()
    .SetShapeFn([](shape_inference::InferenceContext* context) {
      for (int i = 0; i < context->num_outputs(); ++i) context->set_output(i, context->input(i + 1));
      return OkStatus();
    });

class Host : public ResourceBase {
 public:
  Host(int file, int rank, int ranks, float tell_seconds)
      : file_(file), rank_(rank), ranks_(ranks), tell_seconds_(tell_seconds) {}

  ~Host() override {
    if (places_ != nullptr) munmap(places_, Bytes());
  }

  std::string DebugString() const override {
    return strings::StrCat("rank ", rank_, " of ", ranks_, " of a host");
  }

  Status Map() {
    if (rank_ == 0 && ftruncate(file_, Bytes()) != 0)
      return errors::Unavailable("no memory to share: ", std::strerror(errno));
    void* start = mmap(nullptr, Bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (start == MAP_FAILED)
      return errors::Unavailable("no memory to share: ", std::strerror(errno));
    places_ = static_cast<Place*>(start);  // zeros
    return OkStatus();
  }

  template <typename T>
  Status Sum(const std::vector<const T*>& from, const std::vector<T*>& to,
             const std::vector<int64_t>& sizes, const std::string& what) {
    mutex_lock lock(one_at_a_time_);
    int64_t total = 0;
    sizes_ = sizeof(T);
    for (const int64_t size : sizes) {
      total += size;
      sizes_ = Hash64Combine(sizes_, size);
    }
    what_ = strings::StrCat("'", what, "' (", total, " numbers)").substr(0, kWhat - 1);
    Walk<T> sent(sizes), got(sizes);
    const int64_t most = kSlot / sizeof(T);
    for (int64_t done = 0; done < total; done += most) {
      const int64_t count = std::min(most, total - done);
      turn_ = !turn_;
      T* slot = Slot<T>(rank_);
      sent.Next(count, [&](size_t tensor, int64_t at, int64_t n) {
        std::memcpy(slot, from[tensor] + at, n * sizeof(T));
        slot += n;
      });
      TF_RETURN_IF_ERROR(Meet());
      const T* summed = nullptr;
      if (ranks_ > 2 && count * sizeof(T) > kSmall) {
        const int64_t first = count * rank_ / ranks_, last = count * (rank_ + 1) / ranks_;
        Add(Slot<T>(0) + first, Slot<T>(1) + first, last - first, Results<T>() + first);
        for (int rank = 2; rank < ranks_; ++rank)
          Add(Results<T>() + first, Slot<T>(rank) + first, last - first, Results<T>() + first);
        TF_RETURN_IF_ERROR(Meet());
        summed = Results<T>();
      }
      int64_t place = 0;
      got.Next(count, [&](size_t tensor, int64_t at, int64_t n) {
        T* out = to[tensor] + at;
        if (summed != nullptr) {
          std::memcpy(out, summed + place, n * sizeof(T));
        } else {
          Add(Slot<T>(0) + place, Slot<T>(1) + place, n, out);
          for (int rank = 2; rank < ranks_; ++rank) Add(out, Slot<T>(rank) + place, n, out);
        }
        place += n;
      });
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kWhat = 60;

  // Of each rank, on cache lines of its own.
  struct alignas(64) Place {
    std::atomic<uint32_t> arrived;   // at how many meetings
    std::atomic<uint32_t> sleepers;  // ranks that have others wake them when it arrives
    // What it sums, at even meetings and at odd ones.
    uint64_t sizes[2];
    char what[2][kWhat];
  };
  static_assert(sizeof(Place) % 64 == 0, "two would share a cache line");
  static_assert(sizeof(std::atomic<uint32_t>) == 4, "a futex has four bytes");

  // Walks through tensors as if they were one.
  template <typename T>
  class Walk {
   public:
    explicit Walk(const std::vector<int64_t>& sizes) : sizes_(sizes) {}

    // Calls `each(tensor, at, n)` for the pieces of the next `count` elements.
    template <typename Each>
    void Next(int64_t count, const Each& each) {
      while (count > 0) {
        const int64_t n = std::min(count, sizes_[tensor_] - at_);
        if (n > 0) each(tensor_, at_, n);
        count -= n;
        at_ += n;
        if (at_ == sizes_[tensor_]) ++tensor_, at_ = 0;
      }
    }

   private:
    const std::vector<int64_t>& sizes_;
    size_t tensor_ = 0;
    int64_t at_ = 0;
  };

  // A slot holds a part of what is summed: small enough for caches, and few meetings for large sums.
  static constexpr int64_t kSlot = 1 << 18;
  // Up to here each of several ranks adds everything by itself, which saves a meeting.
  static constexpr int64_t kSmall = 16 << 10;
  // To sleep and be woken takes tens of microseconds, so that a short wait is better awake.
  static constexpr int kAwakeMicroseconds = 50;
  // How often a sleeper looks whether the others are still there.
  static constexpr long kLookNanoseconds = 100'000'000;
  static constexpr size_t kPage = 4096;

  template <typename T>
  static void Add(const T* a, const T* b, int64_t count, T* sum) {
    for (int64_t i = 0; i < count; ++i) sum[i] = a[i] + b[i];
  }

  // Returns once all ranks have called it as often as this one.
  Status Meet() {
    if (!broken_.empty()) return errors::Internal(broken_);
    Place& own = places_[rank_];
    const uint32_t meeting = own.arrived.load(std::memory_order_relaxed) + 1;
    const int turn = meeting % 2;
    own.sizes[turn] = sizes_;
    std::strcpy(own.what[turn], what_.c_str());
    own.arrived.store(meeting);
    if (own.sleepers.load() > 0)
      syscall(SYS_futex, &own.arrived, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    for (int rank = 0; rank < ranks_ && broken_.empty(); ++rank) {
      if (rank == rank_) continue;
      WaitFor(rank, meeting);
      const Place& other = places_[rank];
      if (broken_.empty() && (what_ != other.what[turn] || sizes_ != other.sizes[turn]))
        broken_ = strings::StrCat("rank ", rank_, " sums ", what_, ", while rank ", rank, " sums ",
                                  what_ == other.what[turn] ? "tensors of other sizes" : other.what[turn],
                                  "; all ranks have to sum the same tensors in the same order");
    }
    return broken_.empty() ? OkStatus() : errors::Internal(broken_);
  }

  void WaitFor(int rank, uint32_t meeting) {
    const auto start = std::chrono::steady_clock::now();
    while (!HasArrived(rank, meeting)) {
      if (std::chrono::steady_clock::now() - start > std::chrono::microseconds(kAwakeMicroseconds))
        return SleepUntil(rank, meeting, start);
      sched_yield();  // the other one may need this core
    }
  }

  void SleepUntil(int rank, uint32_t meeting, std::chrono::steady_clock::time_point start) {
    Place& place = places_[rank];
    const struct timespec look = {0, kLookNanoseconds};
    bool told = false;
    ++place.sleepers;
    while (true) {
      const uint32_t seen = place.arrived.load();
      if (HasArrived(rank, meeting)) break;
      const long woken =
          syscall(SYS_futex, &place.arrived, FUTEX_WAIT, seen, &look, nullptr, 0);
      if (woken == 0 || errno != ETIMEDOUT) continue;
      const int gone = Gone();
      if (HasArrived(rank, meeting)) break;
      if (gone >= 0) {
        broken_ = strings::StrCat("Horovod has lost rank ", gone, " of the ", ranks_, " that sum together");
        break;
      }
      const std::chrono::duration<float> waited = std::chrono::steady_clock::now() - start;
      if (!told && waited.count() > tell_seconds_) {
        std::fprintf(stderr, "disttrain: rank %d waits for rank %d to sum %s, for %.0f s now\n", rank_,
                     rank, what_.c_str(), waited.count());
        told = true;
      }
    }
    --place.sleepers;
  }

  bool HasArrived(int rank, uint32_t meeting) const {
    // The counts may overflow.
    return static_cast<int32_t>(places_[rank].arrived.load() - meeting) >= 0;
  }

  // A rank that no longer holds its byte of the file, as it does until it ends or becomes another
  // program; -1 if there is none.
  int Gone() const {
    for (int rank = 0; rank < ranks_; ++rank) {
      struct flock held = {};
      held.l_type = F_WRLCK;
      held.l_whence = SEEK_SET;
      held.l_start = rank;
      held.l_len = 1;
      if (rank != rank_ && fcntl(file_, F_GETLK, &held) == 0 && held.l_type == F_UNLCK) return rank;
    }
    return -1;
  }

  // A page of places, results, and of each rank a slot for each turn; pages that nobody touches take
  // no memory.
  size_t Places() const { return (sizeof(Place) * ranks_ + kPage - 1) / kPage * kPage; }
  size_t Bytes() const { return Places() + kSlot * (2 * ranks_ + 1); }

  template <typename T>
  T* Results() const {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(places_) + Places());
  }

  // Who writes to a slot again has been at the meeting in between, and so have its readers.
  template <typename T>
  T* Slot(int rank) const {
    return Results<T>() + kSlot / sizeof(T) * (1 + (turn_ ? ranks_ : 0) + rank);
  }

  const int file_, rank_, ranks_;
  const float tell_seconds_;
  Place* places_ = nullptr;
  mutex one_at_a_time_;
  bool turn_ = false;
  uint64_t sizes_ = 0;
  std::string what_, broken_;
};

class HostOp : public OpKernel {
 public:
  explicit HostOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("file", &file_));
    OP_REQUIRES_OK(context, context->GetAttr("rank", &rank_));
    OP_REQUIRES_OK(context, context->GetAttr("ranks", &ranks_));
    OP_REQUIRES_OK(context, context->GetAttr("tell_seconds", &tell_seconds_));
  }

  void Compute(OpKernelContext* context) override {
    auto host = core::RefCountPtr<Host>(new Host(file_, rank_, ranks_, tell_seconds_));
    OP_REQUIRES_OK(context, host->Map());
    Tensor* handle;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &handle));
    handle->scalar<ResourceHandle>()() = ResourceHandle::MakeRefCountingHandle(
        host.release(), context->device()->name(), {}, {});
  }

 private:
  int file_, rank_, ranks_;
  float tell_seconds_;
};

template <typename T>
class SumOp : public OpKernel {
 public:
  explicit SumOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("what", &what_));
  }

  void Compute(OpKernelContext* context) override {
    core::RefCountPtr<Host> host;
    OP_REQUIRES_OK(context, LookupResource(context, HandleFromInput(context, 0), &host));
    const int n = context->num_outputs();
    std::vector<const T*> from(n);
    std::vector<T*> to(n);
    std::vector<int64_t> sizes(n);
    for (int i = 0; i < n; ++i) {
      const Tensor& value = context->input(i + 1);
      Tensor* sum;
      OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({i + 1}, i, value.shape(), &sum));
      from[i] = static_cast<const T*>(value.data());
      to[i] = static_cast<T*>(sum->data());
      sizes[i] = value.NumElements();
    }
    OP_REQUIRES_OK(context, host->Sum(from, to, sizes, what_));
  }

 private:
  std::string what_;
};

}  // namespace disttrain

#endif  // DISTTRAIN_KERNELS_HOST_H_
