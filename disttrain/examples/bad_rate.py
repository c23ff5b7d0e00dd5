"""Finds a bad learning rate from what a run has recorded, and a better one by the range test.

python -m disttrain.examples.bad_rate --logdir runs/bad-rate
tensorboard --logdir runs/bad-rate          the page says the same, under "Health"
disttrain inspect runs/bad-rate             and so does the terminal
"""

import contextlib
import tempfile

import keras

import disttrain
from disttrain import inspect
from disttrain.examples import lessons
from disttrain.inspect import reading, summary

BAD = 1e-6


def findings(folder):
    """What the health rules find in each run of a folder, name to list."""
    return {
        name: [f for f in summary.summarize(name, *read)["findings"] if f["severity"] != "note"]
        for name, read in reading.runs(folder)
    }


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=16, records=True)
    with contextlib.ExitStack() as stack:
        folder = lesson.logdir or stack.enter_context(tempfile.TemporaryDirectory())
        return compare(lesson, folder)


def compare(lesson, folder):
    def train(name, rate):
        trainer = lesson.trainer(
            lessons.dense,
            keras.optimizers.Adam(rate),
            telemetry=disttrain.Telemetry(every=1, warnings=False),
            logdir=f"{folder}/{name}",
        )
        chosen = None if rate == BAD else "auto"
        trainer.fit(
            *lesson.train, batch_size=64, epochs=lesson.epochs, verbose=0, learning_rate=chosen
        )
        result = trainer.evaluate(*lesson.validation, batch_size=256)
        used = float(trainer.optimizer.learning_rate)
        lesson.say(f"Adam, rate {used:.3g}: validation accuracy {result['accuracy']:.2%}")
        return used, result["accuracy"]

    found = {"bad": train("bad", BAD)}
    found["good"] = train("good", 1e-3)
    if lesson.replication.is_chief:
        for name, listed in findings(folder).items():
            found[f"findings of {name}"] = [f["rule"] for f in listed]
            for finding in listed:
                print(f"{name}: {finding['message']} {finding['advice']}")
        inspect.main([folder, "--run", "bad"])
    return found


if __name__ == "__main__":
    main()
