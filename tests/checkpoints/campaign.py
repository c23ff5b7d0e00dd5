"""Random faults, one after another, over short trainings in real processes.

`python -m tests.checkpoints.campaign --faults 200` makes a reference training, and then trainings
that are each hit by a few faults, drawn by a seed, until they are done. Each has to end with the
reference's weights, slots and metrics to the last bit, and each process in the way that its fault
says. TensorFlow is imported once, and each run is a fork of that process.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


import disttrain.trainer
from disttrain.checkpoints.store import Store
from tests.checkpoints import faults, training

EPOCHS = 2
STEPS = EPOCHS * training.STEPS

#: Seconds that a run may take, on a machine that does other things as well.
LIMIT = 400

KINDS = ("kill", "phase", "signal", "error", "full", "damage")

#: Faults that each take effect where they follow on each other, in trainings of their own.
TOURS = {
    "each": [
        [
            {"kind": "kill", "step": STEPS // 2},
            {"kind": "signal", "step": 14, "signal": int(signal.SIGTERM)},
            {"kind": "error", "step": 17},
            # After it the training ends.
            {"kind": "damage", "how": faults.DAMAGE[0], "seed": 1},
        ],
        [
            {"kind": "phase", "phase": faults.PHASES[0], "save": 1},
            {"kind": "full", "save": 1, "count": 2},
        ],
    ],
    "kills": [[{"kind": "kill", "step": step} for step in (0, 1, STEPS // 2, STEPS - 1, STEPS)]],
    "stops": [
        [
            {"kind": "signal", "step": 7, "signal": int(signal.SIGTERM)},
            {"kind": "signal", "step": 9, "signal": int(signal.SIGUSR1)},
            {"kind": "error", "step": 12},
            {"kind": "full", "save": 1, "count": 2},
        ]
    ],
    "damage": [
        [
            {"kind": "kill", "step": 10},
            *({"kind": "damage", "how": how, "seed": 1} for how in faults.DAMAGE),
        ]
    ],
    "phases": [
        [{"kind": "phase", "phase": phase, "save": 1} for phase in faults.PHASES[start : start + 3]]
        for start in range(0, len(faults.PHASES), 3)
    ],
}


def draw(rng):
    """A random fault, as a dictionary.

    It strikes at `part` of the way to the end; `beside` says whether steps go on while a checkpoint
    is written, which on a step this short lets some of them fall out.
    """
    kind = rng.choice(KINDS)
    return {"kind": kind, "beside": rng.random() < 0.5, **_form(kind, rng)}


def _form(kind, rng):
    if kind in ("kill", "error"):
        return {"part": rng.random()}
    if kind == "phase":
        return {"phase": rng.choice(faults.PHASES), "save": rng.randrange(1, 3)}
    if kind == "signal":
        number = rng.choice([signal.SIGTERM, signal.SIGUSR1])
        return {"part": rng.random(), "signal": int(number)}
    if kind == "full":
        return {"save": rng.randrange(1, 3), "count": rng.randrange(1, 4)}
    return {"how": rng.choice(faults.DAMAGE), "seed": rng.randrange(1000)}


def _settled(fault, store):
    """The same with a step between the newest checkpoint and the end, where it says `part`."""
    if fault is None or "part" not in fault:
        return fault
    names = store.names()
    first = int(names[-1].split("-")[1]) if names else 0
    return {**fault, "step": first + int(fault["part"] * (STEPS + 1 - first))}


def train(directory, fault=None):
    """A training in this process; returns a digest of all that it has ended with."""
    made = training.trainer(directory, kept={"every_steps": 3, "keep": 2})
    callbacks = []
    if fault is not None:
        callbacks += _inject(made, fault)
    if directory is not None and not (fault or {}).get("beside"):
        callbacks.append(training.Settled(made))
    x, y = training.X, training.Y
    history = made.fit(x, y, batch_size=4, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    digest = hashlib.blake2b(json.dumps(history.history).encode(), digest_size=16)
    for key, array in sorted(training.everything(made).items()):
        digest.update(key.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _inject(made, fault):
    kind = fault["kind"]
    if kind == "kill":
        return [faults.AtStep(made, fault["step"], faults.kill)]
    if kind == "error":

        def fail():
            raise training.Interrupted

        return [faults.AtStep(made, fault["step"], fail)]
    if kind == "signal":
        send = lambda: os.kill(os.getpid(), fault["signal"])  # noqa: E731
        return [faults.AtStep(made, fault["step"], send)]
    if kind == "phase":
        faults.in_phase(fault["phase"], fault["save"])
    if kind == "full":
        faults.full_disk(fault["save"], fault["count"])
    return []


#: How a run may end, by the kind of its fault: an exit status, or minus a signal's number. A fault
#: that the run does not come to leaves it to end by itself.
_ENDS = {
    "kill": {-signal.SIGKILL, 0},
    "phase": {-signal.SIGKILL, 0},
    "signal": {128 + signal.SIGTERM, 128 + signal.SIGUSR1, 0},
    "error": {3, 0},
    "full": {0},
    "damage": {0},
    None: {0},
}


def run(directory, fault=None):
    """One run in a fork; returns `(how it ended, its answer)`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(directory, fault, writing)
    os.close(writing)
    ended = _wait(child)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    return ended, json.loads(text) if text else {}


