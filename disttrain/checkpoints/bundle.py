"""One checkpoint on disk: a folder with TensorFlow's tensor bundle and a manifest.

`state.index` and `state.data-00000-of-00001` hold the tensors, as `tf.train.load_checkpoint` reads
them. `manifest.json` holds everything else: what the tensors are, the place in the training, and
length and digest of each file. Its own digest stands in it. Nothing here knows a trainer.
"""

import hashlib
import json
import os

import numpy as np
import tensorflow as tf

VERSION = 1
PREFIX = "state"
MANIFEST = "manifest.json"

#: Bytes that are read at a time for a digest.
_CHUNK = 2**22


class Damaged(Exception):
    """A checkpoint that cannot be used.

    Attributes:
        file: The file that is at fault.
        reason: What is wrong with it.
    """

    def __init__(self, file, reason):
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


def write(folder, tensors, facts):
    """Writes a checkpoint and hands it to the disk.

    Args:
        folder: Where; it does not exist yet.
        tensors: Name to NumPy array.
        facts: What else the manifest holds: a dictionary of JSON values.

    Raises:
        OSError: A file cannot be written.
        tf.errors.OpError: The same, from TensorFlow.
    """
    os.mkdir(folder)
    write_tensors(folder, tensors)
    write_manifest(folder, facts)
    flush(folder)


def write_tensors(folder, tensors):
    """Writes the tensor bundle."""
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=os.path.join(folder, PREFIX),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=[tf.constant(array) for array in tensors.values()],
        )


def write_manifest(folder, facts):
    """Writes the manifest of the files that are in a folder."""
    files = {name: _fingerprint(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
    manifest = {"version": VERSION, **facts, "files": files}
    manifest["digest"] = _digest_of(manifest)
    with open(os.path.join(folder, MANIFEST), "w") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")


def flush(folder):
    """Waits until the disk has the files of a folder, and their names."""
    for name in os.listdir(folder):
        flush_path(os.path.join(folder, name))
    flush_path(folder)


def flush_path(path):
    """Waits until the disk has what a file or a directory holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder):
    """The manifest, without a look at the other files.

    Raises:
        Damaged: It is missing, or not as it was written.
    """
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, "rb") as file:
            manifest = json.loads(file.read())
        digest = manifest.pop("digest")
        sound = digest == _digest_of(manifest)
    except FileNotFoundError:
        raise Damaged(path, "is missing") from None
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror or error})") from None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise Damaged(path, "is not a whole manifest") from None
    if not sound:
        raise Damaged(path, "does not have the digest that was written into it")
    if manifest["version"] > VERSION:
        raise Damaged(
            path, f"has version {manifest['version']}, and this disttrain reads up to {VERSION}"
        )
    return manifest


def verify(folder):
    """The manifest of a checkpoint whose files are all as they were written.

    Raises:
        Damaged: A file is missing, has another length, or other contents.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = os.path.join(folder, name)
        try:
            size = os.path.getsize(path)
            if size != expected["bytes"]:
                raise Damaged(path, f"has {size} bytes where {expected['bytes']} were written")
            found = _fingerprint(path)
        except FileNotFoundError:
            raise Damaged(path, "is missing") from None
        except OSError as error:
            raise Damaged(path, f"cannot be read ({error.strerror or error})") from None
        if found != expected:
            raise Damaged(path, "does not have the contents that were written")
    return manifest


def read(folder):
    """The tensors of a checkpoint, name to NumPy array.

    Raises:
        Damaged: TensorFlow cannot read them.
    """
    prefix = os.path.join(folder, PREFIX)
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {
            name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()
        }
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise Damaged(prefix, f"cannot be read ({error})") from None


def _fingerprint(path):
    digest, size = hashlib.blake2b(digest_size=16), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "blake2b": digest.hexdigest()}


def _digest_of(manifest):
    text = json.dumps(manifest, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
