"""What is known of one call, gathered as it goes on, and written: an INTENT before, an OUTCOME after, whatever happens.

A :class:`Trail` is a ``with`` block around a use case. An error that leaves the block is logged first and carries its
receipt; a log that cannot be written turns every answer into ``audit_unavailable``. Free text never gets here: what a
caller chose is hashed under the log's key.
"""

import hmac
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from uuid import UUID, uuid4

from secure_embed.audit import AuditEvent, AuditLog, Caller, EventDecision, Phase, label
from secure_embed.deadline import Deadline
from secure_embed.errors import SecureEmbedError, Unavailable
from secure_embed.types import Action, Decision, Principal, Receipt, Ticket

__all__ = ["Call", "OwnTrail", "Trail", "Trails"]

T = TypeVar("T")

closed_codes = frozenset({"index_unavailable", "keys_closed"})
ticket_s = 300.0  # longest that a use case may go on opening under one INTENT
tuning_ticket_s = 4 * 3_600.0  # a tuning goes on beside the service's calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the door knows of a call before anyone is authenticated."""

    request: UUID
    action: Action
    authorization: tuple[str, ...] = field(repr=False)
    purpose: str | None
    source: str
    deadline: Deadline = field(default_factory=lambda: Deadline(math.inf), repr=False)  # queries take notice of it


class Trails:
    """Makes trails; holds the log and the key of its keyed hashes."""

    def __init__(self, log: AuditLog, key: Callable[[], bytes]) -> None:
        """``key``: gives the key of keyed hashes, 32 bytes; it is not kept here."""
        self.log = log
        self._key = key

    def begin(self, call: Call, action: Action) -> "Trail":
        return Trail(self.log, self.hashed, call, action)

    def hashed(self, kind: Literal["query", "filter", "record", "subject"], value: str) -> str:
        """Hex HMAC-SHA-256 under the log's key; the kind goes in, so that equal texts of two kinds differ."""
        return hmac.digest(self._key(), f"{kind}\x00{value}".encode("utf-8", "surrogatepass"), "sha256").hex()

    def own(self, action: str, *, count: int, **details: str | int | bool) -> "OwnTrail":
        """For an erasure of the service's own: one that a crash cut off, or that a date asked for. Durable on return."""
        return OwnTrail(self.log, action, count, details)

    def tuning(self, collection: str, *, openings: int, **details: str | int | bool) -> "OwnTrail":
        """For what a tuning does in the background. Durable on return."""
        return OwnTrail(
            self.log, "collection.tuned", openings, details, covers=Action.COLLECTION_TUNE, collection=collection
        )


