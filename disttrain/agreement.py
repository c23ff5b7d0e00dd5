"""Compares what processes are about to train, while they can still say so.

Collectives match tensors by their place in a list. Processes that build different models wait for
each other for ever, or add up numbers that have nothing to do with each other.
"""

import hashlib
import re

import numpy as np

#: Keras numbers layers of one class as they are made; a process may have made others before.
#: A slot is named after its variable: `adam/dense_1_kernel_momentum`.
_NUMBER = re.compile(r"_\d+(?=[_/]|$)")


def check_variables(replication, variables, of):
    """Makes sure that all processes have the same variables in the same order.

    Args:
        replication: A `Replication`. All processes call this.
        variables: A list of `keras.Variable`.
        of: What they belong to, for the message, such as `"the model"`.

    Raises:
        RuntimeError: Shapes, dtypes, names or their order differ; on every process, with the first
            difference of each process that has one.
    """
    if replication.topology.processes == 1:
        return
    own = [describe(variable) for variable in variables]
    digest = hashlib.sha256("\n".join(own).encode()).digest()
    # Not every collective knows bytes.
    with replication.pulse.waiting(f"the comparison of the variables of {of}"):
        digests = replication.all_gather(np.frombuffer(digest, np.uint8).astype(np.int32))
    if (digests == digests[0]).all():
        return
    found = differences(_gathered(replication, own))
    raise RuntimeError(
        f"the processes have different variables of {of}: {'; '.join(found)}; build the same on "
        "every process, with nothing that depends on its rank"
    )


def check_batches(replication, batches, in_pass=None):
    """Makes sure that an epoch has as many batches on all processes.

    Args:
        replication: A `Replication`. All processes call this.
        batches: Their number, or `None` where only the end of the data shows it.
        in_pass: Batches of the whole data, or `None` where that is not known or infinite.

    Raises:
        RuntimeError: The numbers differ; on every process.
    """
    if replication.topology.processes == 1:
        return
    own = [-1 if number is None else number for number in (batches, in_pass)]
    with replication.pulse.waiting("the comparison of the number of batches"):
        gathered = replication.all_gather(np.asarray(own, np.int64)).T.tolist()
    for found in gathered:
        rank = next((rank for rank, number in enumerate(found) if number != found[0]), None)
        if rank is None:
            continue
        one, other = ("unknown" if number < 0 else number for number in (found[rank], found[0]))
        raise RuntimeError(
            f"an epoch has different numbers of batches: {one} on rank {rank} and {other} on rank "
            "0; give every process the same whole dataset, or a function of a "
            "tf.distribute.InputContext that returns its part"
        )


def describe(variable):
    """A variable as it has to be on every process: its name without numbers, dtype and shape."""
    path = _NUMBER.sub("", getattr(variable, "path", None) or variable.name)
    return f"{path} {variable.dtype}{list(variable.shape)}"


def differences(processes):
    """Where each process first differs from the chief.

    Args:
        processes: For each process a list of descriptions.

    Returns:
        A list of clauses.
    """
    first, found = processes[0], []
    for rank, own in enumerate(processes):
        at = next(
            (i for i, both in enumerate(zip(first, own, strict=False)) if both[0] != both[1]), None
        )
        if at is not None:
            found.append(f"number {at + 1} is {own[at]} on rank {rank} and {first[at]} on rank 0")
        elif len(own) != len(first):
            found.append(f"rank {rank} has {len(own)} and rank 0 has {len(first)}")
    return found


def _gathered(replication, own):
    """The descriptions of all processes."""
    text = np.frombuffer("\n".join(own).encode(), np.uint8).astype(np.int32)
    lengths = replication.all_gather(np.asarray(text.size, np.int32))
    padded = np.pad(text, (0, int(lengths.max()) - text.size))
    rows = replication.all_gather(padded)
    texts = [row[:size].astype(np.uint8).tobytes() for row, size in zip(rows, lengths, strict=True)]
    return [text.decode().split("\n") for text in texts]
