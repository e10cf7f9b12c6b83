"""The use cases: the only place that puts the steps in order.

Each begins with who calls and what policy says, goes on only with a ticket from the log, and ends with an OUTCOME in
the log before its answer leaves. A refusal takes the same way out. The steps themselves live in the rooms below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson

from secure_embed.answers import CollectionView, Erasure, Fetched, Hit, Ingested, QueryResult, Question
from secure_embed.audit import parse_tile_path
from secure_embed.embed import Encoder
from secure_embed.erasing import Erasing, ErasureState
from secure_embed.errors import (
    AuditUnavailable,
    Conflict,
    Forbidden,
    IntegrityFailure,
    InvalidRequest,
    NotFound,
    SecureEmbedError,
)
from secure_embed.gate import Gate
from secure_embed.holding import Holding, Meta
from secure_embed.holdings import Holdings
from secure_embed.index import RabitqShard, Selection, openings_max
from secure_embed.keys import CatalogueKeys, TagKind
from secure_embed.risk import (
    Admission,
    Answer,
    LedgerKey,
    Profile,
    RiskControl,
    check_query,
    normalise_query,
    query_identity,
)
from secure_embed.store import RequestKey
from secure_embed.trail import Call, Trail, Trails
from secure_embed.types import (
    Action,
    AttributeType,
    Permit,
    Position,
    Principal,
    Receipt,
    Record,
    Ticket,
    Vectors,
)

__all__ = ["Call", "Vault"]

Declared = Mapping[str, AttributeType]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    """A query that may be answered: counted, not yet encoded."""

    text: str
    profile: Profile
    admission: Admission
    shard: RabitqShard
    selection: Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Best first, with exact scores; nothing of it has left yet."""

    hits: tuple[tuple[Position, float], ...]
    metas: Mapping[Position, Meta]


