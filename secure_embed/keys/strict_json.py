"""Key files are JSON objects with exactly the members we wrote; anything else is refused."""

import base64
import binascii
import json
from collections.abc import Iterable

from secure_embed.errors import ConfigurationError

__all__ = ["StrictObject", "format_of"]


def format_of(raw: bytes, *, file: str) -> str:
    """The member ``format`` of a key file, whose other members it decides. Raises as :class:`StrictObject`."""
    return StrictObject(raw, file=file, members=None).text("format")


class StrictObject:
    """A parsed object. Every fault raises ``ConfigurationError`` (``key_file_invalid``) naming the file alone."""

    def __init__(self, raw: bytes, *, file: str, members: Iterable[str] | None) -> None:
        """``members``: exactly these; None: any that are found."""
        self._file = file
        try:
            parsed = json.loads(raw, object_pairs_hook=self._pairs)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested beyond reason
            raise self.invalid() from None
        if not isinstance(parsed, dict):
            raise self.invalid()
        self._members: dict[str, object] = parsed
        if members is not None:
            self._exactly(parsed, members)

    def invalid(self) -> ConfigurationError:
        return ConfigurationError(f"{self._file} is not valid", code="key_file_invalid")

    def text(self, name: str) -> str:
        value = self._members.get(name)
        if not isinstance(value, str):
            raise self.invalid()
        return value

    def number(self, name: str, *, least: int, most: int) -> int:
        value = self._members[name]
        if type(value) is not int or not least <= value <= most:
            raise self.invalid()
        return value

    def data(self, name: str) -> bytes:
        return self._decoded(self._members[name])

    def data_by_name(self, name: str, members: Iterable[str]) -> dict[str, bytes]:
        inner = self._members[name]
        if not isinstance(inner, dict):
            raise self.invalid()
        self._exactly(inner, members)
        return {key: self._decoded(value) for key, value in inner.items()}

    def _decoded(self, value: object) -> bytes:
        try:
            return base64.b64decode(value if isinstance(value, str) else "!", validate=True)
        except (binascii.Error, ValueError):
            raise self.invalid() from None

    def _exactly(self, found: dict[str, object], expected: Iterable[str]) -> None:
        if found.keys() != set(expected):
            raise self.invalid()

    def _pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):  # a doubled member reads differently in different parsers
            raise self.invalid()
        return found
