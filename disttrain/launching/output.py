"""What the user sees of many ranks: the first one as it speaks; the log keeps all.

Every rank's last words are remembered, so that a failure can be shown whichever rank it was in.
"""

import collections
import re
import sys

#: TensorFlow 2.21 writes these lines before it looks at TF_CPP_MIN_LOG_LEVEL.
_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl::"
    rb"|[IWE]\d{4} [\d:.]+ +\d+ [^ ]+\.cc:"
    rb"|To enable the following instructions: "
    rb"|Terminated\r?\n?$)"  # what a shell says of a rank that horovodrun has ended
)

_REMEMBERED = 400


class Screen:
    """Takes the output of all ranks apart.

    Args:
        log: A binary file that gets every line, with its rank.
        shown: The rank that the user sees.
    """

    def __init__(self, log, shown=0):
        self._log = log
        self._shown = shown
        self._words = collections.defaultdict(lambda: collections.deque(maxlen=_REMEMBERED))
        self._begun = {}

    def write(self, rank, stream, text):
        """Takes a piece of output.

        Args:
            rank: The rank, or `None` for the launcher itself, whose words only the log gets.
            stream: `"stdout"` or `"stderr"`.
            text: Bytes; a line, or a part that ends with a carriage return.
        """
        prefix = f"[{rank}]<{stream}>:" if rank is not None else ""
        self._log.write(prefix.encode() + text + (b"" if text.endswith(b"\n") else b"\n"))
        self._log.flush()
        if _NOISE.match(text):
            return
        if stream == "stderr":
            self._words[rank].append(text.decode(errors="replace").rstrip("\r\n"))
        if rank == self._shown:
            where = sys.stdout if stream == "stdout" else sys.stderr
            where.buffer.write(text)
            where.buffer.flush()

    def last_words(self, rank):
        """The last lines that a rank has written to its standard error; `None` is the launcher."""
        return list(self._words[rank])


class Lines:
    """Cuts a stream of bytes behind line feeds and carriage returns.

    Args:
        take: Called with each line.
        at_once: Whether what has no end yet is handed on as well, as a terminal would have it.
    """

    def __init__(self, take, at_once=False):
        self._take = take
        self._at_once = at_once
        self._rest = b""

    def feed(self, data):
        """Takes the next bytes; none at the end of the stream."""
        *lines, self._rest = re.split(rb"(?<=[\n\r])", self._rest + data)
        for line in lines:
            self._take(line)
        if self._rest and (self._at_once or not data):
            self._take(self._rest)
            self._rest = b""
