"""What is written about a call: one frozen event, its OCSF class, its canonical bytes. Pure.

No content of a record or query fits in here: names are bounded and of a fixed alphabet, everything that a caller chose
freely arrives as a keyed hash or not at all. Schema for other programs: audit/event.schema.json. Classes: OCSF 1.7.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import orjson

from secure_embed.audit.tiles import entry_bytes_max
from secure_embed.errors import SecureEmbedError
from secure_embed.types import COLLECTION_NAME, Action, Principal

__all__ = ["AuditEvent", "Caller", "EventDecision", "Phase", "collection_label", "label"]

EventDecision = Literal["allowed", "refused", "failed"]
Json = str | int | bool | Sequence["Json"] | Mapping[str, "Json"]
Detail = str | int | bool

identity_characters_max = 256
list_items_max = 64
record_tags_max = 128
orphans_max = 500
integer_max = 2**53 - 1  # I-JSON, RFC 7493 section 2.2
unlisted = "unlisted"

_LABEL = re.compile(r"[A-Za-z0-9_.:/@+-]{1,128}\Z")
_DETAIL_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_ACTION = re.compile(r"[a-z]+(?:[._][a-z]+){0,4}\Z")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_VKEY = r"[a-z0-9][a-z0-9./-]{0,254}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}"
_HANDOVER = re.compile(  # a signed note of this one form, so no other text; log-format.md, "Another signing key"
    r"[a-z0-9][a-z0-9./-]{0,254}/log-key/v1\n(?:0|[1-9][0-9]{0,15})\n[A-Za-z0-9+/]{43}=\n"
    rf"{_VKEY}\n{_VKEY}\n\n\u2014 [a-z0-9][a-z0-9./-]{{0,254}} [A-Za-z0-9+/]{{91}}=\n\Z"
)
_HEX_TAG = re.compile(r"(?:[0-9a-f]{2}){8,64}\Z")

# OCSF 1.7: class_uid, activity_id. 6005 Datastore Activity, 6003 API Activity, 3002 Authentication, 6002 Application Lifecycle.
# By name: what an operator does with the keys and copies is in the log whether or not a caller may ask for it.
_OCSF: Mapping[str, tuple[int, int]] = {
    Action.QUERY: (6005, 4),
    Action.RECORD_READ: (6005, 1),
    Action.RECORD_INGEST: (6005, 6),
    Action.RECORD_ERASE: (6005, 7),
    Action.VECTORS_EXPORT: (6005, 1),
    Action.COLLECTION_LIST: (6005, 8),
    Action.COLLECTION_CREATE: (6003, 1),
    Action.COLLECTION_READ: (6003, 2),
    Action.AUDIT_READ: (6003, 2),
    "collection.erase": (6005, 7),
    "collection.tune": (6005, 1),
    "collection.tuned": (6003, 3),
    "hold.place": (6003, 1),
    "hold.release": (6003, 4),
    "hold.list": (6003, 2),
    "keys.read": (6003, 2),
    "keys.rotate": (6003, 3),
    "backup.create": (6003, 1),
    "retention.sweep": (6005, 7),
    "authentication": (3002, 1),
    "log.start": (6002, 3),
    "log.stop": (6002, 4),
    "log.key": (6002, 8),
    "log.recovery": (6002, 99),
    "log.rollback": (6002, 99),
    "store.restored": (6002, 99),
    "keys.rotated": (6002, 8),
    "keys.resealed": (6005, 9),
    "version.destroyed": (6005, 7),
    "erasure.done": (6005, 7),
    "policies.loaded": (6002, 8),
}
_OTHER = (6003, 99)


class Phase(StrEnum):
    INTENT = "INTENT"  # durable before anything is opened or changed
    OUTCOME = "OUTCOME"  # durable before the answer leaves
    SYSTEM = "SYSTEM"  # of the service itself


def label(text: str) -> str:
    """A name as it may stand in the log: up to 128 of A-Z a-z 0-9 _ . : / @ + -, else the word ``unlisted``."""
    return text if _LABEL.match(text) else unlisted


def collection_label(text: str) -> str:
    """A collection's name as a caller wrote it, or ``unlisted`` where no collection can be called so."""
    return text if COLLECTION_NAME.match(text) else unlisted


