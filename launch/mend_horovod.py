"""Mends Horovod's sources before `launch/setup.sh` builds them: `mend_horovod.py FOLDER`.

What each change brings is measured in docs/speed.md.
"""

import pathlib
import sys

# A cycle is when Horovod's background thread looks for work and asks the other ranks for theirs:
# once a millisecond, so that each sum waits half of that and an idle rank still works a thousand
# times a second. Here whatever is enqueued begins one, and so the time between them may be longer.
_WAKE = """\
namespace {
// Never destroyed: the background thread may outlive what is.
std::mutex& enqueued_mutex = *new std::mutex;
std::condition_variable& enqueued = *new std::condition_variable;
bool is_enqueued = false;

// Each rank counts the same ones, for a cycle ends on all or on none.
int cycles = 0;

Status Wake(Status status) {
  {
    std::lock_guard<std::mutex> guard(enqueued_mutex);
    is_enqueued = true;
  }
  enqueued.notify_one();
  return status;
}

void SleepUnlessEnqueued(HorovodGlobalState& state,
                         std::chrono::steady_clock::duration duration) {
  const auto ids = state.process_set_table.Ids();
  if (ids.size() > 1) {
    // A cycle waits for all ranks, also for those of another set that are at something else.
    duration = std::min<decltype(duration)>(duration, std::chrono::microseconds(1000));
  }
  for (auto id : ids) {
    // What others were not ready for: go and wait for them there.
    if (state.process_set_table.Get(id).tensor_queue.HasMessages()) {
      duration = std::min<decltype(duration)>(duration, std::chrono::microseconds(100));
    }
  }
  std::unique_lock<std::mutex> lock(enqueued_mutex);
  enqueued.wait_for(lock, duration, [] { return is_enqueued; });
  is_enqueued = false;
}
} // namespace

"""

# In each cycle the ranks find the bits that all have set, by a ring: 2(n - 1) messages, one after
# another. As a bit may be counted twice, twice the distance in each round takes log2(n).
_DISSEMINATE = """\
namespace {
void Disseminate(const std::shared_ptr<gloo::Context>& context,
                 std::vector<long long>& bits, int count,
                 void (*combine)(void*, const void*, const void*, size_t)) {
  const int size = context->size;
  const size_t bytes = count * sizeof(long long);
  std::vector<long long> received(count);
  auto own = context->createUnboundBuffer(bits.data(), bytes);
  auto other = context->createUnboundBuffer(received.data(), bytes);
  const auto slot = gloo::Slot::build(0x40, 0); // of no collective of Gloo's
  for (int distance = 1; distance < size; distance *= 2) {
    other->recv((context->rank - distance + size) % size, slot);
    own->send((context->rank + distance) % size, slot);
    own->waitSend(context->getTimeout());
    other->waitRecv(context->getTimeout());
    combine(bits.data(), bits.data(), received.data(), count);
  }
}
} // namespace

"""

_RING = """\
  gloo::AllreduceOptions opts(gloo_context_.ctx);
  opts.setOutput(bitvector.data(), count);
  void (*func)(void*, const void*, const void*, size_t) = &{function}<long long>;
  opts.setReduceFunction(gloo::AllreduceOptions::Func(func));
  gloo::allreduce(opts);
"""

# horovodrun asks these, in a process that imports TensorFlow to know: for seconds at each start.
_BUILT = """\
def {controller}_built(verbose=False):
    for ext_base_name in EXTENSIONS:
"""
_KNOWN = """\
def {controller}_built(verbose=False):
    return {known}  # as launch/setup.sh builds it
    for ext_base_name in EXTENSIONS:
"""

# To end a rank, horovodrun ends the children of the shell that runs it. A shell that has just begun
# may start the rank while it is looked at, which then runs on and holds horovodrun up for good; and
# one that is its own rank was stopped first and asked to end then, which it could not hear.
_SHELL = "def terminate_executor_shell_and_children(pid):\n"
_HOLD = """\
def _held(shell):
    try:
        shell.send_signal(signal.SIGSTOP)
        held = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE)
        while shell.status() not in held:
            time.sleep(0.001)
        return shell.children()
    except psutil.NoSuchProcess:
        return []


def _let_go(shell, end):
    try:
        if end:
            shell.terminate()
        shell.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        pass


"""
_CHILDREN = "    for child in p.children():\n"
_HELD = "    children = _held(p)\n    for child in children:\n"
_WAIT = "    gone, alive = psutil.wait_procs(p.children(),"
_WAIT_FOR = """\
    _let_go(p, end=not children)
    gone, alive = psutil.wait_procs(children or [p],"""