class OwnTrail:
    """INTENT when it is made, OUTCOME when :meth:`done` is called or the block ends."""

    def __init__(
        self,
        log: AuditLog,
        action: str,
        count: int,
        details: Mapping[str, str | int | bool],
        *,
        covers: Action = Action.RECORD_ERASE,
        collection: str | None = None,
    ) -> None:
        """``covers``: what its ticket is good for, up to ``count`` openings."""
        self.details = dict(details)
        self._collection = collection
        self.results = 0
        self._log = log
        self._action = action
        self._request = str(uuid4())
        event = AuditEvent(
            phase=Phase.INTENT,
            action=action,
            request=self._request,
            collection=collection,
            openings_max=count,
            details=details,
        )
        lifetime_s = tuning_ticket_s if covers is Action.COLLECTION_TUNE else ticket_s
        intent = log.submit_intent(event, action=covers, openings_max=count, lifetime_s=lifetime_s)
        self.ticket = log.wait(intent)
        self._receipt: Receipt | None = None

    def done(self) -> Receipt:
        """Nothing may fail after this."""
        if self._receipt is None:
            self._receipt = self._outcome("allowed", None)
        return self._receipt

    def _outcome(self, decision: EventDecision, error: str | None) -> Receipt:
        return self._log.outcome(
            AuditEvent(
                phase=Phase.OUTCOME,
                action=self._action,
                request=self._request,
                collection=self._collection,
                decision=decision,
                error=error,
                intent=self.ticket.intent_index,
                results=self.results,
                details=self.details,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.done()
        elif self._receipt is None:
            self._outcome(
                "failed", error.code if isinstance(error, SecureEmbedError) else SecureEmbedError.default_code
            )


class Trail:
    """One call's. Not shared between threads."""

    def __init__(self, log: AuditLog, hashed: Callable[[Any, str], str], call: Call, action: Action) -> None:
        self.call = call
        self.action = action
        self.principal: Principal | None = None
        self.collection: str | None = None
        self.hashed = hashed
        self._log = log
        self._began = time.monotonic()
        self._fields: dict[str, Any] = {}
        self._details: dict[str, str | int | bool] = {}
        self._policy_ids: tuple[str, ...] = ()
        self._policy_digest: str | None = None
        self._intent: Future[Ticket] | None = None
        self._ended = False
        self._kept = ExitStack()
        self._gone: Callable[[], SecureEmbedError | None] = lambda: None

    def keep(self, block: AbstractContextManager[T], *, gone: Callable[[], SecureEmbedError | None]) -> T:
        """Enter ``block``, and leave it when this trail ends: what a use case works on is kept for it so long.

        ``gone``: why it is not there any more, if it is not. A use case under which it was closed ends with that."""
        self._gone = gone
        return self._kept.enter_context(block)

    def note(self, **fields: Any) -> None:
        """Fields of :class:`AuditEvent` for every event from here on."""
        self._fields |= fields

    def detail(self, **details: str | int | bool) -> None:
        self._details |= details

    def decided(self, decision: Decision) -> None:
        self._policy_ids = tuple(dict.fromkeys((*self._policy_ids, *map(label, decision.policy_ids))))
        self._policy_digest = decision.policy_digest or self._policy_digest

    def intend(self, *, openings_max: int = 0) -> None:
        """Send the INTENT on its way; other work may go on until :meth:`ticket` is needed."""
        assert self._intent is None
        event = self._event(Phase.INTENT, openings_max=openings_max)
        self._intent = self._log.submit_intent(
            event, action=self.action, openings_max=openings_max, lifetime_s=ticket_s
        )

    def ticket(self) -> Ticket:
        """Wait until the INTENT is durable: nothing is opened, erased or changed before that."""
        if self._intent is None:
            self.intend()
        assert self._intent is not None
        return self._log.wait(self._intent)

    def done(self, **fields: Any) -> Receipt:
        """The OUTCOME of a call that went well; durable on return. Nothing may fail after this."""
        receipt = self._outcome("allowed", None, intent=self.ticket().intent_index, **fields)
        self._ended = True
        return receipt

    def _outcome(self, decision: EventDecision, error: str | None, **fields: Any) -> Receipt:
        latency = int(1_000 * (time.monotonic() - self._began))
        return self._log.outcome(
            self._event(Phase.OUTCOME, decision=decision, error=error, latency_ms=latency, **fields)
        )

    def _event(self, phase: Phase, **fields: Any) -> AuditEvent:
        return AuditEvent(
            phase=phase,
            action=self.action,
            request=str(self.call.request),
            caller=Caller.of(self.principal) if self.principal is not None else None,
            source=label(self.call.source) if self.call.source else None,
            purpose=label(self.call.purpose) if self.call.purpose else None,
            collection=self.collection,
            policy_ids=self._policy_ids,
            policy_digest=self._policy_digest,
            details=dict(self._details),
            **{**self._fields, **fields},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._kept:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if error is None or self._ended:
            assert self._ended  # a use case ends with done(), or with an error
            return
        known = error if isinstance(error, SecureEmbedError) else None
        if known is not None and known.code in closed_codes:
            known = self._gone() or known
        shown = known or SecureEmbedError("something went wrong here; the log has the request")
        decision: EventDecision = "refused" if shown.status < 500 else "failed"
        intent = self._durable_intent()
        receipt = self._outcome(decision, shown.code, **({} if intent is None else {"intent": intent}))
        shown.receipt = str(receipt)
        if shown is not error:
            raise shown from (error if known is None else None)

    def _durable_intent(self) -> int | None:
        if self._intent is None:
            return None
        try:
            return self.ticket().intent_index
        except Unavailable:
            return None  # the outcome will not be written either, and says so