def _identity(text: str) -> str:
    """As the token says, bounded; control characters and lone surrogates become U+FFFD."""
    clean = "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in text)
    return clean if len(clean) <= identity_characters_max else clean[: identity_characters_max - 1] + "\u2026"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who called, as the verified token says."""

    issuer: str
    subject: str
    client_id: str
    token_sha256: str
    scopes: tuple[str, ...]

    @classmethod
    def of(cls, principal: Principal) -> "Caller":
        return cls(
            issuer=_identity(principal.issuer),
            subject=_identity(principal.subject),
            client_id=_identity(principal.client_id),
            token_sha256=principal.token_sha256,
            scopes=tuple(sorted(label(scope) for scope in principal.scopes))[:list_items_max],
        )

    def __post_init__(self) -> None:
        _require(all(text == _identity(text) for text in (self.issuer, self.subject, self.client_id)), "caller")
        _require(_all(_LABEL, self.scopes) and len(self.scopes) <= list_items_max, "scopes")
        _require(_all(_HEX_TAG, (self.token_sha256,)), "token_sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One entry, before the log stamps it with ``v``, ``uid`` and time. None: does not apply, and is not written.

    Hashes and tags are hex of 8 to 64 bytes. Raises :class:`SecureEmbedError` (``audit_event_invalid``) for whatever
    could carry content, so a mistake of ours ends a call instead of leaking into a log that cannot be edited.
    """

    phase: Phase
    action: str  # an Action, "authentication", or "<room>.<what>" for events of the service
    request: str = ""  # the request's id
    caller: Caller | None = None  # None: nobody was authenticated
    source: str | None = None  # address of the peer
    purpose: str | None = None
    collection: str | None = None
    policy_ids: tuple[str, ...] = ()
    policy_digest: str | None = None
    decision: EventDecision | None = None
    error: str | None = None  # code of errors.py
    intent: int | None = None  # index of the INTENT that this OUTCOME ends
    query_hmac: str | None = None
    filter_hash: str | None = None
    k: int | None = None
    openings_max: int | None = None  # of an INTENT: how many sealed values may be opened under it
    results: int | None = None
    result_commitment: str | None = None
    record_tags: tuple[str, ...] = ()  # keyed hashes of record ids
    queries_left: int | None = None
    records_left: int | None = None
    space_digest: str | None = None
    index_version: int | None = None
    latency_ms: int | None = None
    orphans: tuple[int, ...] = ()  # SYSTEM: intents that have no outcome
    key_at: int | None = None  # SYSTEM: index of the newest log.key before it
    handover: str | None = None  # of log.key: the note that the old signing key signed
    details: Mapping[str, Detail] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(_all(_ACTION, (self.action,)), "action")
        _require(_all(_LABEL, (self.purpose, self.source, *self.policy_ids)), "name")
        _require(not self.request or _all(_LABEL, (self.request,)), "request")
        _require(self.collection in (None, unlisted) or _all(COLLECTION_NAME, (self.collection,)), "collection")
        _require(_all(_CODE, (self.error,)), "error")
        hashes = (self.policy_digest, self.query_hmac, self.filter_hash, self.result_commitment, self.space_digest)
        _require(_all(_HEX_TAG, (*hashes, *self.record_tags)), "hash")
        counts = (self.k, self.openings_max, self.results, self.queries_left, self.records_left)
        integers = (*counts, self.index_version, self.latency_ms, self.intent, self.key_at, *self.orphans)
        _require(all(i is None or (type(i) is int and 0 <= i <= integer_max) for i in integers), "integer")
        _require(len(self.policy_ids) <= list_items_max and len(self.record_tags) <= record_tags_max, "list")
        _require(len(self.orphans) <= orphans_max and len(self.details) <= list_items_max, "list")
        for name, value in self.details.items():
            _require(_DETAIL_NAME.match(name) is not None, "detail")
            _require(type(value) in (str, int, bool), "detail")
            _require(_LABEL.match(value) is not None if isinstance(value, str) else abs(value) <= integer_max, "detail")
        self._check_phase()

    def _check_phase(self) -> None:
        if self.phase is Phase.INTENT:
            _require(self.decision is None and self.intent is None, "phase")
        elif self.phase is Phase.OUTCOME:
            _require(self.decision is not None, "phase")
            _require(self.decision != "allowed" or self.intent is not None, "phase")
            _require((self.decision == "allowed") == (self.error is None), "phase")
        else:
            _require(self.intent is None, "phase")
        is_handover = self.phase is Phase.SYSTEM and self.action == "log.key"
        _require((self.handover is not None) == is_handover and _all(_HANDOVER, (self.handover,)), "handover")
        _require(self.key_at is None or self.phase is Phase.SYSTEM, "key_at")

    def to_bytes(self, *, uid: str, time: str, time_ms: int) -> bytes:
        """Canonical JSON (equal to RFC 8785 for these types): what is stored, and what the leaf hash is over."""
        class_uid, activity_id = _OCSF.get(self.action, _OTHER)
        stamped: dict[str, object] = {"v": 1, "uid": uid, "time": time, "time_ms": time_ms}
        stamped |= {
            "class_uid": class_uid,
            "activity_id": activity_id,
            "phase": str(self.phase),
            "action": str(self.action),
        }
        if self.caller is not None:
            who = self.caller
            stamped["principal"] = {"issuer": who.issuer, "subject": who.subject, "client_id": who.client_id}
            stamped |= {"token": who.token_sha256, "scopes": who.scopes}
        for name in _WRITTEN_AS_THEY_ARE:
            value = getattr(self, name)
            if value not in (None, "", ()):
                stamped[name] = value
        if self.details:
            stamped["details"] = dict(self.details)
        entry = orjson.dumps(stamped, option=orjson.OPT_SORT_KEYS)
        _require(len(entry) <= entry_bytes_max, "size")
        return entry


_WRITTEN_AS_THEY_ARE = (
    *("request", "source", "purpose", "collection", "policy_ids", "policy_digest", "decision", "error", "intent"),
    *("query_hmac", "filter_hash", "k", "openings_max", "results", "result_commitment", "record_tags", "queries_left"),
    *("records_left", "space_digest", "index_version", "latency_ms", "orphans", "key_at", "handover"),
)


def _all(pattern: re.Pattern[str], texts: Sequence[str | None]) -> bool:
    return all(text is None or pattern.match(text) for text in texts)


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise SecureEmbedError(f"an audit event is malformed ({what})", code="audit_event_invalid")
