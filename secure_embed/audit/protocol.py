"""The door of audit/: where entries lie. The log's rules (tree, checkpoint) are pure and know no driver."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secure_embed.errors import AuditUnavailable, Unavailable

__all__ = ["Head", "LogFull", "LogReader", "LogStorage"]


class LogFull(AuditUnavailable):
    """There was no space for it. Nothing of it is in the log, and the log goes on once there is space."""

    http_status = 507
    default_code = "storage_full"

    def __init__(self) -> None:
        Unavailable.__init__(self, "there is no space left to write the audit log, so nothing is answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    size: int  # entries
    root: bytes  # 32 bytes, RFC 6962 Merkle tree hash; SHA-256 of nothing at size 0
    checkpoint: str  # the signed note (C2SP signed-note, tlog-checkpoint); empty at size 0


class LogReader(Protocol):
    """What a log holds. Entries and leaf hashes raise ``NotFound`` (``entry_not_found``) past the head's size."""

    def head(self) -> Head: ...

    def entries(self, start: int, count: int) -> Sequence[bytes]: ...

    def leaf_hashes(self, start: int, count: int) -> Sequence[bytes]: ...


class LogStorage(LogReader, Protocol):
    """Append-only. One writer; a second one on the same log raises ``ConfigurationError`` (``log_in_use``)."""

    def commit(self, old: Head, entries: Sequence[bytes], new: Head) -> None:
        """Compare and swap: entries, then head, durable on return. Raises ``AuditUnavailable`` on any fault of the
        medium (a failed fsync is final: the driver refuses every later commit), ``LogFull`` where there was no space
        (nothing was written, a later commit may succeed) and ``Conflict`` on another head."""
        ...

    @property
    def torn_bytes(self) -> int:
        """How many bytes of a write that was never acknowledged were dropped when the log was opened."""
        ...

    def settle(self) -> None:
        """What a commit leaves to be done after its callers were answered; put off where there is no space for it.
        Raises ``AuditUnavailable``."""
        ...

    def publish(self) -> None:
        """Bring the form that foreign tools read up to the head; durable on return. Raises as :meth:`commit`."""
        ...

    def close(self) -> None:
        """Publish, where nothing has failed, and let go of the log."""
        ...
