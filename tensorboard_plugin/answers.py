"""How arrays travel to the page: as JSON for people and scripts, as float32 for the page.

JSON: the header's fields and one field per array, nested lists in row-major order. A value that was
never recorded is `null`; recorded values that JSON has no number for are the strings `"NaN"`,
`"Infinity"` and `"-Infinity"`.

Binary, little-endian, gzipped as a whole: a uint32 with the length in bytes of the header; the
header, UTF-8 JSON padded with spaces to a multiple of 4, whose `arrays` lists `name` and `shape` in
order; then each array as float32 in row-major order. A value that was never recorded is NaN with a
`nonfinite` of 0; a recorded NaN has a `nonfinite` above 0. Where there is no `nonfinite`, every NaN
was never recorded.
"""

import json
import struct
import zlib

import numpy as np
from tensorboard import errors
from tensorboard.backend import json_util

#: Higher levels take several times as long for a few percent.
COMPRESSION = 1

#: An array is compressed where a sample of it shrinks below this share.
WORTH_COMPRESSING = 0.8

#: Bytes of each piece of that sample.
_SAMPLE = 1024

#: No answer is longer, as it is sent.
MOST_BYTES = 8_000_000

#: Most numbers in JSON, each of which may take 25 bytes.
MOST_JSON_NUMBERS = 2**18

#: Letters of a name that an error repeats.
_SHOWN = 100


def shown(name):
    """A name for an error's sentence, which may be of any length."""
    return repr(name) if len(name) <= _SHOWN else f"{name[:_SHOWN]!r}..."


def from_buckets(header, buckets):
    """A header and its arrays from `buckets.Buckets`, with the bucket axis moved to the end.

    Returns:
        `(header, arrays, recorded)`, what `to_json` and `to_binary` take.
    """
    return _moved(header, buckets, ("minimum", "mean", "maximum", "nonfinite"), -1)


def from_histograms(header, buckets):
    """As `from_buckets`, of `[buckets, variables, bins]` counts: the mean alone, a row a bucket.

    Returns:
        `(header, arrays, recorded)`; the only array is `mean`, `[variables, buckets, bins]`.
    """
    return _moved(header, buckets, ("mean",), 1)


def _moved(header, buckets, names, axis):
    arrays = {name: np.moveaxis(getattr(buckets, name), 0, axis) for name in names}
    return header, arrays, np.moveaxis(buckets.recorded, 0, axis)


def to_json(header, arrays, recorded):
    """JSON text of an answer.

    Args:
        header: JSON values by name; NaN and infinities in it become strings.
        arrays: Float32 arrays by name, all of one shape.
        recorded: Bool array of that shape; where it is false, `null` is written.

    Raises:
        errors.InvalidArgumentError: The text would be too long.
    """
    numbers = sum(array.size for array in arrays.values())
    if numbers > MOST_JSON_NUMBERS:
        raise errors.InvalidArgumentError(
            f"{numbers} numbers are more than the {MOST_JSON_NUMBERS} that JSON is written of; ask "
            "for fewer columns, fewer variables, or format=binary"
        )
    content = json_util.Cleanse(header)
    for name, array in arrays.items():
        content[name] = _values(array, recorded)
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def to_binary(header, arrays, recorded):
    """Gzipped bytes of an answer; arguments as for `to_json`."""
    del recorded  # NaN says it, with a nonfinite of 0 where there is one.
    content = json_util.Cleanse(header)
    content["arrays"] = [
        {"name": name, "shape": list(array.shape)} for name, array in arrays.items()
    ]
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = [struct.pack("<I", len(text)), text]
    body += [
        np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8) for array in arrays.values()
    ]
    compressed = gzipped(body)
    if len(compressed) > MOST_BYTES:
        compressed = gzipped(body, thoroughly=True)
    return compressed


def gzipped(pieces, thoroughly=False):
    """A gzip file of some bytes, `[RFC 1952]`; a piece that is like noise is stored as it is.

    Float32 shrinks by a tenth and takes 20 ms a megabyte for it. An array of zeros vanishes.

    Args:
        pieces: Objects with bytes, one after the other.
        thoroughly: Whether to compress all of them.
    """
    checksum, size = 0, 0
    # The header: deflate, no name, no time, the fastest level, an unknown system.
    found = [b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"]
    for piece in pieces:
        sample = b"".join(piece[at : at + _SAMPLE] for at in range(0, len(piece), 64 * _SAMPLE))
        worth = len(zlib.compress(sample, COMPRESSION)) < WORTH_COMPRESSING * len(sample)
        level = COMPRESSION if thoroughly or worth else 0
        # Blocks that end at a whole byte can be joined, whatever compressed each.
        deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        found += [deflate.compress(piece), deflate.flush(zlib.Z_FULL_FLUSH)]
        checksum, size = zlib.crc32(piece, checksum), size + len(piece)
    end = zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
    found += [end.flush(), struct.pack("<II", checksum, size & 0xFFFFFFFF)]
    return b"".join(found)


def _values(array, recorded):
    finite = np.isfinite(array)
    if finite.all() and recorded.all():
        return array.tolist()
    objects = array.astype(object)
    objects[np.isnan(array)] = "NaN"
    objects[np.isposinf(array)] = "Infinity"
    objects[np.isneginf(array)] = "-Infinity"
    objects[~recorded] = None
    return objects.tolist()