def _child(directory, fault, writing):
    status = 4
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            answer = {"digest": train(directory, fault)}
        answer["warnings"] = [str(one.message) for one in warned]
        status = 0
    except training.Interrupted:
        answer, status = {}, 3
    except SystemExit as stopped:
        answer, status = {}, stopped.code
    except BaseException:
        answer = {"raised": traceback.format_exc()}
    with os.fdopen(writing, "w") as pipe:
        json.dump(answer, pipe)
    # Without the handlers that the parent has made.
    os._exit(status)


def _wait(child):
    end = time.monotonic() + LIMIT
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"stopped after {LIMIT} s"
        time.sleep(0.005)


def suffer(directory, suffered, reference):
    """A training that is hit by faults, and then ends.

    Returns:
        `(struck, wrong)`: for each fault whether it took effect, and what is wrong, as texts.
    """
    struck, wrong, store = [], [], Store(disttrain.Checkpoint(directory))
    for number, fault in enumerate([*suffered, None]):
        fault, damaged = _settled(fault, store), None
        kind = fault["kind"] if fault else None
        if kind == "damage":
            names = store.names()
            # One sound checkpoint stays; without any there is an error, which has a test.
            if len(names) < 2:
                struck.append(False)
                continue
            damaged = faults.damage(os.path.join(directory, names[-1]), fault["how"], fault["seed"])
        ended, answer = run(directory, None if kind == "damage" else fault)
        warned = answer.get("warnings", [])
        if ended not in _ENDS[kind]:
            wrong.append(f"fault {number}, {fault}: ended with {ended}; {answer}")
        elif ended == 0 and answer["digest"] != reference:
            wrong.append(f"fault {number}, {fault}: another result")
        if damaged and not any(damaged in text for text in warned):
            wrong.append(f"fault {number}, {fault}: no warning named {damaged}")
        full = kind == "full" and any("could not be saved" in text for text in warned)
        struck.append(ended != 0 or bool(damaged) or full)
    return struck[:-1], wrong


def main(arguments=None):
    """Runs a campaign; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(prog="tests.checkpoints.campaign", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many that take effect")
    parser.add_argument("--each", type=int, default=4, help="how many are drawn for one training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tour", choices=TOURS, help="these, each of which has to take effect")
    parser.add_argument("--json", help="a file for the results")
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    planned = iter(TOURS[options.tour]) if options.tour else iter(lambda: _some(rng, options), None)
    results, effective = [], 0
    with tempfile.TemporaryDirectory(prefix="disttrain-campaign-") as folder:
        ended, answer = run(None)
        if ended != 0:
            sys.exit(f"the training without faults ended with {ended}: {answer}")
        for number, suffered in enumerate(planned):
            directory, began = os.path.join(folder, str(number)), time.monotonic()
            struck, wrong = suffer(directory, suffered, answer["digest"])
            shutil.rmtree(directory, ignore_errors=True)
            if options.tour and not all(struck):
                wrong.append(
                    f"without effect: {[f for f, s in zip(suffered, struck, strict=True) if not s]}"
                )
            results.append({"faults": suffered, "struck": struck, "wrong": wrong})
            effective += sum(struck)
            took = time.monotonic() - began
            print(f"{effective:4d} faults {took:6.1f} s {wrong or 'ok'}", flush=True)
            if not options.tour and effective >= options.faults:
                break
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file)
    failed = sum(bool(result["wrong"]) for result in results)
    print(f"{effective} faults took effect over {len(results)} trainings; {failed} went wrong")
    return 1 if failed else 0


def _some(rng, options):
    return [draw(rng) for _ in range(options.each)]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
