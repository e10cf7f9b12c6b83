"""Until when a call may take, and whether anybody still waits for its answer. Looked at between the steps of a query.

Writes take no notice of it: a change that has begun ends, so that nothing is half done.
"""

import time

from secure_embed.errors import Unavailable

__all__ = ["Deadline"]

retry_after_s = 5


class Deadline:
    """Thread safe: one thread works, another says that it is not wanted any more."""

    __slots__ = ("ends", "gone")

    def __init__(self, seconds: float) -> None:
        """``seconds`` from now; infinity: none."""
        self.ends = time.monotonic() + seconds
        self.gone = bytearray(1)  # a byte, not an event: compiled code looks at it as well

    def abandon(self) -> None:
        """Nobody waits for the answer."""
        self.gone[0] = 1

    @property
    def over(self) -> bool:
        """Whether :meth:`require` would raise."""
        return bool(self.gone[0]) or time.monotonic() > self.ends

    def require(self) -> None:
        """Raise ``Unavailable``: ``deadline_exceeded`` when the time is up, ``caller_gone`` when nobody waits."""
        if self.gone[0]:
            raise Unavailable("the caller did not wait for the answer", code="caller_gone")
        if time.monotonic() > self.ends:
            raise Unavailable(
                "the query took longer than it may",
                code="deadline_exceeded",
                members={"retry_after_s": retry_after_s},
            )
