"""The reader of IDX files, and the data sets of the examples."""

import gzip
import os
import struct

import numpy as np
import pytest

from disttrain.examples import datasets

pytestmark = pytest.mark.unit

PACKAGED = "/usr/share/datasets/fashion-mnist"


def idx(array):
    array = np.asarray(array, np.uint8)
    axes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.tobytes()


def write_fashion(folder, compress=True):
    """Four small IDX files; returns their arrays by name."""
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28))
        arrays[f"{prefix}-labels-idx1-ubyte"] = np.arange(count) % 10
    for name, array in arrays.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_file_is_read_as_it_was_written(ending, tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / f"file{ending}"
    path.write_bytes(gzip.compress(idx(array)) if ending else idx(array))
    read = datasets.read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not an IDX file"),
        (b"\x00\x00", r"not an IDX file"),
        (b"\x00\x00\x0d\x01" + bytes(8), r"not an IDX file of bytes"),
        (b"\x89PNG" + bytes(20), r"not an IDX file"),
        (idx(np.zeros([2, 3]))[:-1], r"should hold 6 bytes for the shape \(2, 3\), but holds 5"),
        (idx(np.zeros([2, 3])) + b"x", r"should hold 6 bytes.*holds 7"),
        (idx(np.zeros([2, 3]))[:9], r"IDX|should hold"),
    ],
    ids=["empty", "two bytes", "floats", "image", "cut", "too long", "cut in the header"],
)
def test_a_damaged_idx_file_is_named(data, message, tmp_path):
    path = tmp_path / "damaged"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_idx(path)
    assert str(path) in str(caught.value)


def test_a_damaged_gzip_file_is_named(tmp_path):
    path = tmp_path / "damaged.gz"
    path.write_bytes(gzip.compress(idx(np.zeros([50, 50])))[:-12])
    with pytest.raises(ValueError, match=r"damaged\.gz"):
        datasets.read_idx(path)
    path.write_bytes(idx([1]))
    with pytest.raises(ValueError, match=r"damaged\.gz"):
        datasets.read_idx(path)


def assert_images(pair, count, shape):
    images, labels = pair
    assert (images.shape, images.dtype) == ((count, *shape), np.float32)
    assert (labels.shape, labels.dtype) == ((count,), np.int32)
    assert 0 <= images.min() < images.max() <= 1
    assert set(labels) <= set(range(10))


def test_digits_are_images_between_0_and_1():
    train, validation = datasets.load("digits")
    assert_images(train, 1437, (8, 8, 1))
    assert_images(validation, 360, (8, 8, 1))
    assert len(set(train[1])) == len(set(validation[1])) == 10


def test_digits_are_split_alike_every_time():
    first, second = datasets.load("digits"), datasets.load("digits")
    np.testing.assert_array_equal(first[0][0], second[0][0])
    np.testing.assert_array_equal(first[1][1], second[1][1])


@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist_comes_from_a_folder_of_idx_files(compress, tmp_path):
    arrays = write_fashion(tmp_path, compress)
    train, validation = datasets.load("fashion-mnist", tmp_path)
    assert_images(train, 20, (28, 28, 1))
    assert_images(validation, 10, (28, 28, 1))
    np.testing.assert_allclose(train[0][..., 0] * 255, arrays["train-images-idx3-ubyte"], atol=1e-4)
    np.testing.assert_array_equal(validation[1], arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.skipif(
    not os.path.isdir(PACKAGED) and os.environ.get("DISTTRAIN_STRICT") != "1",
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_of_the_package():
    train, validation = datasets.load("fashion-mnist")
    assert_images(train, 60_000, (28, 28, 1))
    assert_images(validation, 10_000, (28, 28, 1))


def test_a_missing_folder_is_named_with_the_way_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*dataset-fashion-mnist.*--data-dir"):
        datasets.load("fashion-mnist", tmp_path / "nowhere")


def test_an_unknown_data_set_is_named():
    with pytest.raises(ValueError, match=r"'mnits'.*digits, fashion-mnist, cifar10"):
        datasets.load("mnits")
