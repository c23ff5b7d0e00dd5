"""Starts a program on many ranks, for the scripts in `launch/`.

The scripts choose and explain; here is what all of them need: `output` shows the first rank and
keeps what every rank said, `blame` finds the rank that failed by itself, `report` tells how a job
has ended, `processes` starts, ends and cleans up. `horovodrun`, `workers` and `managed` know what
starts the ranks; `on_host` and `task` run before each of them. `scripts` is `disttrain launch`.
Nothing here imports TensorFlow.
"""
