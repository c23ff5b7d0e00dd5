// Sums over the ranks of one host, through memory that they share.
//
// launch/mend_horovod.py adds this to Horovod, whose Gloo moves everything through TCP: ten messages
// a sum, and half a millisecond of processor time on each side.

#ifndef DISTTRAIN_SHARED_MEMORY_H
#define DISTTRAIN_SHARED_MEMORY_H

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "gloo/allgather.h"
#include "gloo/context.h"

namespace disttrain {

class SharedMemory {
public:
  // result[i] = a[i] and b[i] combined; result may be a.
  using Function = void (*)(void* result, const void* a, const void* b,
                            size_t count);

  // All ranks of a context call it. Null, on all of them, where they do not all share this host and
  // its process ids, or where one of them has DISTTRAIN_SHARED_MEMORY=0.
  static std::unique_ptr<SharedMemory>
  Open(const std::shared_ptr<gloo::Context>& context) {
    std::unique_ptr<SharedMemory> memory(new SharedMemory(context));
    if (context->size == 1) {
      return nullptr;
    }
    memory->ranks_ = Gather(context, memory->Introduce());
    const int opened = memory->Map();
    const auto all = Gather(context, opened);
    memory->CloseFile(); // what is mapped stays
    if (std::count(all.begin(), all.end(), 1) != context->size) {
      return nullptr;
    }
    return memory;
  }

  ~SharedMemory() {
    CloseFile();
    if (places_ != nullptr) {
      munmap(places_, Bytes());
    }
  }

  // Combines an array of each rank, in the order of ranks: the same bits on all of them.
  //
  // Throws std::runtime_error where a rank has ended or does not come before Gloo's timeout.
  void Reduce(void* data, size_t count, size_t element, Function function) {
    const size_t most = kSlot / element;
    for (size_t done = 0; done < count; done += most) {
      ReducePart(static_cast<uint8_t*>(data) + done * element,
                 std::min(most, count - done), element, function);
    }
  }

private:
  // What each rank tells the others.
  struct Rank {
    int64_t pid;
    int64_t started; // tells it from another process that gets its number
    int64_t file;
    uint64_t token;
  };

  // Of each rank, in the shared memory, on a cache line of its own.
  struct alignas(64) Place {
    std::atomic<uint32_t> arrived;  // at how many meetings
    std::atomic<uint32_t> sleepers; // ranks that have others wake them when it arrives
  };
  static_assert(sizeof(Place) == 64, "two would share a cache line");
  static_assert(sizeof(std::atomic<uint32_t>) == 4, "a futex has four bytes");

  // A slot holds a part of an array: small enough for caches, and few meetings for large arrays.
  static constexpr size_t kSlot = 1 << 20;
  // Up to here each rank combines everything by itself, which saves a meeting.
  static constexpr size_t kSmall = 16 << 10;
  // To sleep and be woken takes tens of microseconds, so that a short wait is better awake.
  static constexpr int kAwakeMicroseconds = 50;
  // How often a sleeper looks whether the other one is still there.
  static constexpr long kLookNanoseconds = 100'000'000;

  explicit SharedMemory(const std::shared_ptr<gloo::Context>& context)
      : rank_(context->rank), size_(context->size),
        timeout_(context->getTimeout()) {}

  template <typename T>
  static std::vector<T> Gather(const std::shared_ptr<gloo::Context>& context,
                               T own) {
    std::vector<T> all(context->size);
    gloo::AllgatherOptions options(context);
    options.setInput(&own, 1);
    options.setOutput(all.data(), all.size());
    gloo::allgather(options);
    return all;
  }

  // Who this is; rank 0 makes the memory.
  Rank Introduce() {
    Rank own{getpid(), Started(getpid()), -1, 0};
    const char* wanted = std::getenv("DISTTRAIN_SHARED_MEMORY");
    if (wanted != nullptr && std::string(wanted) == "0") {
      own.started = -1;
    } else if (rank_ == 0) {
      std::random_device random;
      own.token = (uint64_t(random()) << 32) | random();
      file_ = memfd_create(Name(own.token).c_str(), MFD_CLOEXEC);
      own.file = file_;
    }
    return own;
  }

  // Maps rank 0's memory. Whether all ranks were found, and it.
  bool Map() {
    for (const auto& rank : ranks_) {
      if (rank.started < 0 || Started(rank.pid) != rank.started) {
        return false;
      }
    }
    const auto& first = ranks_[0];
    if (rank_ == 0) {
      if (file_ < 0 || ftruncate(file_, Bytes()) != 0) {
        return false;
      }
    } else {
      const auto path = "/proc/" + std::to_string(first.pid) + "/fd/" +
                        std::to_string(first.file);
      // Another host may have a process of that number, too.
      std::vector<char> link(256);
      const auto length = readlink(path.c_str(), link.data(), link.size());
      const auto start = "/memfd:" + Name(first.token);
      if (length < static_cast<ssize_t>(start.size()) ||
          !std::equal(start.begin(), start.end(), link.begin())) {
        return false;
      }
      file_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
      if (file_ < 0) {
        return false;
      }
    }
    // Not all ranks may have come by here before rank 0 gives it its size.
    void* start = mmap(nullptr, Bytes(), PROT_READ | PROT_WRITE, MAP_SHARED,
                       file_, 0);
    if (start == MAP_FAILED) {
      return false;
    }
    places_ = static_cast<Place*>(start); // zeros
    return true;
  }

