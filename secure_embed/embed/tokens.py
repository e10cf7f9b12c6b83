"""Texts to token ids, and token ids to batches. No text leaves in an error.

The tokenizer is read from tokenizer.json and never changed afterwards. transformers' own wrapper is avoided for two
reasons: it switches truncation in the shared tokenizer at each call, which fails under threads ("Already borrowed"),
and from version 5 on it rebuilds some tokenizers from parts, without steps that their tokenizer.json has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from secure_embed.errors import InvalidRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Tokens", "batches", "read_tokenizer", "tokenize"]

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One text's token ids, special tokens included, cut at the model's longest input."""

    ids: tuple[int, ...] = field(repr=False)
    truncated: bool


def read_tokenizer(path: Path, *, tokens_max: int) -> "Tokenizer":
    """The tokenizer of a verified tokenizer.json, cutting at ``tokens_max`` tokens and padding nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens_max)
    return tokenizer


def tokenize(tokenizer: "Tokenizer", texts: Sequence[str], *, prefix: str = "") -> list[Tokens]:
    """In the order given. Raises ``InvalidRequest`` (``text_invalid``) for what is not Unicode text."""
    found: list[Tokens] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = [prefix + text for text in texts[start : start + _TEXTS_AT_ONCE]]
        try:
            for text in part:
                text.encode()
        except UnicodeEncodeError:  # its message would carry the text
            raise InvalidRequest("a text is not Unicode text", code="text_invalid") from None
        encodings = tokenizer.encode_batch_fast(part)
        found += [Tokens(ids=tuple(e.ids), truncated=bool(e.overflowing)) for e in encodings]
    return found


def batches(lengths: Sequence[int], *, tokens_max: int, texts_max: int) -> Iterator[list[int]]:
    """Indices of ``lengths``, each once, longest first, in batches that hold at most ``tokens_max`` tokens when padded
    to their longest, and at most ``texts_max`` texts; one text longer than ``tokens_max`` goes alone.

    Texts of like length share a batch, so that little is spent on padding; the longest go first, so that a batch that
    does not fit in memory fails at once.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == texts_max or lengths[batch[0]] * (len(batch) + 1) > tokens_max):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
