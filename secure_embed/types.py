"""The domain's frozen types. No IO, no framework, no key material.

A value of these types is valid once it exists: constructors refuse what is not. Texts, vectors and identifiers of
records are left out of every ``repr``, so that a stray log line or traceback does not carry them.
"""

import hashlib
import re
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NewType
from uuid import UUID

import numpy as np
import numpy.typing as npt

from secure_embed.errors import InvalidRequest, SecureEmbedError

__all__ = [
    "ATTRIBUTE_NAME",
    "COLLECTION_NAME",
    "Action",
    "And",
    "AttributeType",
    "AttributeValue",
    "Attributes",
    "Collection",
    "Compare",
    "Decision",
    "Equals",
    "Expression",
    "Field",
    "Has",
    "Not",
    "OneOf",
    "Or",
    "Permit",
    "Position",
    "Positions",
    "Principal",
    "Receipt",
    "Record",
    "Refusal",
    "RowFilter",
    "Space",
    "Ticket",
    "TruthValue",
    "Vectors",
    "ensure_subject",
]

Vectors = npt.NDArray[np.float32]  # (n, d) float32, C-contiguous, unit length
Positions = npt.NDArray[np.int64]  # (n,) int64
Position = NewType("Position", int)  # a record's permanent number in its collection; counts from 0, never used again

AttributeType = Literal["string", "long", "bool"]
AttributeValue = str | int | bool
Attributes = Mapping[str, AttributeValue]

COLLECTION_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")

record_id_bytes_max = 512
text_bytes_max = 64 * 1024
attributes_max = 32
attribute_value_bytes_max = 1_024
bits_max = 4
expires_unix_max = 253_402_300_799  # the last second that RFC 3339 can write


class Field(StrEnum):
    """What a sealed value of a record is; the one-byte numbers in the additional data are in docs/formats.md."""

    VECTOR = "vector"
    TEXT = "text"
    META = "meta"


class Action(StrEnum):
    """What a caller does; Cedar's action ids are the same strings."""

    COLLECTION_CREATE = "collection.create"
    COLLECTION_LIST = "collection.list"
    COLLECTION_READ = "collection.read"
    COLLECTION_ERASE = "collection.erase"
    COLLECTION_TUNE = "collection.tune"
    RECORD_INGEST = "record.ingest"
    RECORD_READ = "record.read"
    RECORD_ERASE = "record.erase"
    QUERY = "query"
    VECTORS_EXPORT = "vectors.export"
    AUDIT_READ = "audit.read"
    HOLD_PLACE = "hold.place"
    HOLD_RELEASE = "hold.release"
    HOLD_LIST = "hold.list"
    KEYS_READ = "keys.read"
    KEYS_ROTATE = "keys.rotate"
    BACKUP_CREATE = "backup.create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """An embedding space: the identity of the model that a vector came from. Vectors of two spaces never meet."""

    model: str
    revision: str
    manifest_sha256: str  # hex, of the canonical manifest; so of every file of the model
    pooling: Literal["mean", "cls"]
    dimension: int

    def __post_init__(self) -> None:
        if not 1 <= self.dimension <= 65_535 or len(self.manifest_sha256) != 64:
            raise InvalidRequest("the embedding space is malformed", code="space_invalid")

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over the length-prefixed fields; stands in the additional data of each vector."""
        h = hashlib.sha256(b"secure_embed/space/v1\x00")
        for part in (self.model, self.revision, self.manifest_sha256, self.pooling):
            raw = part.encode()
            h.update(struct.pack(">I", len(raw)) + raw)
        h.update(struct.pack(">I", self.dimension))
        return h.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection's descriptor; sealed at rest."""

    name: str
    uuid: UUID
    space: Space
    attributes: Mapping[str, AttributeType]
    risk_profile: str
    created_unix: int
    bits: int = 1  # a dimension in its codes, until a tuning chooses others

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= bits_max:
            raise InvalidRequest(f"codes have 1 to {bits_max} bits a dimension", code="bits_invalid")
        if not COLLECTION_NAME.match(self.name):
            raise InvalidRequest(
                "a collection's name is 1 to 63 of a-z, 0-9 and '-', not at its ends", code="collection_name_invalid"
            )
        if len(self.attributes) > attributes_max or not all(ATTRIBUTE_NAME.match(a) for a in self.attributes):
            raise InvalidRequest("an attribute's name or their number is not allowed", code="attribute_name_invalid")


def _ensure_text(code: str, what: str, value: str, bytes_max: int) -> None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # a lone surrogate: JSON can carry one, UTF-8 cannot
        raise InvalidRequest(f"{what} is not Unicode text", code=code) from None
    if not 1 <= size <= bytes_max:
        raise InvalidRequest(f"{what} has 1 to {bytes_max} bytes of UTF-8", code=code)


def ensure_subject(subject: str) -> None:
    """Raise ``InvalidRequest`` (``subject_invalid``) for what cannot be a data subject's identifier."""
    _ensure_text("subject_invalid", "a data subject's identifier", subject, record_id_bytes_max)


