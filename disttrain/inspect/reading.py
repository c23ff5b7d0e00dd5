"""Finds the runs below a directory and reads them, with TensorBoard's reader and the plugin's."""

import difflib
import os
import sys
import types

from tensorboard_plugin import partreader, parts, whole


class NothingToInspect(ValueError):
    """There is no run to read where the user points to; the message says what to do."""


def runs(logdir, name=None):
    """Reads the runs below a directory that hold disttrain's data.

    Args:
        logdir: A directory.
        name: The one run to read, as TensorBoard names it: the path of its directory below
            `logdir`, or `.`; `None` for all.

    Returns:
        A list of `(name, (run, replicas, problems))`, the newest run first: a `health.Run`, its
        number of replicas, and the `parts.Problem`s of reading it.

    Raises:
        NothingToInspect: There is no such directory or run, or nothing of ours in it.
    """
    directories = _directories(logdir)
    if name is not None:
        name = os.path.normpath(name)
        if name not in directories:
            raise NothingToInspect(_no_such_run(logdir, name, directories))
        directories = {name: directories[name]}
    provider, ctx = _open(directories)
    listings = parts.list_runs(provider, ctx, "")
    if not listings:
        which = f"the run {name!r}" if name else f"{logdir!r}"
        raise NothingToInspect(
            f"the event files of {which} hold no statistics of disttrain: the training had "
            "telemetry=None, has not written its first record yet, or was another program's"
        )
    reader = partreader.PartReader(provider)
    newest_first = sorted(listings.items(), key=lambda item: (-item[1].last_wall_time, item[0]))
    return [(run, _read(reader, ctx, run, listing)) for run, listing in newest_first]


def _read(reader, ctx, name, listing):
    run, problems = whole.read(reader, ctx, "", name, listing)
    newest = [part for of_tag in listing.parts.values() for part in of_tag[-1:]]
    return run, newest[0].part.replicas if newest else 1, problems


def _directories(logdir):
    """Directories with event files, by the names that TensorBoard gives to runs."""
    if "://" not in logdir:
        if not os.path.exists(logdir):
            raise NothingToInspect(
                f"there is no directory {logdir!r}; give the logdir of a training, or one above it"
            )
        if not os.path.isdir(logdir):
            raise NothingToInspect(f"{logdir!r} is a file; give the directory that it lies in")
    _without_tensorflow()
    from tensorboard.backend.event_processing import io_wrapper

    found = io_wrapper.GetLogdirSubdirectories(logdir)
    directories = {os.path.relpath(path, logdir): path for path in sorted(found)}
    if not directories:
        raise NothingToInspect(
            f"there is no event file in {logdir!r} or below; a training writes one into the "
            "logdir that it is given: disttrain.Trainer(..., logdir=...)"
        )
    return directories


def _no_such_run(logdir, name, directories):
    close = difflib.get_close_matches(name, directories, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(repr(run) for run in list(directories)[:10])
    more = f" and {len(directories) - 10} more" if len(directories) > 10 else ""
    return f"there is no run {name!r} in {logdir!r}; {hint}there are {shown}{more}"


def _open(directories):
    """TensorBoard's data provider over some directories, with every record of ours."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer

    from tensorboard_plugin import loader, metadata

    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        directories, tensor_size_guidance={metadata.PLUGIN_NAME: loader.ALL_RECORDS}
    )
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, "")
    return provider, context.RequestContext()


def _without_tensorflow():
    """Has TensorBoard use its stub of TensorFlow, whose import takes seconds.

    A module of this name is TensorBoard's own switch for it (`tensorboard/compat/__init__.py`).
    """
    if "tensorflow" not in sys.modules:
        name = "tensorboard.compat.notf"
        sys.modules.setdefault(name, types.ModuleType(name))
