"""What every ``RecordStore`` keeps to. A new driver adds one line to ``makers`` in conftest.py and passes all of it."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from uuid import UUID, uuid4

import numpy as np
import pytest

from secure_embed.errors import Conflict, NotFound, SecureEmbedError, Unavailable
from secure_embed.store import Change, RecordStore, RequestKey, SealedCollection, SealedRow, StateKind, Versions
from secure_embed.types import Field, Position, Ticket

Opener = Callable[[], RecordStore]
Batch = Callable[[int, int], list[SealedRow]]
NewCollection = Callable[[RecordStore], UUID]
NewRequest = Callable[[], RequestKey]

all_fields = frozenset(Field)


def contents(store: RecordStore, c: UUID) -> list[SealedRow]:
    return list(store.scan(c, all_fields, after=Position(-1), limit=1_000_000))


class TestCollections:
    def test_they_are_listed_as_they_were_given_in_order_of_making(
        self, store: RecordStore, open_store: Opener
    ) -> None:
        made = [SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=os.urandom(99)) for _ in range(3)]
        for sealed in made:
            store.create_collection(sealed)
        assert list(store.collections()) == made
        store.close()
        reopened = open_store()
        assert list(reopened.collections()) == made
        reopened.close()

    @pytest.mark.parametrize("same", ["uuid", "name_tag"])
    def test_a_taken_name_or_uuid_is_refused_and_changes_nothing(self, store: RecordStore, same: str) -> None:
        first = SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=b"first")
        second = SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=b"second")
        store.create_collection(first)
        with pytest.raises(Conflict) as refused:
            store.create_collection(replace(second, **{same: getattr(first, same)}))
        assert refused.value.code == "collection_exists"
        assert list(store.collections()) == [first]

    def test_a_new_one_is_empty_and_counts_from_zero(self, store: RecordStore, c: UUID) -> None:
        assert store.versions(c) == Versions(data=0, erasure=0, codebook=0, next_position=Position(0), records=0)
        assert contents(store, c) == []
        assert list(store.changes(c, since=0, limit=10)) == []

    def test_no_door_answers_for_an_unknown_one(
        self, store: RecordStore, batch: Batch, new_request: NewRequest, ticket: Ticket
    ) -> None:
        unknown = uuid4()
        doors: list[Callable[[], object]] = [
            lambda: store.append(unknown, batch(0, 1), request=None),
            lambda: store.replay(unknown, new_request()),
            lambda: store.fetch(unknown, [Position(0)], all_fields),
            lambda: store.scan(unknown, all_fields, after=Position(-1), limit=1),
            lambda: store.locate(unknown, [os.urandom(32)]),
            lambda: store.changes(unknown, since=0, limit=1),
            lambda: store.versions(unknown),
            lambda: store.erase(unknown, [Position(0)], ticket=ticket),
            lambda: store.replace(unknown, batch(0, 1)),
            lambda: store.vectors(unknown, np.array([0], np.int64)),
            lambda: store.expired(unknown, 0, 1),
            lambda: store.segment_bounds(unknown),
            lambda: store.erase_collection(unknown, ticket=ticket),
            lambda: store.put_codebook(unknown, 1, b"sealed"),
            lambda: store.codebook(unknown),
        ]
        for door in doors:
            with pytest.raises(NotFound) as refused:
                door()
            assert refused.value.code == "collection_not_found"


class TestAppend:
    def test_rows_come_back_as_they_were_given_also_after_a_restart(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch
    ) -> None:
        rows = batch(0, 120)
        answer = store.append(c, rows, request=None)
        assert (answer.first, answer.count, answer.data_version, answer.replayed) == (0, 120, 1, False)
        assert contents(store, c) == rows
        store.close()
        reopened = open_store()
        assert contents(reopened, c) == rows
        assert reopened.versions(c) == Versions(data=1, erasure=0, codebook=0, next_position=Position(120), records=120)
        reopened.close()

    def test_a_gap_before_a_batch_is_allowed_and_one_within_is_not(
        self, store: RecordStore, c: UUID, batch: Batch
    ) -> None:
        """Keys are put before rows; when the rows never come, their positions stay unused."""
        store.append(c, batch(5, 2), request=None)
        assert store.versions(c).next_position == 7
        with pytest.raises(SecureEmbedError) as refused:
            store.append(c, [*batch(9, 1), *batch(11, 1)], request=None)
        assert refused.value.code == "batch_malformed"
        assert store.versions(c).next_position == 7

    @pytest.mark.parametrize("first", [0, 1, 2])
    def test_a_position_is_never_used_twice(self, store: RecordStore, c: UUID, batch: Batch, first: int) -> None:
        rows = batch(0, 3)
        store.append(c, rows, request=None)
        with pytest.raises(Conflict) as refused:
            store.append(c, batch(first, 4), request=None)
        assert refused.value.code == "position_used"
        assert contents(store, c) == rows

    def test_a_batch_that_breaks_the_rules_is_refused(self, store: RecordStore, c: UUID, batch: Batch) -> None:
        (row,) = batch(0, 1)
        malformed: list[list[SealedRow]] = [
            [],
            batch(-1, 2),
            [replace(row, id_tag=b"short")],
            [replace(row, fields={Field.VECTOR: b"v", Field.TEXT: b"t"})],
            [row, row],
            [replace(row, fields={**row.fields, Field.VECTOR: b""})],
            [row, replace(batch(1, 1)[0], fields={**row.fields, Field.VECTOR: bytes(800)})],
        ]
        for rows in malformed:
            with pytest.raises(SecureEmbedError) as refused:
                store.append(c, rows, request=None)
            assert refused.value.code in {"batch_malformed", "tag_malformed"}
        assert store.versions(c).data == 0

    @pytest.mark.parametrize("where", ["stored", "same batch"])
    def test_a_taken_id_leaves_nothing_of_the_batch_behind(
        self, store: RecordStore, c: UUID, batch: Batch, new_request: NewRequest, where: str
    ) -> None:
        first = batch(0, 3)
        store.append(c, first, request=None)
        rows, request = batch(3, 50), new_request()
        rows[40] = replace(rows[40], id_tag=first[1].id_tag if where == "stored" else rows[7].id_tag)
        with pytest.raises(Conflict) as refused:
            store.append(c, rows, request=request)
        assert refused.value.code == "record_exists"
        assert contents(store, c) == first
        assert store.replay(c, request) is None
        assert store.versions(c) == Versions(data=1, erasure=0, codebook=0, next_position=Position(3), records=3)
        assert [change.sequence for change in store.changes(c, since=0, limit=9)] == [1]

    def test_two_collections_share_nothing(
        self, store: RecordStore, c: UUID, batch: Batch, new_collection: NewCollection, ticket: Ticket
    ) -> None:
        other, rows = new_collection(store), batch(0, 4)
        others = [replace(row, fields=theirs.fields) for row, theirs in zip(rows, batch(0, 4), strict=True)]
        store.append(c, rows, request=None)
        store.append(other, others, request=None)  # the same ids and positions
        store.erase(c, [Position(p) for p in range(4)], ticket=ticket)
        assert contents(store, c) == []
        assert contents(store, other) == others
        assert store.versions(other).erasure == 0


class TestRequests:
    def test_the_same_request_writes_once_and_answers_the_same(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, new_request: NewRequest
    ) -> None:
        rows, request = batch(0, 5), new_request()
        answer = store.append(c, rows, request=request)
        store.append(c, batch(5, 2), request=new_request())
        again = replace(answer, replayed=True)
        assert store.append(c, batch(7, 5), request=request) == again
        assert store.replay(c, request) == again
        assert (store.versions(c).data, store.versions(c).records) == (2, 7)
        store.close()
        reopened = open_store()
        assert reopened.replay(c, request) == again
        reopened.close()

    def test_another_body_under_the_same_tag_is_refused(
        self, store: RecordStore, c: UUID, batch: Batch, new_request: NewRequest
    ) -> None:
        rows, request = batch(0, 5), new_request()
        store.append(c, rows, request=request)
        changed = replace(request, body_tag=os.urandom(32))
        for door in (lambda: store.append(c, batch(5, 1), request=changed), lambda: store.replay(c, changed)):
            with pytest.raises(Conflict) as refused:
                door()
            assert refused.value.code == "request_mismatch"
        assert contents(store, c) == rows

    def test_an_entry_ends_after_a_day_and_its_place_is_used_again(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, new_request: NewRequest
    ) -> None:
        requests, position = [new_request() for _ in range(4)], 0
        for request in requests:
            store.append(c, batch(position, 1), request=request)
            position += 1
        now = int(time.time())
        assert store.expire_requests(now + 24 * 3_600 - 60) == 0
        assert store.expire_requests(now + 24 * 3_600 + 60) == 4
        assert store.expire_requests(now + 48 * 3_600) == 0
        assert [store.replay(c, request) for request in requests] == [None] * 4
        assert store.append(c, batch(position, 1), request=requests[1]).replayed is False
        store.close()
        reopened = open_store()
        assert [reopened.replay(c, request) is None for request in requests] == [True, False, True, True]
        answers = [reopened.append(c, batch(position + 1 + n, 1), request=new_request()) for n in range(5)]
        assert [answer.first for answer in answers] == [position + 1 + n for n in range(5)]
        assert reopened.replay(c, requests[1]) is not None
        reopened.close()

    def test_a_request_belongs_to_one_collection(
        self, store: RecordStore, c: UUID, batch: Batch, new_request: NewRequest, new_collection: NewCollection
    ) -> None:
        request, other = new_request(), new_collection(store)
        store.append(c, batch(0, 1), request=request)
        assert store.replay(other, request) is None


class TestReading:
    @pytest.mark.parametrize("asked", [set(), {Field.VECTOR}, {Field.TEXT}, {Field.META}, {Field.TEXT, Field.META}])
    def test_only_what_was_asked_for_is_given(
        self, store: RecordStore, c: UUID, batch: Batch, asked: set[Field]
    ) -> None:
        rows = batch(0, 3)
        store.append(c, rows, request=None)
        expected = [replace(row, fields={f: row.fields[f] for f in asked}) for row in rows]
        assert list(store.scan(c, asked, after=Position(-1), limit=9)) == expected
        assert store.fetch(c, [Position(1)], asked) == {1: expected[1]}

    def test_fetch_leaves_out_what_is_not_there_and_reaches_no_other_collection(
        self, store: RecordStore, c: UUID, batch: Batch, new_collection: NewCollection
    ) -> None:
        other, rows = new_collection(store), batch(0, 10)
        store.append(c, rows, request=None)
        store.append(other, batch(0, 10), request=None)
        beyond = [Position(p) for p in (-1, -(2**40), 2**40, 2**40 + 3, 2**62, 10, 11)]
        for collection in (c, other):
            assert store.fetch(collection, beyond, all_fields) == {}
        asked = [Position(p) for p in (7, 3, 3, 2**40 + 1)]
        assert store.fetch(c, asked, all_fields) == {7: rows[7], 3: rows[3]}
        assert store.fetch(c, [], all_fields) == {}

    def test_fetch_takes_thousands_of_positions(self, store: RecordStore, c: UUID, batch: Batch) -> None:
        rows = batch(0, 3_000)
        store.append(c, rows, request=None)
        found = store.fetch(c, [Position(p) for p in reversed(range(3_000))], {Field.META})
        assert {p: row.id_tag for p, row in found.items()} == {row.position: row.id_tag for row in rows}

    def test_scan_pages_through_a_collection_to_its_end(
        self, store: RecordStore, c: UUID, batch: Batch, new_collection: NewCollection
    ) -> None:
        other, rows = new_collection(store), [*batch(0, 5), *batch(8, 4)]
        store.append(c, rows[:5], request=None)
        store.append(c, rows[5:], request=None)
        store.append(other, batch(0, 3), request=None)
        seen: list[SealedRow] = []
        while page := store.scan(c, all_fields, after=seen[-1].position if seen else Position(-1), limit=4):
            assert len(page) <= 4
            seen.extend(page)
        assert seen == rows
        assert store.scan(c, all_fields, after=Position(2**40), limit=9) == []
        assert store.scan(c, all_fields, after=Position(-1), limit=-1) == []

    def test_ids_are_located(self, store: RecordStore, c: UUID, batch: Batch, new_collection: NewCollection) -> None:
        rows, other = batch(0, 6), new_collection(store)
        store.append(c, rows, request=None)
        unknown = os.urandom(32)
        assert store.locate(c, [rows[4].id_tag, unknown, rows[2].id_tag]) == {rows[4].id_tag: 4, rows[2].id_tag: 2}
        assert store.locate(other, [rows[4].id_tag]) == {}
        assert store.locate(c, []) == {}

    def test_values_longer_than_a_page_are_whole(self, store: RecordStore, c: UUID, batch: Batch) -> None:
        (row,) = batch(0, 1)
        row = replace(row, fields={field: b"\x01" + os.urandom(70_000) for field in Field})
        store.append(c, [row], request=None)
        assert store.fetch(c, [Position(0)], all_fields) == {0: row}

    def test_sealed_vectors_come_as_one_array(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        """In any order, twice, from several files, with gaps, erased and impossible positions between."""
        rows = [*batch(10, 3_000), *batch(4_000, 3_000)]
        store.append(c, rows[:3_000], request=None)
        store.append(c, rows[3_000:], request=None)
        store.erase(c, [Position(4_096), Position(20)], ticket=ticket)
        held = {row.position: row.fields[Field.VECTOR] for row in rows if row.position not in {20, 4_096}}
        asked = [6_999, 4_095, 4_096, 4_097, 10, 11, 12, 12, 20, 0, 3_500, 7_000, -1, 2**40, 2**62, -(2**62)]
        for opened in (store, None):
            reader = opened or open_store()
            for at in (asked, asked[4:8], asked[::-1], list(range(7_100)), []):
                sealed, present = reader.vectors(c, np.array(at, np.int64))
                assert sealed.dtype == np.uint8
                assert sealed.shape == (len(at), 801)
                assert present.tolist() == [position in held for position in at]
                assert [row.tobytes() for row in sealed] == [held.get(position, bytes(801)) for position in at]
            reader.close()

    def test_a_collection_without_records_has_no_vectors(self, store: RecordStore, c: UUID) -> None:
        sealed, present = store.vectors(c, np.array([0, 5], np.int64))
        assert sealed.shape == (2, 0)
        assert present.tolist() == [False, False]
        assert list(store.segment_bounds(c)) == []


class TestExpiry:
    def test_those_whose_end_has_come_are_named_earliest_first(
        self, store: RecordStore, open_store: Opener, c: UUID, batch: Batch, ticket: Ticket
    ) -> None:
        ends = [None, 300, 100, None, 200, 100]
        rows = [replace(row, expires_unix=end) for row, end in zip(batch(2, 6), ends, strict=True)]
        store.append(c, rows, request=None)
        assert contents(store, c) == rows
        assert store.fetch(c, [Position(4)], set()) == {4: replace(rows[2], fields={})}
        assert list(store.expired(c, 99, 10)) == []
        assert list(store.expired(c, 100, 10)) == [4, 7]
        assert list(store.expired(c, 299, 10)) == [4, 7, 6]
        assert list(store.expired(c, 10**9, 2)) == [4, 7]
        store.erase(c, store.expired(c, 100, 10), ticket=ticket)
        assert list(store.expired(c, 10**9, 10)) == [6, 3]
        store.close()
        reopened = open_store()
        assert list(reopened.expired(c, 10**9, 10)) == [6, 3]
        reopened.close()


class TestChanges:
    def test_they_come_without_a_gap_in_commit_order(
        self, store: RecordStore, c: UUID, batch: Batch, ticket: Ticket, new_collection: NewCollection
    ) -> None:
        other = new_collection(store)
        store.append(c, batch(0, 3), request=None)
        store.append(other, batch(0, 1), request=None)
        store.erase(c, [Position(2), Position(0)], ticket=ticket)
        store.append(c, batch(4, 2), request=None)
        expected = [
            Change(sequence=1, kind="added", first=Position(0), count=3),
            Change(sequence=2, kind="erased", first=Position(0), count=1),
            Change(sequence=3, kind="erased", first=Position(2), count=1),
            Change(sequence=4, kind="added", first=Position(4), count=2),
        ]
        assert list(store.changes(c, since=0, limit=99)) == expected
        assert list(store.changes(c, since=1, limit=2)) == expected[1:3]
        assert list(store.changes(c, since=4, limit=99)) == []
        assert store.versions(c).data == 4

    def test_threads_that_append_and_read_see_whole_batches_only(
        self, store: RecordStore, c: UUID, batch: Batch
    ) -> None:
        """``versions`` is one consistent read: each batch has seven rows, so records = 7 x data at every moment."""
        torn: list[Versions] = []
        conflicts: list[bool] = []

        def read() -> None:
            while (now := store.versions(c)).data < 40:
                if now.records != 7 * now.data or now.next_position != 7 * now.data:
                    torn.append(now)

        def write() -> None:
            while (now := store.versions(c)).data < 40:
                try:
                    store.append(c, batch(now.next_position, 7), request=None)
                except Conflict as conflict:  # the other writer was first
                    conflicts.append(conflict.code == "position_used")

        threads = [Thread(target=f) for f in (read, read, write, write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert torn == []
        assert all(conflicts)
        changes = store.changes(c, since=0, limit=99)
        assert [change.sequence for change in changes] == list(range(1, store.versions(c).data + 1))
        assert [change.first for change in changes] == [7 * n for n in range(len(changes))]


class TestCodebooksAndStates:
    def test_a_codebook_is_followed_by_the_next_version_only(self, store: RecordStore, c: UUID) -> None:
        assert store.codebook(c) is None
        for refused in (0, 2):
            with pytest.raises(Conflict) as conflict:
                store.put_codebook(c, refused, b"sealed")
            assert conflict.value.code == "codebook_version"
        store.put_codebook(c, 1, b"first")
        with pytest.raises(Conflict):
            store.put_codebook(c, 1, b"another")
        assert store.codebook(c) == (1, b"first")
        store.put_codebook(c, 2, b"second")
        assert store.codebook(c) == (2, b"second")
        assert store.versions(c).codebook == 2
        assert store.versions(c).data == 0

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (StateKind.ERASURE, "erasure_not_found"),
            (StateKind.HOLD, "hold_not_found"),
            (StateKind.TASK, "task_not_found"),
            (StateKind.TUNING, "tuning_not_found"),
        ],
    )
    def test_a_state_is_stored_replaced_listed_dropped_and_survives_a_restart(
        self, store: RecordStore, open_store: Opener, kind: StateKind, code: str
    ) -> None:
        first, second = sorted([uuid4(), uuid4()], key=lambda uuid: uuid.bytes)
        store.put_state(kind, second, b"started")
        store.put_state(kind, first, b"started")
        store.put_state(kind, first, b"done")
        for other in set(StateKind) - {kind}:
            store.put_state(other, first, b"of another kind")
        store.close()
        reopened = open_store()
        assert (reopened.state(kind, first), reopened.state(kind, second)) == (b"done", b"started")
        assert list(reopened.states(kind)) == [(first, b"done"), (second, b"started")]
        for _ in range(2):
            reopened.drop_state(kind, first)
        with pytest.raises(NotFound) as refused:
            reopened.state(kind, first)
        assert refused.value.code == code
        assert list(reopened.states(kind)) == [(second, b"started")]
        assert {reopened.state(other, first) for other in set(StateKind) - {kind}} == {b"of another kind"}
        reopened.close()

    def test_a_state_that_grows_shrinks_or_comes_back_is_what_was_put_last(self, store: RecordStore) -> None:
        uuids = [uuid4() for _ in range(3)]
        for size in (0, 10, 507, 508, 509, 5_000, 40, 508):
            for uuid in uuids:
                store.put_state(StateKind.TASK, uuid, uuid.bytes[:1] * size)
            store.drop_state(StateKind.TASK, uuids[1])
            kept = sorted((uuids[0], uuids[2]), key=lambda uuid: uuid.bytes)
            assert list(store.states(StateKind.TASK)) == [(uuid, uuid.bytes[:1] * size) for uuid in kept]


class TestMark:
    def test_it_is_what_was_marked_last_and_survives_a_restart(self, store: RecordStore, open_store: Opener) -> None:
        assert store.marked() is None
        store.mark(b"first")
        store.mark(b"second")
        assert store.marked() == b"second"
        store.close()
        reopened = open_store()
        assert reopened.marked() == b"second"
        reopened.close()

    def test_changes_carry_it_and_what_changes_nothing_by_a_refusal_or_a_replay_does_not(
        self, store: RecordStore, c: UUID, batch: Batch, new_request: NewRequest, ticket: Ticket
    ) -> None:
        rows, request = batch(0, 3), new_request()
        store.append(c, rows, request=request, mark=b"appended")
        assert store.marked() == b"appended"
        store.append(c, batch(3, 3), request=request, mark=b"replayed")
        with pytest.raises(Conflict):
            store.append(c, rows, request=None, mark=b"refused")
        store.append(c, batch(3, 1), request=None)
        assert store.marked() == b"appended"
        store.erase(c, [Position(0)], ticket=ticket, mark=b"erased")
        assert store.marked() == b"erased"
        store.erase(c, [Position(1)], ticket=ticket)
        assert store.marked() == b"erased"


def test_after_close_nothing_answers_and_closing_again_is_harmless(store: RecordStore, c: UUID, batch: Batch) -> None:
    store.close()
    store.close()
    for door in (lambda: store.versions(c), lambda: store.append(c, batch(0, 1), request=None)):
        with pytest.raises(Unavailable):
            door()