def _ensure_values(values: Mapping[str, AttributeValue], code: str) -> None:
    if len(values) > attributes_max:
        raise InvalidRequest(f"at most {attributes_max} values are allowed here", code=code)
    for name, value in values.items():
        if not ATTRIBUTE_NAME.match(name):
            raise InvalidRequest("a name is a-z, 0-9 and '_', from a letter, up to 63", code=code)
        if isinstance(value, str) and value:
            _ensure_text(code, "a value", value, attribute_value_bytes_max)
        elif isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            raise InvalidRequest("a number is beyond 64 bits", code=code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as its owner hands it in. ``subject`` names the data subject that an erasure may ask for."""

    id: str = field(repr=False)
    text: str = field(repr=False)
    subject: str | None = field(default=None, repr=False)
    attributes: Attributes = field(default_factory=dict, repr=False)
    metadata: Mapping[str, AttributeValue] = field(default_factory=dict, repr=False)
    expires_unix: int | None = None  # from then on it is not answered, and a sweep erases it

    def __post_init__(self) -> None:
        _ensure_text("record_id_invalid", "a record's id", self.id, record_id_bytes_max)
        if self.id in {".", ".."}:  # clients drop them from paths, escaped or not (RFC 3986 section 5.2.4)
            raise InvalidRequest(
                "'.' and '..' cannot be named in a path, so no record can be", code="record_id_invalid"
            )
        _ensure_text("text_invalid", "a record's text", self.text, text_bytes_max)
        if not self.text.strip():
            raise InvalidRequest("a record's text is blank", code="text_invalid")
        if self.subject is not None:
            ensure_subject(self.subject)
        for values, code in ((self.attributes, "attributes_invalid"), (self.metadata, "metadata_invalid")):
            _ensure_values(values, code)
        if self.expires_unix is not None and not 0 < self.expires_unix <= expires_unix_max:
            raise InvalidRequest("a record's end lies between the years 1970 and 9999", code="expires_at_invalid")


# --- filters -------------------------------------------------------------------------------------------------------
# A comparison with an attribute that a record lacks is an error, as in Cedar. How errors count is in RowFilter.


@dataclass(frozen=True, slots=True)
class TruthValue:
    value: bool


@dataclass(frozen=True, slots=True)
class Has:
    attribute: str


@dataclass(frozen=True, slots=True)
class Equals:
    attribute: str
    value: AttributeValue


@dataclass(frozen=True, slots=True)
class OneOf:
    attribute: str
    values: tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """``attribute <operator> value`` on integers (Cedar's Long)."""

    attribute: str
    operator: Literal["<", "<=", ">", ">="]
    value: int


@dataclass(frozen=True, slots=True)
class Not:
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    """Evaluated from the left with short circuit, as in Cedar: ``false && error`` is false."""

    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Or:
    """Evaluated from the left with short circuit, as in Cedar: ``true || error`` is true."""

    left: "Expression"
    right: "Expression"


Expression = TruthValue | Has | Equals | OneOf | Compare | Not | And | Or


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """Which records of a collection a permit reaches: any permit holds and no forbid does.

    A permit that errors on a record does not hold. A forbid that errors on a record holds: Cedar itself skips it,
    and a skipped prohibition fails open.
    """

    permits: tuple[Expression, ...]
    forbids: tuple[Expression, ...] = ()

    @property
    def unrestricted(self) -> bool:
        return TruthValue(True) in self.permits and not self.forbids


# --- who and what --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls, as a verified access token says (RFC 9068). Exists only when the token was verified."""

    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    token_sha256: str  # hex SHA-256 of the token's jti, for the log; the token itself is kept nowhere
    expires_unix: int
    attributes: Attributes = field(default_factory=dict)  # claims that the issuer profile maps: department, clearance
    purposes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Policy lets the principal do it, on the records that ``rows`` reaches."""

    rows: RowFilter
    policy_ids: tuple[str, ...]
    policy_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal is a value with its reason, so that it can be logged before it is answered."""

    error: SecureEmbedError
    policy_ids: tuple[str, ...] = ()
    policy_digest: str = ""


Decision = Permit | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the log writer returns once an INTENT is durable. Nothing is opened, erased or shredded without one."""

    intent_index: int
    action: Action
    openings_max: int
    expires_monotonic: float

    def require(self, *actions: Action, openings: int = 0) -> None:
        """Raise :class:`SecureEmbedError` (``ticket_refused``) unless the ticket covers the action, now."""
        if self.action not in actions or openings > self.openings_max or time.monotonic() > self.expires_monotonic:
            raise SecureEmbedError("the log's ticket does not cover this", code="ticket_refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where in the log the call stands: the caller keeps it, so that a missing entry is noticed."""

    origin: str
    index: int
    leaf_hash: str  # hex SHA-256, RFC 6962 section 2.1

    def __str__(self) -> str:
        return f"{self.origin} {self.index} {self.leaf_hash}"
