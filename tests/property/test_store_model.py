"""The store against a model of plain dictionaries: appends, replays, erasures, replacements and restarts in any order."""

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secure_embed.errors import Conflict
from secure_embed.store import Appended, Change, RequestKey, SealedCollection, SealedRow, SqlcipherRecordStore, Versions
from secure_embed.types import Action, Field, Position, Ticket

collections = (UUID(int=1), UUID(int=2))
vector_bytes = 50
some_collection = st.sampled_from(collections)


def tag(n: int) -> bytes:
    """Tags that agree in their first bytes, and are not zeros."""
    return (n + 1).to_bytes(32, "big")


def sealed(size: int) -> dict[Field, bytes]:
    return {Field.VECTOR: os.urandom(vector_bytes), Field.META: os.urandom(size), Field.TEXT: os.urandom(size)}


class Model:
    """What a collection holds, in the plainest way."""

    def __init__(self) -> None:
        self.rows: dict[int, SealedRow] = {}
        self.changes: list[Change] = []
        self.requests: dict[bytes, tuple[bytes | None, Appended]] = {}  # None: the body is forgotten
        self.next_position = 0
        self.erasures = 0

    @property
    def ids(self) -> set[bytes]:
        return {row.id_tag for row in self.rows.values()}

    def change(self, kind: str, first: int, count: int) -> None:
        self.changes.append(
            Change(sequence=len(self.changes) + 1, kind=kind, first=Position(first), count=count)  # type: ignore[arg-type]  # a Literal
        )


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.key = os.urandom(32)
        self.models = {c: Model() for c in collections}

    @initialize()
    def open(self) -> None:
        self.store = SqlcipherRecordStore(Path(self.folder.name) / "data.db", self.key, rows_key=bytes(32))
        for c in collections:
            self.store.create_collection(SealedCollection(uuid=c, name_tag=tag(c.int), descriptor=b"sealed"))

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = SqlcipherRecordStore(Path(self.folder.name) / "data.db", self.key, rows_key=bytes(32))

    @rule(
        c=some_collection,
        ids=st.lists(st.integers(0, 30), min_size=1, max_size=6),
        gap=st.integers(-1, 2) | st.sampled_from([4_090, 9_000]),
        request=st.none() | st.integers(0, 5),
        body=st.integers(0, 1),
        size=st.sampled_from([33, 40, 5_000]),
        expires=st.none() | st.integers(1, 9),
    )
    def append(
        self, c: UUID, ids: list[int], gap: int, request: int | None, body: int, size: int, expires: int | None
    ) -> None:
        model = self.models[c]
        first = max(model.next_position + gap, 0)
        rows = [
            SealedRow(position=Position(first + n), id_tag=tag(i), fields=sealed(size), expires_unix=expires)
            for n, i in enumerate(ids)
        ]
        key = None if request is None else RequestKey(tag=tag(request), body_tag=tag(body))
        earlier = model.requests.get(key.tag) if key else None
        expected = self._expected(model, rows, key, earlier)
        if isinstance(expected, str):
            with pytest.raises(Conflict) as refused:
                self.store.append(c, rows, request=key)
            assert refused.value.code == expected
            return
        assert self.store.append(c, rows, request=key) == expected
        if expected.replayed:
            return
        model.rows.update({row.position: row for row in rows})
        model.change("added", first, len(rows))
        model.next_position = first + len(rows)
        if key:
            model.requests[key.tag] = (key.body_tag, expected)

    def _expected(
        self, model: Model, rows: list[SealedRow], key: RequestKey | None, earlier: tuple[bytes | None, Appended] | None
    ) -> Appended | str:
        """What the store has to answer, or the code that it has to refuse with."""
        first, ids = rows[0].position, [row.id_tag for row in rows]
        if earlier and key:
            body, answer = earlier
            if body not in (key.body_tag, None):
                return "request_mismatch"
            return Appended(first=answer.first, count=answer.count, data_version=answer.data_version, replayed=True)
        if first < model.next_position:
            return "position_used"
        if len(set(ids)) < len(ids) or model.ids & set(ids):
            return "record_exists"
        return Appended(first=first, count=len(rows), data_version=len(model.changes) + 1, replayed=False)

    @precondition(lambda self: any(model.next_position for model in self.models.values()))
    @rule(c=some_collection, picks=st.lists(st.floats(0, 1.2), max_size=5))
    def erase(self, c: UUID, picks: list[float]) -> None:
        model = self.models[c]
        at = [int(pick * model.next_position) for pick in picks]
        gone = sorted(set(at) & model.rows.keys())
        ticket = Ticket(
            intent_index=0, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 60
        )
        model.erasures += bool(gone)
        assert self.store.erase(c, [Position(p) for p in at], ticket=ticket) == model.erasures
        for position in gone:
            del model.rows[position]
            model.change("erased", position, 1)
            model.requests = {
                key: (None if answer.first <= position < answer.first + answer.count else body, answer)
                for key, (body, answer) in model.requests.items()
            }

    @rule(c=some_collection, segment=st.integers(0, 20), part=st.floats(0, 1))
    def replace(self, c: UUID, segment: int, part: float) -> None:
        model, bounds = self.models[c], self.store.segment_bounds(c)
        if not bounds:
            return
        first, end = bounds[segment % len(bounds)]
        held = [model.rows[p] for p in sorted(model.rows) if first <= p < end]
        rows = [
            dataclasses.replace(row, fields={f: os.urandom(len(value)) for f, value in row.fields.items()})
            for row in held[: 1 + int(part * len(held))]
        ]
        if rows:
            self.store.replace(c, rows)
            model.rows.update({row.position: row for row in rows})
            model.change("resealed", rows[0].position, rows[-1].position - rows[0].position + 1)

    @rule(late=st.booleans())
    def expire_requests(self, late: bool) -> None:
        held = sum(len(model.requests) for model in self.models.values())
        ended = self.store.expire_requests(int(time.time()) + (25 if late else 23) * 3_600)
        assert ended == (held if late else 0)
        if late:
            for model in self.models.values():
                model.requests.clear()

    @invariant()
    def they_agree(self) -> None:
        for c, model in self.models.items():
            rows = [model.rows[position] for position in sorted(model.rows)]
            assert list(self.store.scan(c, set(Field), after=Position(-1), limit=10_000)) == rows
            everywhere = [Position(p) for p in range(model.next_position + 3)]
            assert self.store.fetch(c, everywhere, set(Field)) == model.rows
            vectors, present = self.store.vectors(c, np.array(everywhere, np.int64))
            assert np.flatnonzero(present).tolist() == sorted(model.rows)
            assert [vectors[row.position].tobytes() for row in rows] == [row.fields[Field.VECTOR] for row in rows]
            ended = [row for row in rows if row.expires_unix is not None and row.expires_unix <= 5]
            ended.sort(key=lambda row: (row.expires_unix, row.position))
            assert list(self.store.expired(c, 5, 10_000)) == [row.position for row in ended]
            assert self.store.locate(c, [tag(i) for i in range(31)]) == {row.id_tag: row.position for row in rows}
            assert list(self.store.changes(c, since=0, limit=10_000)) == model.changes
            assert self.store.versions(c) == Versions(
                data=len(model.changes),
                erasure=model.erasures,
                codebook=0,
                next_position=Position(model.next_position),
                records=len(rows),
            )
            for request in range(6):
                kept = model.requests.get(tag(request))
                found = self.store.replay(
                    c, RequestKey(tag=tag(request), body_tag=(kept[0] if kept else None) or tag(0))
                )
                assert (found is None) == (kept is None)


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
