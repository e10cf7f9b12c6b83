"""A query, step by step. The order is the point: admitted, logged, encoded, scanned, opened, released, logged, answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secure_embed.answers import Hit, QueryResult, Question
from secure_embed.collection import Holding, Meta
from secure_embed.deadline import Deadline
from secure_embed.embed import Encoder
from secure_embed.errors import IntegrityFailure, InvalidRequest
from secure_embed.index import Effort, RabitqShard, Selection, openings_max
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
from secure_embed.trail import Call, Trail
from secure_embed.types import Action, Permit, Position, Principal, Receipt, Ticket, Vectors
from secure_embed.vault.entrance import Entrance, in_space

__all__ = ["Queries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    """A query that may be answered: counted, not yet encoded."""

    text: str
    profile: Profile
    admission: Admission
    shard: RabitqShard
    selection: Selection
    effort: Effort


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Best first, with exact scores; nothing of it has left yet."""

    hits: tuple[tuple[Position, float], ...]
    metas: Mapping[Position, Meta]


class Queries:
    def __init__(
        self, way: Entrance, *, encoder: Encoder, risk: RiskControl, catalogue: CatalogueKeys, untuned: Effort
    ) -> None:
        """``untuned``: how far a search goes where the collection's own effort was not measured."""
        self._way = way
        self._encoder = encoder
        self._risk = risk
        self._catalogue = catalogue
        self._untuned = untuned

    def query(self, call: Call, name: str, ask: Question) -> QueryResult:
        with self._way.begin(call, Action.QUERY) as trail:
            principal, permit = self._way.enter(trail, name)
            reads_texts = ask.include_text and self._way.gate.permit_texts(trail, principal, name)
            holding = in_space(self._way.holding(trail, name), self._encoder)
            asked = self._admit(trail, principal, permit, holding, ask)
            call.deadline.require()
            trail.intend(openings_max=openings_max(asked.effort, ask.k))
            vector = self._encoder.encode_query(asked.text)
            ticket = trail.ticket()  # no vector is opened before the INTENT is durable
            found = self._search(holding, asked, vector, ask.k, ticket, call.deadline)
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
            reads_all=small and self._way.gate.reads_all(trail, principal, holding.collection.name),
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
        return _Admitted(
            text=text,
            profile=profile,
            admission=admission,
            shard=shard,
            selection=selection,
            effort=holding.effort(self._untuned, shard),
        )

    def _search(
        self, holding: Holding, asked: _Admitted, vector: Vectors, k: int, ticket: Ticket, deadline: Deadline
    ) -> _Found:
        effort = asked.effort
        scored = asked.shard.search(vector, asked.selection, k=k, effort=effort, ticket=ticket, deadline=deadline)
        best = [
            (Position(int(position)), float(score))
            for position, score in zip(scored.positions[:k], scored.scores[:k], strict=True)
        ]
        metas = holding.describe([position for position, _ in best])
        return _Found(hits=tuple(hit for hit in best if hit[0] in metas), metas=metas)

    def _recheck(self, trail: Trail, principal: Principal, name: str, found: _Found) -> None:
        """The whole policy once more, on the records themselves. It agrees with the row filter, or nothing leaves."""
        attributes = [found.metas[position].attributes for position, _ in found.hits]
        if not all(self._way.gate.recheck(trail, principal, Action.QUERY, name, attributes)):
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
        readable = self._way.gate.recheck(trail, principal, Action.RECORD_READ, holding.collection.name, attributes)
        return holding.texts([p for p, may in zip(at, readable, strict=True) if may], ticket=ticket)

    def _ledger_key(self, holding: Holding, principal: Principal) -> LedgerKey:
        return LedgerKey(
            collection=holding.uuid,
            principal_tag=self._catalogue.tag(TagKind.PRINCIPAL, principal.issuer, principal.subject),
            client_tag=self._catalogue.tag(TagKind.CLIENT, principal.issuer, principal.client_id),
        )


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
