"""The door through which a collection asks for memory, before it takes any. Who has to make room for it is shelf.py's."""

from typing import Literal, Protocol

__all__ = ["NoLimit", "Purpose", "Room"]

Purpose = Literal["keys", "codes", "growth", "trial"]


class Room(Protocol):
    def claim(self, purpose: Purpose, size: int) -> None:
        """``size``: bytes that keys and codes of the collection will take together. They are kept free until
        :meth:`settle`. Raises ``Unavailable`` (``collection_over_budget``, ``memory_in_use``)."""
        ...

    def settle(self, purpose: Purpose) -> None:
        """What the collection takes by itself counts again. Idempotent."""
        ...


class NoLimit:
    def claim(self, purpose: Purpose, size: int) -> None:
        pass

    def settle(self, purpose: Purpose) -> None:
        pass