class Vault:
    """Thread safe. Everything it needs is handed in; ``deployment.py`` wires it."""

    def __init__(
        self,
        *,
        gate: Gate,
        risk: RiskControl,
        trails: Trails,
        encoder: Encoder,
        holdings: Holdings,
        erasing: Erasing,
        catalogue: CatalogueKeys,
        risk_profile: str,
        rerank_k: int,
        batch_records_max: int,
    ) -> None:
        self._gate = gate
        self._risk = risk
        self._trails = trails
        self._log = trails.log
        self._encoder = encoder
        self._holdings = holdings
        self._erasing = erasing
        self._catalogue = catalogue
        self._risk_profile = risk_profile
        self._rerank_k = rerank_k
        self._batch_records_max = batch_records_max

    # --- the way in ------------------------------------------------------------------------------------------------

    def _enter(
        self, trail: Trail, collection: str | None, declared: Declared | None = None
    ) -> tuple[Principal, Permit]:
        """token -> principal -> scope -> policy; raises the refusal, which the trail logs on its way out."""
        principal = self._gate.identify(trail)
        if collection is not None and self._holdings.knows(collection):
            trail.collection = collection  # an unknown name is the caller's own text, and stays out of the log
        return principal, self._gate.permit(trail, principal, trail.action, collection, declared)

    def refuse(self, call: Call, error: SecureEmbedError) -> None:
        """Log a refusal that the door made (a malformed body, say) and raise it. An unknown caller gets its 401."""
        with self._trails.begin(call, call.action) as trail:
            self._gate.name(trail)
            raise error

    # --- collections -----------------------------------------------------------------------------------------------

    def create_collection(self, call: Call, *, name: str, attributes: Declared) -> CollectionView:
        with self._trails.begin(call, Action.COLLECTION_CREATE) as trail:
            self._enter(trail, name, attributes)
            collection = self._holdings.describe_new(
                name, attributes, space=self._encoder.space, risk_profile=self._risk_profile
            )
            trail.ticket().require(Action.COLLECTION_CREATE)
            self._holdings.create(collection)
            trail.collection = name
            return CollectionView(collection=collection, records=0, receipt=trail.done())

    def list_collections(self, call: Call) -> tuple[list[CollectionView], Receipt]:
        with self._trails.begin(call, Action.COLLECTION_LIST) as trail:
            principal, _ = self._enter(trail, None)
            views = [
                self._view(trail, principal, self._holdings.named(name))
                for name in self._holdings.names()
                if self._gate.may(trail, principal, Action.COLLECTION_READ, name)
            ]
            return views, trail.done(results=len(views))

    def show_collection(self, call: Call, name: str) -> CollectionView:
        with self._trails.begin(call, Action.COLLECTION_READ) as trail:
            principal, _ = self._enter(trail, name)
            holding = self._holdings.named(name)
            return self._view(trail, principal, holding, trail.done())

    def _view(
        self, trail: Trail, principal: Principal, holding: Holding, receipt: Receipt | None = None
    ) -> CollectionView:
        reads_all = self._gate.reads_all(trail, principal, holding.collection.name)
        return CollectionView(
            collection=holding.collection, records=holding.records if reads_all else None, receipt=receipt
        )

    # --- ingest ----------------------------------------------------------------------------------------------------

    def ingest(self, call: Call, name: str, records: Sequence[Record], *, idempotency_key: str | None) -> Ingested:
        with self._trails.begin(call, Action.RECORD_INGEST) as trail:
            principal, _ = self._enter(trail, name)
            holding = self._in_space(self._holdings.named(name))
            self._check_batch(holding, records)
            request = _request_key(holding, principal, idempotency_key, records)
            trail.detail(requested=len(records))
            trail.intend()
            done = holding.replayed(request) if request is not None else None
            truncated = 0
            if done is None:
                texts = [record.text for record in records]
                vectors = self._encoder.encode_documents(texts)
                truncated = sum(self._encoder.truncated(texts))
                trail.ticket().require(Action.RECORD_INGEST)  # nothing is changed before the INTENT is durable
                done = holding.append(records, vectors, request=request)
            trail.detail(replayed=done.replayed)
            receipt = trail.done(results=done.count, index_version=done.data_version)
            return Ingested(records=done.count, truncated=truncated, replayed=done.replayed, receipt=receipt)

    def _check_batch(self, holding: Holding, records: Sequence[Record]) -> None:
        if len(records) > self._batch_records_max:
            raise InvalidRequest(
                f"a batch has at most {self._batch_records_max} records",
                code="batch_too_large",
                http_status=413,
                members={"records_max": self._batch_records_max},
            )
        if len({record.id for record in records}) != len(records):
            raise InvalidRequest("one id stands twice in the batch", code="duplicate_ids")
        holding.check(records)

    def _in_space(self, holding: Holding) -> Holding:
        if holding.collection.space != self._encoder.space:
            raise Conflict("the collection's vectors are of another model than the loaded one", code="space_mismatch")
        return holding

    # --- query -----------------------------------------------------------------------------------------------------

    def query(self, call: Call, name: str, ask: Question) -> QueryResult:
        with self._trails.begin(call, Action.QUERY) as trail:
            principal, permit = self._enter(trail, name)
            reads_texts = ask.include_text and self._gate.permit_texts(trail, principal, name)
            holding = self._in_space(self._holdings.named(name))
            asked = self._admit(trail, principal, permit, holding, ask)
            trail.intend(openings_max=openings_max(self._rerank_k, ask.k))
            vector = self._encoder.encode_query(asked.text)
            ticket = trail.ticket()  # no vector is opened before the INTENT is durable
            found = self._search(holding, asked, vector, ask.k, ticket)
            self._recheck(trail, principal, name, found)
            tags = holding.ledger_tags([position for position, _ in found.hits])
            answer = self._risk.release(
                asked.profile, asked.admission, found.hits, tags, matching=asked.selection.count
            )
            shown = [hit.position for hit in answer.hits]
            texts = self._texts(trail, principal, holding, found, shown, ticket) if reads_texts else {}
            trail.detail(limited=answer.limited, texts=len(texts))
            receipt = trail.done(
                results=len(shown),
                queries_left=answer.charged.queries_left,
                records_left=answer.charged.distinct_left_day,
                index_version=asked.shard.version,
            )
            return _query_result(answer, found, texts, receipt)

    def _admit(self, trail: Trail, principal: Principal, permit: Permit, holding: Holding, ask: Question) -> _Admitted:
        """What the risk profile says before anything is encoded; a malformed question is not counted."""
        profile = self._risk.profile(holding.collection.risk_profile)
        records = holding.records
        small = records < profile.collection_records_min  # only then does it matter who may read all
        check_query(
            profile,
            k=ask.k,
            has_vector=ask.has_vector,
            collection_records=records,
            reads_all=small and self._gate.reads_all(trail, principal, holding.collection.name),
        )
        text = normalise_query(ask.text)
        if not text:
            raise InvalidRequest("the query's text is blank", code="text_invalid")
        shard = holding.shard()
        selection = shard.select(permit.rows, ask.own)
        own = repr(ask.own) if ask.own is not None else ""
        trail.note(query_hmac=trail.hashed("query", text), k=ask.k)
        if own:
            trail.note(filter_hash=trail.hashed("filter", own))
        writes = "records:write" in principal.scopes
        identity = query_identity(text, own_filter=own, data_version=holding.data_version if writes else None)
        admission = self._risk.admit(
            profile,
            self._ledger_key(holding, principal),
            request=trail.call.request,
            query_tag=holding.tag(TagKind.QUERY, identity),
            collection_records=records,
            holds_write=writes,
        )
        return _Admitted(text=text, profile=profile, admission=admission, shard=shard, selection=selection)

    def _search(self, holding: Holding, asked: _Admitted, vector: Vectors, k: int, ticket: Ticket) -> _Found:
        candidates = asked.shard.scan(vector, asked.selection, k=k, rerank_k=self._rerank_k)
        scored = asked.shard.score(candidates.positions, vector, ticket=ticket)
        best = [
            (Position(int(position)), float(score))
            for position, score in zip(scored.positions[:k], scored.scores[:k], strict=True)
        ]
        metas = holding.describe([position for position, _ in best])
        return _Found(hits=tuple(hit for hit in best if hit[0] in metas), metas=metas)

    def _recheck(self, trail: Trail, principal: Principal, name: str, found: _Found) -> None:
        """The whole policy once more, on the records themselves. It agrees with the row filter, or nothing leaves."""
        attributes = [found.metas[position].attributes for position, _ in found.hits]
        if not all(self._gate.recheck(trail, principal, Action.QUERY, name, attributes)):
            raise IntegrityFailure("the row filter and the policy disagree", code="row_filter_mismatch")

    def _texts(
        self,
        trail: Trail,
        principal: Principal,
        holding: Holding,
        found: _Found,
        at: Sequence[Position],
        ticket: Ticket,
    ) -> dict[Position, str]:
        """Texts of the hits that policy lets the caller read; a hit may be found and still not be readable."""
        attributes = [found.metas[position].attributes for position in at]
        readable = self._gate.recheck(trail, principal, Action.RECORD_READ, holding.collection.name, attributes)
        return holding.texts([p for p, may in zip(at, readable, strict=True) if may], ticket=ticket)

    def _ledger_key(self, holding: Holding, principal: Principal) -> LedgerKey:
        return LedgerKey(
            collection=holding.uuid,
            principal_tag=self._catalogue.tag(TagKind.PRINCIPAL, principal.issuer, principal.subject),
            client_tag=self._catalogue.tag(TagKind.CLIENT, principal.issuer, principal.client_id),
        )

    def export_vectors(self, call: Call, name: str) -> None:
        """A scope of its own, a policy of its own, and then the risk profile: no released one lets vectors out."""
        with self._trails.begin(call, Action.VECTORS_EXPORT) as trail:
            self._enter(trail, name)
            self._holdings.named(name)
            raise Forbidden("the risk profile lets no vector out", code="vectors_not_released")

    # --- one record ------------------------------------------------------------------------------------------------

    def fetch(self, call: Call, name: str, record_id: str) -> Fetched:
        with self._trails.begin(call, Action.RECORD_READ) as trail:
            principal, _ = self._enter(trail, name)
            holding = self._holdings.named(name)
            trail.intend(openings_max=1)
            ticket = trail.ticket()
            position, meta = self._visible(trail, principal, holding, record_id)
            text = holding.texts([position], ticket=ticket).get(position)
            if text is None:  # erased in this moment
                raise _record_not_found()
            record = Record(
                id=meta.id, text=text, subject=meta.subject, attributes=meta.attributes, metadata=meta.metadata
            )
            return Fetched(record=record, receipt=trail.done(results=1))

    def _visible(self, trail: Trail, principal: Principal, holding: Holding, record_id: str) -> tuple[Position, Meta]:
        """The record, if it is there and the caller may do this with it; hidden and absent look the same."""
        trail.note(record_tags=(trail.hashed("record", record_id),))
        position = holding.locate(record_id)
        meta = holding.describe([position]).get(position) if position is not None else None
        if position is None or meta is None:
            raise _record_not_found()
        may = self._gate.recheck(trail, principal, trail.action, holding.collection.name, [meta.attributes])
        if not all(may):
            raise _record_not_found()
        return position, meta

    # --- erasure ---------------------------------------------------------------------------------------------------

    def erase_record(self, call: Call, name: str, record_id: str) -> Erasure:
        with self._trails.begin(call, Action.RECORD_ERASE) as trail:
            principal, _ = self._enter(trail, name)
            holding = self._holdings.named(name)
            position, _ = self._visible(trail, principal, holding, record_id)
            return self._erase(trail, [(holding, (position,))], reason="record")

    def erase_subject(self, call: Call, subject: str, names: Sequence[str] | None, *, reason: str) -> Erasure:
        """All records of a data subject, in every collection where policy lets the caller erase, or in those named."""
        with self._trails.begin(call, Action.RECORD_ERASE) as trail:
            chosen = self._erasable(trail, names)
            trail.detail(subject_hmac=trail.hashed("subject", subject))
            return self._erase(trail, [(h, h.of_subject(subject)) for h in chosen], reason=reason)

    def _erasable(self, trail: Trail, names: Sequence[str] | None) -> list[Holding]:
        principal = self._gate.identify(trail)
        asked = names or self._holdings.names()
        allowed = self._gate.erases_all_in(trail, principal, asked, named=names is not None)
        return [self._holdings.named(name) for name in allowed]

    def _erase(self, trail: Trail, what: Sequence[tuple[Holding, Sequence[Position]]], *, reason: str) -> Erasure:
        identifier = uuid4()
        count = sum(len(at) for _, at in what)
        trail.detail(erasure=str(identifier), requested=count)
        trail.intend(openings_max=count)
        state = self._erasing.run(identifier, what, reason=reason, ticket=trail.ticket())
        return _erasure(identifier, state, trail.done(results=count))

    def erasure(self, call: Call, identifier: UUID) -> Erasure:
        with self._trails.begin(call, Action.RECORD_ERASE) as trail:
            self._erasable(trail, None)
            state = self._erasing.state(identifier)
            return _erasure(identifier, state, trail.done(results=1))

    # --- the log ---------------------------------------------------------------------------------------------------

    def checkpoint(self, call: Call) -> tuple[str, Receipt]:
        """A checkpoint that covers this call too."""
        with self._trails.begin(call, Action.AUDIT_READ) as trail:
            self._enter(trail, None)
            receipt = trail.done()
        return self._log.checkpoint(), receipt

    def tile(self, call: Call, path: str) -> tuple[bytes, Receipt]:
        """``path``: as C2SP tlog-tiles has it, behind ``tile/``."""
        with self._trails.begin(call, Action.AUDIT_READ) as trail:
            self._enter(trail, None)
            level, index, width = parse_tile_path(path)
            content = self._log.bundle(index, width) if level is None else self._log.tile(level, index, width)
            return content, trail.done()

    def events(self, call: Call, start: int, count: int) -> tuple[list[Any], Receipt]:
        with self._trails.begin(call, Action.AUDIT_READ) as trail:
            self._enter(trail, None)
            there = max(0, min(count, self._log.head().size - start))
            entries = [orjson.loads(entry) for entry in self._log.entries(start, there)] if there else []
            return entries, trail.done(results=len(entries))

    # --- the process -----------------------------------------------------------------------------------------------

    def unready(self) -> str | None:
        """Why no caller would be served now, or None."""
        try:
            self._log.require_available()
        except AuditUnavailable as why:
            return why.code
        return None


