"""Our own invariants where a broken one would let native code read or write past an array. Not ``assert``: ``-O``
removes those."""

from secure_embed.errors import SecureEmbedError

__all__ = ["invariant"]


def invariant(holds: bool) -> None:
    """Raises ``SecureEmbedError`` (``internal_error``)."""
    if not holds:
        raise SecureEmbedError("the index is not in the state that it must be in")
