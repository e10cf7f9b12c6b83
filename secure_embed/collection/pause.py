"""Writers that can be asked to wait: a copy of several files means something only when none of them changes meanwhile.

Any number of writers at a time, or one who holds them off. Readers know nothing of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, local

__all__ = ["Pause"]


class Pause:
    """Thread safe. A writer may enter again within itself; who holds writers off may write in between."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._writers = 0
        self._held = False
        self._depth = local()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until nobody holds writers off, then keep them from it until the block ends."""
        depth: int = getattr(self._depth, "value", 0)
        if depth == 0:
            with self._changed:
                self._changed.wait_for(lambda: not self._held)
                self._writers += 1
        self._depth.value = depth + 1
        try:
            yield
        finally:
            self._depth.value = depth
            if depth == 0:
                with self._changed:
                    self._writers -= 1
                    self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until the writers that have begun are through; none begins until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held)
            self._held = True
            self._changed.wait_for(lambda: self._writers == 0)
        self._depth.value = 1
        try:
            yield
        finally:
            self._depth.value = 0
            with self._changed:
                self._held = False
                self._changed.notify_all()