def _record_not_found() -> NotFound:
    return NotFound("there is no such record for you", code="record_not_found")


def _erasure(identifier: UUID, state: ErasureState, receipt: Receipt) -> Erasure:
    return Erasure(id=identifier, state=state.state, records=state.records, note=state.note, receipt=receipt)


def _query_result(answer: Answer, found: _Found, texts: Mapping[Position, str], receipt: Receipt) -> QueryResult:
    hits = tuple(
        Hit(
            id=found.metas[hit.position].id,
            rank=hit.rank,
            score=hit.score,
            attributes=found.metas[hit.position].attributes,
            text=texts.get(hit.position),
        )
        for hit in answer.hits
    )
    return QueryResult(hits=hits, limited=answer.limited, receipt=receipt)


def _request_key(
    holding: Holding, principal: Principal, key: str | None, records: Sequence[Record]
) -> RequestKey | None:
    if key is None:
        return None
    body = orjson.dumps(
        [[r.id, r.text, r.subject, r.attributes, r.metadata] for r in records], option=orjson.OPT_SORT_KEYS
    )
    # Bound to the principal: another caller's key is another request.
    name = orjson.dumps([principal.issuer, principal.subject, key])
    return RequestKey(tag=holding.tag(TagKind.REQUEST, name), body_tag=holding.tag(TagKind.REQUEST_BODY, body))
