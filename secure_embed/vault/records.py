"""Records: ingested, fetched one by one; and vectors, which never leave."""

from collections.abc import Sequence

import orjson

from secure_embed.answers import Fetched, Ingested
from secure_embed.collection import Holding
from secure_embed.embed import Encoder
from secure_embed.errors import Forbidden, InvalidRequest
from secure_embed.keys import TagKind
from secure_embed.store import RequestKey
from secure_embed.trail import Call
from secure_embed.types import Action, Principal, Record
from secure_embed.vault.entrance import Entrance, in_space, record_not_found

__all__ = ["Records"]


class Records:
    def __init__(self, way: Entrance, *, encoder: Encoder, batch_records_max: int) -> None:
        self._way = way
        self._encoder = encoder
        self._batch_records_max = batch_records_max

    def ingest(self, call: Call, name: str, records: Sequence[Record], *, idempotency_key: str | None) -> Ingested:
        with self._way.begin(call, Action.RECORD_INGEST) as trail:
            principal, _ = self._way.enter(trail, name)
            holding = in_space(self._way.holding(trail, name), self._encoder)
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

    def fetch(self, call: Call, name: str, record_id: str) -> Fetched:
        with self._way.begin(call, Action.RECORD_READ) as trail:
            principal, _ = self._way.enter(trail, name)
            holding = self._way.holding(trail, name)
            trail.intend(openings_max=1)
            ticket = trail.ticket()
            position, meta = self._way.visible(trail, principal, holding, record_id)
            text = holding.texts([position], ticket=ticket).get(position)
            if text is None:  # erased in this moment
                raise record_not_found()
            record = Record(
                id=meta.id,
                text=text,
                subject=meta.subject,
                attributes=meta.attributes,
                metadata=meta.metadata,
                expires_unix=meta.expires_unix,
            )
            return Fetched(record=record, receipt=trail.done(results=1))

    def export_vectors(self, call: Call, name: str) -> None:
        """A scope of its own, a policy of its own, and then the risk profile: no released one lets vectors out."""
        with self._way.begin(call, Action.VECTORS_EXPORT) as trail:
            self._way.enter(trail, name)
            self._way.holdings.collection(name)
            raise Forbidden("the risk profile lets no vector out", code="vectors_not_released")


def _request_key(
    holding: Holding, principal: Principal, key: str | None, records: Sequence[Record]
) -> RequestKey | None:
    if key is None:
        return None
    body = orjson.dumps(
        [[r.id, r.text, r.subject, r.attributes, r.metadata, r.expires_unix] for r in records],
        option=orjson.OPT_SORT_KEYS,
    )
    # Bound to the principal: another caller's key is another request.
    name = orjson.dumps([principal.issuer, principal.subject, key])
    return RequestKey(tag=holding.tag(TagKind.REQUEST, name), body_tag=holding.tag(TagKind.REQUEST_BODY, body))
