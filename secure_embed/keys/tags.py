"""Keyed hashes: what a store may hold of an identifier, so that it can be found again without being readable.

HMAC-SHA-256 (RFC 2104) over the kind and its parts, unambiguous by construction; docs/formats.md. Equal inputs have
equal tags: who holds the key can test guesses.
"""

import hmac
import struct
from enum import IntEnum

from secure_embed.errors import InvalidRequest
from secure_embed.types import AttributeValue

__all__ = ["TagKind", "attribute_parts", "tag"]


class TagKind(IntEnum):
    """Kinds below 32 belong to one collection, the others to the deployment's catalogue."""

    RECORD_ID = 1
    SUBJECT = 2
    ATTRIBUTE = 3  # name, type, value: see attribute_parts
    QUERY = 4
    REQUEST = 5
    REQUEST_BODY = 6
    LEDGER_RECORD = 7
    COLLECTION_NAME = 32
    PRINCIPAL = 33  # issuer, subject
    CLIENT = 34  # issuer, client id


_parts_of = {TagKind.ATTRIBUTE: 3, TagKind.PRINCIPAL: 2, TagKind.CLIENT: 2}
_length = struct.Struct(">I")


def tag(key: bytes | bytearray, kind: TagKind, *parts: str | bytes) -> bytes:
    """32 bytes. Raises ``InvalidRequest`` (``text_not_unicode``) for a lone surrogate."""
    if len(parts) != _parts_of.get(kind, 1):
        raise ValueError("a kind of tag has a fixed number of parts")
    message = bytearray((kind,))
    for part in parts[:-1]:
        raw = _utf8(part)
        message += _length.pack(len(raw)) + raw
    message += _utf8(parts[-1])
    return hmac.digest(key, message, "sha256")


def attribute_parts(name: str, value: AttributeValue) -> tuple[str, str, str]:
    """The parts of an ``ATTRIBUTE`` tag: the string "1", the number 1 and true stay apart."""
    if isinstance(value, bool):
        return name, "bool", "true" if value else "false"
    if isinstance(value, int):
        return name, "long", str(value)
    return name, "string", value


def _utf8(part: str | bytes) -> bytes:
    if isinstance(part, bytes):
        return part
    try:
        return part.encode()
    except UnicodeEncodeError:  # its message would carry the text
        raise InvalidRequest("a text is not valid Unicode", code="text_not_unicode") from None