  void ReducePart(uint8_t* data, size_t count, size_t element,
                  Function function) {
    const size_t bytes = count * element;
    // Who writes to a slot again has been at the meeting in between, and so have its readers.
    turn_ = !turn_;
    std::memcpy(Slot(turn_, rank_), data, bytes);
    MeetOthers();
    if (size_ == 2 || bytes <= kSmall) {
      Combine(data, 0, count, element, function);
      return;
    }
    const size_t first = count * rank_ / size_;
    const size_t last = count * (rank_ + 1) / size_;
    Combine(Results() + first * element, first, last - first, element,
            function);
    MeetOthers();
    std::memcpy(data, Results(), bytes);
  }

  // Writes to `to` what the slots have from `first` on.
  void Combine(uint8_t* to, size_t first, size_t count, size_t element,
               Function function) {
    const size_t at = first * element;
    function(to, Slot(turn_, 0) + at, Slot(turn_, 1) + at, count);
    for (int rank = 2; rank < size_; ++rank) {
      function(to, to, Slot(turn_, rank) + at, count);
    }
  }

  // Returns once all ranks have called it as often as this one.
  void MeetOthers() {
    auto& own = places_[rank_];
    const uint32_t meeting = own.arrived.load(std::memory_order_relaxed) + 1;
    own.arrived.store(meeting);
    if (own.sleepers.load() > 0) {
      syscall(SYS_futex, &own.arrived, FUTEX_WAKE, INT_MAX, nullptr, nullptr,
              0);
    }
    for (int rank = 0; rank < size_; ++rank) {
      if (rank != rank_) {
        WaitFor(rank, meeting);
      }
    }
  }

  void WaitFor(int rank, uint32_t meeting) {
    const auto start = std::chrono::steady_clock::now();
    while (!HasArrived(rank, meeting)) {
      if (std::chrono::steady_clock::now() - start >
          std::chrono::microseconds(kAwakeMicroseconds)) {
        SleepUntil(rank, meeting, start + timeout_);
        return;
      }
      sched_yield(); // the other one may need this core
    }
  }

  void SleepUntil(int rank, uint32_t meeting,
                  std::chrono::steady_clock::time_point end) {
    auto& place = places_[rank];
    const struct timespec look = {0, kLookNanoseconds};
    ++place.sleepers;
    std::string gone;
    while (true) {
      const uint32_t seen = place.arrived.load();
      if (HasArrived(rank, meeting)) {
        break;
      }
      const long woken = syscall(SYS_futex, &place.arrived, FUTEX_WAIT, seen,
                                 &look, nullptr, 0);
      if (woken == 0 || errno != ETIMEDOUT) {
        continue;
      }
      const bool has_ended = Started(ranks_[rank].pid) != ranks_[rank].started;
      if (HasArrived(rank, meeting)) {
        break;
      }
      if (has_ended) {
        gone = "Connection closed by peer: rank " + std::to_string(rank) +
               " of those that sum together has ended";
        break;
      }
      if (std::chrono::steady_clock::now() > end) {
        gone = "Read timeout: rank " + std::to_string(rank) +
               " of those that sum together has not come for " +
               std::to_string(timeout_.count()) + " ms";
        break;
      }
    }
    --place.sleepers;
    if (!gone.empty()) {
      throw std::runtime_error(gone);
    }
  }

  bool HasArrived(int rank, uint32_t meeting) const {
    // The counts may overflow.
    return static_cast<int32_t>(places_[rank].arrived.load() - meeting) >= 0;
  }

  // When a process was started, in clock ticks; -1 if there is none, or it has ended.
  static int64_t Started(int64_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    const std::string all((std::istreambuf_iterator<char>(file)),
                          std::istreambuf_iterator<char>());
    const auto name_ends = all.rfind(')');
    if (name_ends == std::string::npos) {
      return -1;
    }
    std::istringstream rest(all.substr(name_ends + 1));
    const std::vector<std::string> words(
        (std::istream_iterator<std::string>(rest)),
        std::istream_iterator<std::string>());
    // The third field of `man 5 proc` comes first here, the 22nd is the start.
    if (words.size() < 20 || words[0] == "Z" || words[0] == "X") {
      return -1;
    }
    return std::stoll(words[19]);
  }

  static std::string Name(uint64_t token) {
    return "disttrain-" + std::to_string(token);
  }

  // Of each rank a place and two slots, and one slot of results; pages that nobody touches take no
  // memory.
  size_t Bytes() const { return kPage * size_ + kSlot * (2 * size_ + 1); }

  uint8_t* Slot(bool turn, int rank) const {
    return Results() + kSlot * (1 + (turn ? size_ : 0) + rank);
  }

  uint8_t* Results() const {
    return reinterpret_cast<uint8_t*>(places_) + kPage * size_;
  }

  void CloseFile() {
    if (file_ >= 0) {
      close(file_);
      file_ = -1;
    }
  }

  // More than a place, so that the slots begin on a page.
  static constexpr size_t kPage = 4096;

  const int rank_, size_;
  const std::chrono::milliseconds timeout_;
  std::vector<Rank> ranks_;
  int file_ = -1;
  Place* places_ = nullptr;
  bool turn_ = false;
};

} // namespace disttrain

#endif
