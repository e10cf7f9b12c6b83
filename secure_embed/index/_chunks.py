"""A shard's saved state as a row of chunks, cut and put together again. Format: docs/formats.md, "Saved codes".

What may not be in here: files, keys, FAISS. What the bytes mean is in ``_saved``. Nothing is believed of a length: a
chunk that is short, too long, or one too many or too few is refused.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from secure_embed.errors import IntegrityFailure

__all__ = ["ChunkReader", "Piece", "chunk_bytes", "chunks_of", "refused", "wipe"]

chunk_bytes = 1 << 20  # stays in a core's cache between opening and copying
Piece = bytes | bytearray | memoryview


def refused(what: str) -> IntegrityFailure:
    return IntegrityFailure(f"saved codes are not what was written: {what}", code="codes_unreadable")


def wipe(chunk: Piece) -> None:
    """Overwrite it, where it can be written to."""
    view = memoryview(chunk)
    if not view.readonly and view.nbytes:
        np.frombuffer(view, np.uint8).fill(0)


def chunks_of(pieces: Iterable[Piece]) -> Iterator[memoryview]:
    """Cut into chunks of ``chunk_bytes``, the last one shorter. Each is good until the next is asked for: they share
    one buffer, which is wiped at the end."""
    buffer = memoryview(bytearray(chunk_bytes))
    used = 0
    try:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                taken = min(len(left), chunk_bytes - used)
                buffer[used : used + taken] = left[:taken]
                used, left = used + taken, left[taken:]
                if used == chunk_bytes:
                    yield buffer
                    used = 0
        if used:
            yield buffer[:used]
    finally:
        wipe(buffer)


class ChunkReader:
    """Copies out of the chunks, one after the other, and wipes each that has been read."""

    def __init__(self, chunks: Iterable[Piece]) -> None:
        self._chunks = iter(chunks)
        self._chunk: Piece = b""
        self._left = memoryview(b"")
        self._was_last = False

    def fill(self, array: npt.NDArray[np.generic]) -> None:
        """Fill a C-contiguous array. Raises ``IntegrityFailure`` (``codes_unreadable``) when there is too little."""
        if not array.nbytes:
            return
        target = array.reshape(-1).view(np.uint8).data
        at = 0
        while at < len(target):
            if not len(self._left):
                self._next()
            taken = min(len(self._left), len(target) - at)
            target[at : at + taken] = self._left[:taken]
            at, self._left = at + taken, self._left[taken:]

    def take(self, count: int) -> bytes:
        """A few bytes that are no secret."""
        taken = np.zeros(count, np.uint8)
        self.fill(taken)
        return taken.tobytes()

    def finish(self) -> None:
        """Raises ``IntegrityFailure`` (``codes_unreadable``) when anything is left."""
        if len(self._left) or next(self._chunks, None) is not None:
            raise refused("its length")
        self.wipe()

    def wipe(self) -> None:
        self._left = memoryview(b"")
        wipe(self._chunk)

    def _next(self) -> None:
        self.wipe()
        chunk = next(self._chunks, None)
        if chunk is None or self._was_last:
            raise refused("its length")
        self._chunk, self._left = chunk, memoryview(chunk)
        if not 1 <= len(self._left) <= chunk_bytes:
            raise refused("a chunk's length")
        self._was_last = len(self._left) < chunk_bytes