_ITSELF = "    try:\n        p.terminate()\n    except psutil.NoSuchProcess:\n        pass\n"

_LOOP = "bool RunLoopOnce(HorovodGlobalState& state);\n"
_AND = "void GlooController::CrossRankBitwiseAnd("
_DYNAMIC = "if (state.dynamic_process_sets"
_QUEUE = "process_set.tensor_queue.AddToTensorQueue"
_TRY = "std::unique_lock<std::mutex> lock(m_, std::try_to_lock);\n  if (!lock) {\n"
_PUSH = "  void PushMessageToQueue("
_HAS = """\
  bool HasMessages() const {
    std::lock_guard<std::mutex> guard(mutex_);
    return !message_queue_.empty();
  }

"""

#: File to `(text, its new text, how often it stands there)`.
CHANGES = {
    # It includes XLA headers that TensorFlow's wheel no longer carries; only XLA-compiled
    # collectives, which disttrain does not use, live in it.
    "horovod/tensorflow/CMakeLists.txt": [
        (
            'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
            "",
            1,
        ),
    ],
    # A process set takes the interface of its own context, which is never set, and so the address
    # of the machine's name, whatever horovodrun --network-interfaces says.
    "horovod/common/gloo/gloo_context.cc": [
        (
            "  }\n\n  attr device_attr;\n  device_attr.iface = gloo_iface_;\n",
            "  }\n\n  attr device_attr;\n  device_attr.iface = global_context.gloo_iface_;\n",
            1,
        ),
    ],
    "horovod/common/util.py": [
        (
            _BUILT.format(controller=controller),
            _KNOWN.format(controller=controller, known=known),
            1,
        )
        for controller, known in (("mpi", False), ("gloo", True))
    ],
    "horovod/runner/common/util/safe_shell_exec.py": [
        (_SHELL, _HOLD + _SHELL, 1),
        (_CHILDREN, _HELD, 1),
        (_WAIT, _WAIT_FOR, 1),
        (_ITSELF, "    _let_go(p, end=True)\n", 1),
    ],
    "horovod/common/gloo/gloo_controller.cc": [
        (_AND, _DISSEMINATE + _AND, 1),
        *(
            (
                _RING.format(function=function),
                f"  Disseminate(gloo_context_.ctx, bitvector, count, &{function}<long long>);\n",
                1,
            )
            for function in ("BitAnd", "BitOr")
        ),
    ],
    "horovod/common/operations.cc": [
        ("#include <cassert>\n", "#include <cassert>\n#include <condition_variable>\n", 1),
        (_LOOP, _WAKE + _LOOP, 1),
        (
            "std::this_thread::sleep_for(sleep_duration);",
            "SleepUnlessEnqueued(state, sleep_duration);",
            1,
        ),
        (f"{_QUEUE}(e, message);", f"Wake({_QUEUE}(e, message));", 4),
        (f"{_QUEUE}Multi(entries, messages);", f"Wake({_QUEUE}Multi(entries, messages));", 3),
        # Whether all know of a new process set costs a message to each rank.
        (
            f"{_DYNAMIC}) {{\n    // Initialize",
            f"{_DYNAMIC} && cycles++ % 8 == 0) {{\n    // Initialize",
            1,
        ),
        ("SetCycleTimeMs(1);", "SetCycleTimeMs(50);\n  cycles = 0;", 1),
    ],
    "horovod/common/tensor_queue.h": [(_PUSH, _HAS + _PUSH, 1)],
    # Gloo's thread asks again and again for a lock that another thread holds. Where both share a
    # core that goes on until the scheduler's next tick, up to 4 ms: let the other one go on.
    "third_party/gloo/gloo/transport/tcp/pair.cc": [
        ("#include <unistd.h>\n", "#include <unistd.h>\n\n#include <thread>\n", 1),
        (_TRY, f"{_TRY}    std::this_thread::yield();\n", 1),
    ],
}


def mend(folder):
    """Changes the sources in this folder.

    Args:
        folder: Path of Horovod's unpacked sources.

    Raises:
        RuntimeError: A text to be changed is not there as often as it should be, as in another
            release of Horovod.
    """
    for path, changes in CHANGES.items():
        file = pathlib.Path(folder) / path
        text = file.read_text()
        for old, new, times in changes:
            if text.count(old) != times:
                raise RuntimeError(
                    f"{path} has {old!r} {text.count(old)} times and not {times}; this is not the "
                    "Horovod that can be mended"
                )
            text = text.replace(old, new)
        file.write_text(text)


if __name__ == "__main__":
    mend(sys.argv[1])
