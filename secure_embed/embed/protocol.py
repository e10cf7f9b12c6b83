"""The door of embed/: a text encoder, as one frozen embedding space and two verbs."""

from collections.abc import Sequence
from typing import Protocol

from secure_embed.types import Space, Vectors

__all__ = ["Encoder"]


class Encoder(Protocol):
    """Safe to call from several threads; work is bounded inside. Nothing is logged of what it is given."""

    @property
    def space(self) -> Space: ...

    @property
    def tokens_max(self) -> int:
        """Longer texts are cut here; the answer of an ingest says how many were."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """(n, d) float32, C-contiguous, unit length, in the order given."""
        ...

    def encode_query(self, text: str) -> Vectors:
        """(1, d) float32, C-contiguous, unit length."""
        ...

    def truncated(self, texts: Sequence[str]) -> Sequence[bool]:
        """Which of the texts are longer than ``tokens_max`` tokens."""
        ...
