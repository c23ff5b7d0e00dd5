"""Sums tensors over two of Horovod's ranks, and moves as many bytes by a plain socket, by turns."""

import os
import socket
import sys

from tests.benchmarks.programs import turns

RANK = int(os.environ["HOROVOD_RANK"])
turns.pin(RANK)

import numpy as np  # noqa: E402, it comes after the core is chosen
import tensorflow as tf  # noqa: E402

from disttrain import replication as replication_module  # noqa: E402

#: Less than the kernel takes without anybody reading, for both send before they receive.
_CHUNK = 64 * 1024


def reduced(replication, size):
    """A function that sums a float32 tensor of so many bytes n times."""
    tensor = tf.random.normal([size // 4])

    @tf.function(autograph=False)
    def reduce(value):
        return replication.reduce_sum([value], f"of_{size}_bytes")[0]

    def steps(count):
        for _ in range(count):
            found = reduce(tensor)
        return found

    return (lambda count: float(steps(count)[0])), lambda: float(tf.reduce_sum(tf.abs(steps(1))))


def exchanged(connection, size):
    """A function that sends and receives so many bytes n times: what two ranks of a ring do."""
    outgoing, incoming = memoryview(bytes(size)), memoryview(bytearray(size))

    def steps(count):
        for _ in range(count):
            for start in range(0, size, _CHUNK):
                connection.sendall(outgoing[start : start + _CHUNK])
                part = incoming[start : start + _CHUNK]
                while part:
                    part = part[connection.recv_into(part) :]

    return steps, lambda: 1.0


def connected(replication):
    """A connection to the other rank over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = replication.all_gather(np.asarray(server.getsockname()[1]))
        if RANK == 0:
            connection, _ = server.accept()
        else:
            connection = socket.create_connection(("127.0.0.1", int(ports[0])))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


replication = replication_module.resolve("horovod")
connection = connected(replication)
sizes = [int(size) for size in sys.argv[1:]]
runs = {f"reduction {size}": reduced(replication, size) for size in sizes}
runs |= {f"exchange {size}": exchanged(connection, size) for size in sizes}
turns.take(RANK, runs)
