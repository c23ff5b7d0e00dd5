"""Metadata is read once: every request lists all parts, and nearly all parts of a run say the same.

Of a run with 10,000 variables, one part's metadata is over a megabyte of JSON.
"""

from tensorboard_plugin import cache, metadata

#: Bytes of metadata whose meaning is kept, which takes about ten times as many.
CACHE_BYTES = 2**22


class Decoder:
    """`metadata.decode` with a memory; safe to call from several threads."""

    def __init__(self, cache_bytes=CACHE_BYTES):
        """Keeps what up to `cache_bytes` of metadata mean."""
        self._parts = cache.Cache(cache_bytes)

    def __call__(self, content):
        """The `metadata.Part` of some plugin data: the same object for the same bytes.

        Raises:
            ValueError: As `metadata.decode`.
        """
        part = self._parts.get(content, None)
        if part is None:
            part = metadata.decode(content)
            self._parts.put(content, None, part, len(content))
        return part
