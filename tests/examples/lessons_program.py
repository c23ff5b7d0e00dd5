"""Runs the short examples in one process of a job: `lessons_program REPLICATION FOLDER NAMES...`.

What each returns goes to `FOLDER/RANK.json`, and so does what one has raised.
"""

import importlib
import json
import pathlib
import sys
import traceback

import disttrain


def main(kind, folder, *names):
    rank = disttrain.replication.resolve(kind).topology.process
    results = {}
    for name in names:
        try:
            lesson = importlib.import_module(f"disttrain.examples.{name}")
            results[name] = lesson.main(["--replication", kind])
        except BaseException:
            results[name] = {"raised": traceback.format_exc()}
        print(name, "raised" if "raised" in results[name] else "done", flush=True)
        pathlib.Path(folder, f"{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
