"""The conformance suite of ``RecordStore``: what erases rows, replaces them or ends a collection."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from uuid import UUID, uuid4

import numpy as np
import pytest

from secure_embed.errors import Conflict, NotFound, SecureEmbedError
from secure_embed.store import Change, RecordStore, RequestKey, SealedCollection, SealedRow, Versions
from secure_embed.types import Action, Field, Position, Ticket

Opener = Callable[[], RecordStore]
Batch = Callable[[int, int], list[SealedRow]]
NewCollection = Callable[[RecordStore], UUID]
NewRequest = Callable[[], RequestKey]

all_fields = frozenset(Field)


def contents(store: RecordStore, c: UUID) -> list[SealedRow]:
    return list(store.scan(c, all_fields, after=Position(-1), limit=1_000_000))


class TestErase:
    def test_rows_and_ids_are_gone_and_the_others_stay(
        self, store: RecordStore, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        batches = [batch(0, 3), batch(5, 3), batch(8, 3), batch(11, 2)]
        for rows in batches:
            store.append(c, rows, request=None)
        assert store.erase(c, [Position(7), Position(0), Position(12)], ticket=ticket) == 1
        gone = {0, 7, 12}
        assert contents(store, c) == [row for rows in batches for row in rows if row.position not in gone]
        assert store.fetch(c, [Position(0), Position(7)], all_fields) == {}
        assert store.locate(c, [batches[0][0].id_tag, batches[1][2].id_tag]) == {}
        assert store.versions(c) == Versions(data=7, erasure=1, codebook=0, next_position=Position(13), records=8)

    def test_a_late_retry_of_a_batch_that_was_erased_is_answered_and_writes_nothing(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, new_request: NewRequest, ticket: Ticket
    ) -> None:
        """Of part of the batch, and of all of it; with the same body, and since that is forgotten, with another."""
        rows, request, other = batch(0, 3), new_request(), new_request()
        answer = replace(store.append(c, rows, request=request), replayed=True)
        store.append(c, batch(3, 2), request=other)
        again = [replace(row, position=Position(row.position + 5)) for row in rows]
        for gone in ([Position(1)], [Position(0), Position(2)]):
            store.erase(c, gone, ticket=ticket)
            before = contents(store, c)
            for retried in (request, replace(request, body_tag=os.urandom(32))):
                assert store.append(c, again, request=retried) == store.replay(c, retried) == answer
            assert contents(store, c) == before
        with pytest.raises(Conflict):  # an entry of which nothing was erased keeps its body's hash
            store.replay(c, replace(other, body_tag=os.urandom(32)))
        store.close()
        reopened = open_store()
        assert reopened.append(c, again, request=request) == answer
        assert reopened.versions(c).records == 2
        reopened.close()

    def test_it_is_idempotent_and_an_epoch_counts_only_what_was_there(
        self, store: RecordStore, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        store.append(c, batch(0, 4), request=None)
        assert store.erase(c, [Position(9)], ticket=ticket) == 0
        assert store.erase(c, [Position(1), Position(1), Position(9)], ticket=ticket) == 1
        before = store.versions(c)
        assert store.erase(c, [Position(1)], ticket=ticket) == 1
        assert store.erase(c, [], ticket=ticket) == 1
        assert store.versions(c) == before

    def test_the_highest_position_is_not_given_again(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        store.append(c, batch(0, 3), request=None)
        store.erase(c, [Position(p) for p in range(3)], ticket=ticket)
        store.close()
        reopened = open_store()
        assert reopened.versions(c).next_position == 3
        with pytest.raises(Conflict):
            reopened.append(c, batch(2, 1), request=None)
        reopened.close()

    def test_an_erased_id_may_come_again(self, store: RecordStore, c: UUID, batch: Batch, ticket: Ticket) -> None:
        (row,) = batch(0, 1)
        store.append(c, [row], request=None)
        store.erase(c, [Position(0)], ticket=ticket)
        store.append(c, [replace(row, position=Position(1))], request=None)
        assert store.locate(c, [row.id_tag]) == {row.id_tag: 1}

    @pytest.mark.parametrize(
        ("action", "seconds"), [(Action.QUERY, 60), (Action.RECORD_INGEST, 60), (Action.RECORD_ERASE, -1)]
    )
    def test_without_a_ticket_for_it_nothing_is_erased(
        self, store: RecordStore, c: UUID, batch: Batch, action: Action, seconds: int
    ) -> None:
        rows = batch(0, 2)
        store.append(c, rows, request=None)
        wrong = Ticket(intent_index=0, action=action, openings_max=9, expires_monotonic=time.monotonic() + seconds)
        with pytest.raises(SecureEmbedError) as refused:
            store.erase(c, [Position(0)], ticket=wrong)
        assert refused.value.code == "ticket_refused"
        assert contents(store, c) == rows


class TestReplace:
    """Sealing anew: other values of the same lengths under the same positions and tags."""

    def sealed_anew(self, rows: list[SealedRow]) -> list[SealedRow]:
        return [
            replace(row, fields={field: b"\x01" + os.urandom(len(value) - 1) for field, value in row.fields.items()})
            for row in rows
        ]

    def test_the_new_values_are_there_and_nothing_else_changed(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        rows = batch(0, 5_000)
        store.append(c, [replace(row, expires_unix=7 if row.position == 3 else None) for row in rows], request=None)
        store.erase(c, [Position(1), Position(4_999)], ticket=ticket)
        assert list(store.segment_bounds(c)) == [(0, 4_096), (4_096, 5_000)]
        expected: list[SealedRow] = []
        for first, end in store.segment_bounds(c):
            there = list(store.scan(c, all_fields, after=Position(first - 1), limit=end - first))
            anew = self.sealed_anew([row for row in there if row.position < end])
            store.replace(c, anew, mark=b"marked")
            expected += anew
        assert contents(store, c) == expected
        sealed, present = store.vectors(c, np.arange(5_000, dtype=np.int64))
        assert present.sum() == 4_998
        assert [sealed[row.position].tobytes() for row in expected] == [row.fields[Field.VECTOR] for row in expected]
        assert store.versions(c) == Versions(
            data=5, erasure=1, codebook=0, next_position=Position(5_000), records=4_998
        )
        assert list(store.changes(c, since=3, limit=9)) == [
            Change(sequence=4, kind="resealed", first=Position(0), count=4_096),
            Change(sequence=5, kind="resealed", first=Position(4_096), count=903),
        ]
        assert store.marked() == b"marked"
        assert list(store.expired(c, 9, 9)) == [3]
        store.close()
        reopened = open_store()
        assert contents(reopened, c) == expected
        assert reopened.locate(c, [rows[2].id_tag, rows[1].id_tag]) == {rows[2].id_tag: 2}
        reopened.append(c, batch(5_000, 2), request=None)
        reopened.erase(c, [Position(2)], ticket=ticket)
        assert len(contents(reopened, c)) == 4_999
        reopened.close()

    def test_part_of_a_segment_leaves_the_rest(self, store: RecordStore, c: UUID, batch: Batch) -> None:
        rows = batch(0, 10)
        store.append(c, rows, request=None)
        anew = self.sealed_anew(rows[3:5] + rows[7:8])
        store.replace(c, anew)
        assert contents(store, c) == [*rows[:3], *anew[:2], *rows[5:7], anew[2], *rows[8:]]

    @pytest.mark.parametrize(
        "wrong", ["erased", "beyond", "tag", "text length", "meta length", "vector length", "fields", "order", "none"]
    )
    def test_what_is_not_a_replacement_changes_nothing(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, ticket: Ticket, wrong: str
    ) -> None:
        rows = batch(0, 9)
        store.append(c, rows, request=None)
        store.erase(c, [Position(4)], ticket=ticket)
        anew = self.sealed_anew([row for row in rows if row.position != 4])
        last = anew[-1]
        broken: dict[str, list[SealedRow]] = {
            "erased": [*anew[:4], replace(last, position=Position(4)), *anew[4:]],
            "beyond": [*anew, replace(last, position=Position(9))],
            "tag": [*anew[:-1], replace(last, id_tag=os.urandom(32))],
            "text length": [*anew[:-1], replace(last, fields={**last.fields, Field.TEXT: bytes(532)})],
            "meta length": [*anew[:-1], replace(last, fields={**last.fields, Field.META: bytes(334)})],
            "vector length": [*anew[:-1], replace(last, fields={**last.fields, Field.VECTOR: bytes(800)})],
            "fields": [*anew[:-1], replace(last, fields={Field.TEXT: last.fields[Field.TEXT]})],
            "order": [*anew[:-2], last, anew[-2]],
            "none": [],
        }
        before = (contents(store, c), store.versions(c), list(store.changes(c, since=0, limit=9)))
        with pytest.raises(SecureEmbedError) as refused:
            store.replace(c, broken[wrong], mark=b"mark")
        assert refused.value.code in {"rows_changed", "batch_malformed"}
        store.close()
        reopened = open_store()
        after = (contents(reopened, c), reopened.versions(c), list(reopened.changes(c, since=0, limit=9)))
        assert after == before
        assert reopened.marked() is None
        reopened.replace(c, anew)
        assert contents(reopened, c) == anew
        reopened.close()

    def test_readers_meanwhile_see_a_segment_before_or_after_never_between(
        self, store: RecordStore, c: UUID, batch: Batch
    ) -> None:
        """Each round seals all values of a row with its own number."""
        tags = [row.id_tag for row in batch(0, 40)]

        def round_of(number: int) -> list[SealedRow]:
            value = bytes([number]) * 700
            return [
                SealedRow(position=Position(p), id_tag=tag, fields=dict.fromkeys(Field, value))
                for p, tag in enumerate(tags)
            ]

        store.append(c, round_of(1), request=None)
        mixed: list[set[bytes]] = []
        done: list[bool] = []

        def read() -> None:
            while not done:
                rows = store.fetch(c, [Position(p) for p in range(40)], all_fields).values()
                arrays, _ = store.vectors(c, np.arange(40, dtype=np.int64))
                seen = (
                    {value[:1] for row in rows for value in row.fields.values()},
                    {row.tobytes()[:1] for row in arrays},
                )
                mixed.extend(values for values in seen if len(values) != 1)

        threads = [Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(2, 60):
            store.replace(c, round_of(number))
        done.append(True)
        for thread in threads:
            thread.join(timeout=60)
        assert mixed == []


class TestEraseCollection:
    def test_all_of_it_is_gone_its_name_is_free_and_the_others_stay(
        self, store: RecordStore, open_store: Opener, batch: Batch, new_request: NewRequest, ticket: Ticket
    ) -> None:
        first = SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=b"first")
        other = SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=b"other")
        kept, requests = batch(0, 700), (new_request(), new_request())
        for sealed, rows, request in zip((first, other), (batch(0, 5_000), kept), requests, strict=True):
            store.create_collection(sealed)
            store.append(sealed.uuid, [replace(row, expires_unix=9) for row in rows], request=request)
            store.put_codebook(sealed.uuid, 1, b"codebook")
        store.erase_collection(first.uuid, ticket=ticket)
        again = replace(first, uuid=uuid4())
        for opened in (store, None):
            reader = opened or open_store()
            assert reader.collections()[0] == other
            with pytest.raises(NotFound):
                reader.versions(first.uuid)
            with pytest.raises(NotFound):
                reader.erase(first.uuid, [Position(0)], ticket=ticket)
            reader.erase_collection(first.uuid, ticket=ticket)
            with pytest.raises(Conflict):
                reader.create_collection(replace(first, name_tag=os.urandom(32)))
            assert [row.fields for row in contents(reader, other.uuid)] == [row.fields for row in kept]
            assert reader.replay(other.uuid, requests[1]) is not None
            assert reader.codebook(other.uuid) == (1, b"codebook")
            if opened:
                reader.create_collection(again)
                assert reader.append(again.uuid, batch(0, 3), request=requests[0]).replayed is False
                assert reader.codebook(again.uuid) is None
            assert reader.versions(again.uuid).records == 3
            reader.close()

    def test_one_that_never_was_is_not_found_and_it_needs_a_ticket(
        self, store: RecordStore, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        with pytest.raises(NotFound):
            store.erase_collection(uuid4(), ticket=ticket)
        store.append(c, batch(0, 1), request=None)
        with pytest.raises(SecureEmbedError) as refused:
            store.erase_collection(c, ticket=replace(ticket, action=Action.RECORD_INGEST))
        assert refused.value.code == "ticket_refused"
        assert store.versions(c).records == 1
