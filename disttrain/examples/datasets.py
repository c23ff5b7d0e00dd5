"""Reads image data sets as float32 arrays between 0 and 1."""

import gzip
import os
import struct
import zlib

import numpy as np

NAMES = ("digits", "fashion-mnist", "cifar10")

#: Where Debian's package dataset-fashion-mnist puts its files.
_DEBIAN = "/usr/share/datasets/fashion-mnist"


def load(name, data_dir=None):
    """Reads a data set.

    Args:
        name: One of `NAMES`.
        data_dir: Folder of the IDX files, for `"fashion-mnist"`.

    Returns:
        `((x, y), (x_val, y_val))`: images float32 `[n, height, width, channels]` in [0, 1], labels
        int32 `[n]` from 0 to 9.

    Raises:
        ValueError: The name is unknown, or a file is no IDX file.
        FileNotFoundError: A file is missing; the message says how to get it.
        RuntimeError: A package is missing, or the download failed.
    """
    if name == "digits":
        return _digits()
    if name == "fashion-mnist":
        return _fashion_mnist(data_dir or _DEBIAN)
    if name == "cifar10":
        return _cifar10()
    raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(NAMES)}")


def read_idx(path):
    """Reads an IDX file, gzipped or not, as a NumPy array of unsigned bytes.

    The format begins with two zero bytes, the element type (8 for unsigned bytes) and the number of
    axes, then each axis as a big-endian 32-bit integer.

    Raises:
        ValueError: It is not such a file, or is cut short.
    """
    with open(path, "rb") as file:
        data = file.read()
    if str(path).endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error})") from error
    axes = data[3] if len(data) > 3 else 0
    header = 4 + 4 * axes
    if len(data) < header or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = struct.unpack(f">{axes}I", data[4:header])
    if len(data) - header != int(np.prod(shape)):
        raise ValueError(
            f"{path} should hold {int(np.prod(shape))} bytes for the shape {shape}, but holds "
            f"{len(data) - header}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _digits():
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RuntimeError(
            "the digits come with scikit-learn, which is not installed; run "
            "pip install 'disttrain[examples]'"
        ) from error
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(images))
    train, val = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return (images[train], labels[train]), (images[val], labels[val])


def _fashion_mnist(folder):
    def read(stem):
        for ending in (".gz", ""):
            path = os.path.join(folder, stem + ending)
            if os.path.exists(path):
                return read_idx(path)
        raise FileNotFoundError(
            f"{os.path.join(folder, stem)}(.gz) does not exist; install Debian's package "
            "dataset-fashion-mnist, or name the folder of the four IDX files with --data-dir"
        )

    def pair(prefix):
        images = read(f"{prefix}-images-idx3-ubyte")[..., None].astype(np.float32) / 255
        return images, read(f"{prefix}-labels-idx1-ubyte").astype(np.int32)

    return pair("train"), pair("t10k")


def _cifar10():
    import keras

    try:
        (x, y), (x_val, y_val) = keras.datasets.cifar10.load_data()
    except Exception as error:
        raise RuntimeError(
            f"CIFAR-10 could not be downloaded ({error}); the data set digits needs no network"
        ) from error
    return tuple(
        (images.astype(np.float32) / 255, labels.reshape(-1).astype(np.int32))
        for images, labels in ((x, y), (x_val, y_val))
    )
