"""Who holds the databases' own keys takes rows away, moves, changes and replays them, in every table and column.

The two databases of a deployment, read through their doors: each read gives what it gave, or fails and says so. What is
sealed as a set is always noticed. ``make corrupt`` does the same to whole services.
"""

import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlcipher3.dbapi2 as sqlcipher

from campaigns.damage_files import Damage
from campaigns.damage_tables import table_damages
from secure_embed.errors import IntegrityFailure, SecureEmbedError
from secure_embed.keys import SealedTables, SqlcipherKeyStore, WrappedCollection, WrappedKey, key_tables
from secure_embed.store import RequestKey, SealedCollection, SqlcipherRecordStore, StateKind, _schema
from secure_embed.types import Action, Field, Position, Ticket
from tests.sealed_store import batch, erase_ticket

uuids = UUID(int=11), UUID(int=12)
file_keys = {"keys.db": bytes(range(32)), "data.db": bytes(range(1, 33))}
rows_key = bytes(range(2, 34))
request = RequestKey(tag=bytes([5]) * 32, body_tag=bytes([6]) * 32)
subject = bytes([9]) * 32
# What an attacker may change without anyone reading it: numbers that name a row to SQLite alone.
unread = {"file_seal.one", "file_generation.one"}
blocks = {"records", "ends", "record_keys", "subjects"}
harmless = {
    *unread,
    *(f"{table}.id" for table in blocks),
    *blocks,
}  # the last: by a "swap rows", which exchanges their ids

Read = Callable[[], Any]


def opened(root: Path, stack: ExitStack) -> tuple[SqlcipherKeyStore, SqlcipherRecordStore]:
    keys = SqlcipherKeyStore(root / "keys.db", file_keys["keys.db"], rows_key)
    stack.callback(keys.close)
    store = SqlcipherRecordStore(root / "data.db", file_keys["data.db"], rows_key)
    stack.callback(store.close)
    return keys, store


def failure(call: Callable[[], object]) -> SecureEmbedError | None:
    try:
        call()
    except SecureEmbedError as failed:
        return failed
    return None


def wrapped(first: int, count: int) -> list[WrappedKey]:
    chance = random.Random(f"{first} {count}")
    return [
        WrappedKey(
            position=Position(first + n),
            version=1,
            subject_tag=subject if chance.random() < 0.3 else None,
            wrapped=chance.randbytes(40),
        )
        for n in range(count)
    ]


def first_state(root: Path) -> None:
    with ExitStack() as stack:
        keys, store = opened(root, stack)
        for n, uuid in enumerate(uuids):
            parts = {name: bytes([n + 1]) * 40 for name in ("collection_key", "index_key", "lookup_key")}
            keys.create_collection(WrappedCollection(uuid=uuid, version=1, root_key_id="root", **parts))  # type: ignore[arg-type]
            sealed = SealedCollection(uuid=uuid, name_tag=bytes([n + 1]) * 32, descriptor=bytes([n + 1]) * 50)
            store.create_collection(sealed)
            ingest(keys, store, uuid, 0, 300 - n)
            store.put_codebook(uuid, 1, b"codebook" + bytes([n]))
        keys.mark(b"mark")
        store.mark(b"mark")
        for n in range(3):
            store.put_state(StateKind.ERASURE, UUID(int=50 + n), bytes([n + 1]) * 70)


def ingest(keys: SqlcipherKeyStore, store: SqlcipherRecordStore, uuid: UUID, first: int, count: int) -> None:
    keys.put(uuid, wrapped(first, count))
    rows = [replace(row, expires_unix=count + n) for n, row in enumerate(batch(first, count, 40))]
    key = replace(request, tag=random.Random(f"{uuid}{first}").randbytes(32))
    store.append(uuid, rows, request=key)


def second_state(root: Path) -> None:
    """Every table is another than before."""
    with ExitStack() as stack:
        keys, store = opened(root, stack)
        for n, uuid in enumerate(uuids):
            ingest(keys, store, uuid, 300, 20 + n)
            store.append(uuid, batch(330, 1 + n, 40), request=None)
            keys.put(uuid, wrapped(332, 3 + n))
            keys.offer(uuid, wrapped(10, 4 + n))
            gone = [Position(4), Position(290)]
            keys.shred(uuid, gone, ticket=ticket())
            store.erase(uuid, gone, ticket=erase_ticket())
            store.put_codebook(uuid, 2, b"codebook 2" + bytes([n]))
        store.put_state(StateKind.ERASURE, UUID(int=50), bytes(70))
        store.drop_state(StateKind.ERASURE, UUID(int=51))
        keys.mark(b"mark 2")
        store.mark(b"mark 2")
        keys.rewrap_root("other root", lambda uuid, version, old: old[::-1])


def ticket() -> Ticket:
    return replace(erase_ticket(), action=Action.RECORD_ERASE)


def reads(keys: SqlcipherKeyStore, store: SqlcipherRecordStore) -> Mapping[str, Read]:
    found: dict[str, Read] = {
        "root": keys.root_key_id,
        "key mark": keys.marked,
        "key generation": lambda: keys.generation,
        "mark": store.marked,
        "generation": lambda: store.generation,
        "collections": store.collections,
        "states": lambda: [store.states(kind) for kind in StateKind],
        "state": lambda: store.state(StateKind.ERASURE, UUID(int=52)),
    }
    for uuid in uuids:
        found |= {f"{name} of {uuid}": read for name, read in reads_of(keys, store, uuid).items()}
    return found


def reads_of(keys: SqlcipherKeyStore, store: SqlcipherRecordStore, uuid: UUID) -> Mapping[str, Read]:
    every = [Position(p) for p in range(340)]
    tag = replace(request, tag=random.Random(f"{uuid}{300}").randbytes(32))
    return {
        "keys": lambda: keys.collection(uuid),
        "record keys": lambda: list(keys.wrapped(uuid)),
        "next key": lambda: keys.next_position(uuid),
        "subject": lambda: keys.positions_of_subject(uuid, subject),
        "offered": lambda: keys.offered(uuid),
        "versions": lambda: store.versions(uuid),
        "rows": lambda: store.scan(uuid, set(Field), after=Position(-1), limit=400),
        "tags": lambda: store.fetch(uuid, every, set()),
        "vectors": lambda: [part.tobytes() for part in store.vectors(uuid, np.array([0, 4, 319]))],
        "located": lambda: store.locate(uuid, [row.id_tag for row in store.fetch(uuid, every[:9], set()).values()]),
        "expired": lambda: store.expired(uuid, 10**9, 400),
        "changes": lambda: store.changes(uuid, since=0, limit=100),
        "replay": lambda: store.replay(uuid, tag),
        "codebook": lambda: store.codebook(uuid),
        "bounds": lambda: store.segment_bounds(uuid),
    }


@dataclass(frozen=True)
class States:
    older: Path
    now: Path
    right: Mapping[str, Any]
    damages: list[Damage]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    folder = tmp_path_factory.mktemp("states")
    older, now, looked_at = folder / "older", folder / "now", folder / "looked-at"
    older.mkdir()
    first_state(older)
    shutil.copytree(older, now)
    second_state(now)
    shutil.copytree(now, looked_at)
    with ExitStack() as stack:
        right = {name: read() for name, read in reads(*opened(looked_at, stack)).items()}
    before = folder / "before"
    shutil.copytree(older, before)
    return States(older, now, right, list(table_damages(looked_at, before, file_keys, file_keys)))


def noticed(root: Path, right: Mapping[str, Any]) -> bool:
    """Whether something failed, as what is not as it was written; what did not fail was right."""
    failures = list[SecureEmbedError]()
    with ExitStack() as stack:
        doors = list[tuple[SqlcipherKeyStore, SqlcipherRecordStore]]()
        if (refused := failure(lambda: doors.append(opened(root, stack)))) is not None:
            failures.append(refused)
        for name, read in reads(*doors[0]).items() if doors else ():
            found = list[Any]()
            if (refused := failure(lambda read=read, found=found: found.append(read()))) is not None:  # type: ignore[misc]
                failures.append(refused)
            else:
                assert found == [right[name]], name
    assert all(each.status >= 500 for each in failures), [each.code for each in failures]
    return bool(failures)


def of_values(damage: Damage) -> bool:
    """Cells of sealed values, which bind their place themselves: these doors do not open them."""
    table = damage.place.split()[1]
    return table.startswith(("text_", "meta_")) and not table.endswith(".position")


def copies(states: States, tmp_path: Path) -> Iterator[Path]:
    while True:
        shutil.rmtree(tmp_path / "case", ignore_errors=True)
        shutil.copytree(states.now, tmp_path / "case")
        yield tmp_path / "case"


def test_no_damage_of_any_table_gives_another_answer(states: States, tmp_path: Path) -> None:
    """And each is noticed, but for numbers that nobody reads."""
    chance, tried, missed = random.Random(18), set[str](), set[tuple[str, str]]()
    for damage, root in zip(states.damages, copies(states, tmp_path), strict=False):
        if of_values(damage) and damage.what != "delete a row" and damage.what != "delete all rows":
            continue
        if not any(damage.apply(root, chance) for _ in range(5)):
            continue
        tried.add(damage.place)
        if not noticed(root, states.right):
            missed.add((damage.what, damage.place.split()[1]))
    assert {place for _, place in missed} <= {*harmless, "scrub"}  # the last has no rows
    assert {what for what, place in missed if place in blocks} <= {"swap rows"}
    assert {place.split()[1].split(".")[0] for place in tried} >= {
        "collection", "codebook", "segment", "change", "request", "state", "mark", "records", "ends", "row_seals",
        "file_seal", "file_generation", "text_1", "meta_2", "collections", "counters", "record_keys", "subjects",
        "offers", "root",
    }  # fmt: skip


def damaged(states: States, tmp_path: Path, what: str, place: str) -> Path:
    (damage,) = [each for each in states.damages if (each.what, each.place) == (what, place)]
    root, chance = next(copies(states, tmp_path)), random.Random(2)
    assert any(damage.apply(root, chance) for _ in range(20))
    return root


@pytest.mark.parametrize(
    "place",
    ["data.db change.kind", "data.db records.place", "data.db codebook.sealed", "keys.db record_keys.state"],
)
def test_the_message_names_the_place_and_no_content(states: States, tmp_path: Path, place: str) -> None:
    root = damaged(states, tmp_path, "swap cells", place)
    with ExitStack() as stack:
        failures = [failure(read) for read in reads(*opened(root, stack)).values()]
    said = {(failed.code, failed.detail) for failed in failures if failed is not None}
    file, table = place.partition(".")[0] + ".db", place.split()[1].split(".", maxsplit=1)[0]
    assert said
    for code, detail in said:
        assert code == "rows_altered"
        assert re.fullmatch(rf"rows of {file}, {table} of [12], block [0-9]+, are not as they were written", detail)


@pytest.mark.parametrize(
    "place",
    [
        "keys.db record_keys.wrapped",
        "keys.db subjects.tags",
        "data.db change.count",
        "data.db records.id_tags",
        "data.db ends.expires_unix",
    ],
)
def test_a_write_does_not_seal_what_was_altered_before(states: States, tmp_path: Path, place: str) -> None:
    """The first write after a start touches blocks that nobody has read: it is refused, again and again, and the block is
    not sealed as it lies there."""
    root = damaged(states, tmp_path, "alter a cell", place)
    every = [Position(p) for p in range(200, 340)] + [Position(11)]
    for _ in range(2):
        with ExitStack() as stack:
            keys, store = opened(root, stack)
            if place.startswith("keys.db"):
                acts = [partial(keys.shred, uuid, every, ticket=ticket()) for uuid in uuids]
            else:
                acts = [partial(store.erase, uuid, every, ticket=erase_ticket()) for uuid in uuids]
            failures = [failure(act) for act in acts]
        assert [failed.code for failed in failures if failed is not None] == ["rows_altered"]


@pytest.mark.parametrize("what", ["alter a cell", "delete a row"])
def test_a_codebook_that_was_altered_is_noticed_when_it_is_wanted(states: States, tmp_path: Path, what: str) -> None:
    """No start reads all codebooks: who asks for this one is told, and so is who would put another in its place."""
    place = "data.db codebook" + (".sealed" if what == "alter a cell" else "")
    root = damaged(states, tmp_path, what, place)
    with ExitStack() as stack:
        _, store = opened(root, stack)
        failed = [failure(partial(store.codebook, uuid)) for uuid in uuids]
        (of,) = [uuid for uuid, each in zip(uuids, failed, strict=True) if each is not None]
        assert [each.code for each in failed if each is not None] == ["rows_altered"]
        version = store.versions(of).codebook
        assert version > 0
        again = failure(partial(store.put_codebook, of, version + 1, b"another"))
        assert again is not None
        assert again.code == "rows_altered"
        assert store.versions(of).codebook == version


def test_rows_of_one_collection_do_not_pass_for_anothers(states: States, tmp_path: Path) -> None:
    """All blocks and all changes of two collections of one shape exchanged, hashes included."""
    root = next(copies(states, tmp_path))
    run = sqlcipher.connect(str(root / "data.db"), isolation_level=None)
    run.execute(f"PRAGMA key = \"x'{file_keys['data.db'].hex()}'\"")
    run.execute("PRAGMA foreign_keys = OFF")
    for table, column in (("change", "collection"), ("row_seals", "owner")):
        for old, new in ((1, 77), (2, 1), (77, 2)):
            run.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, old))
    run.close()
    with pytest.raises(IntegrityFailure) as refused:
        SqlcipherRecordStore(root / "data.db", file_keys["data.db"], rows_key)
    assert refused.value.code == "rows_altered"


def test_a_record_whose_text_was_taken_away_is_damaged_and_not_absent(states: States, tmp_path: Path) -> None:
    root = damaged(states, tmp_path, "delete all rows", "data.db text_1")
    with ExitStack() as stack:
        _, store = opened(root, stack)
        assert len(store.scan(uuids[0], {Field.META}, after=Position(-1), limit=9)) == 9
        with pytest.raises(IntegrityFailure) as refused:
            store.fetch(uuids[0], [Position(3)], {Field.TEXT})
        assert refused.value.code == "rows_altered"
        assert store.fetch(uuids[0], [Position(4), Position(999)], {Field.TEXT}) == {}  # erased, and never there


@pytest.mark.parametrize(
    ("statements", "sealed"),
    [
        ([*_schema.migrations, *_schema.collection_tables(1)], _schema.sealed_tables),
        (key_tables.migrations, key_tables.sealed_tables),
    ],
    ids=["data.db", "keys.db"],
)
def test_no_table_and_no_column_is_forgotten(statements: Sequence[str], sealed: SealedTables) -> None:
    """But for sealed values, which bind their place, and the number that names a row of blocks to SQLite."""
    plain = sqlite3.connect(":memory:")
    plain.executescript(";".join(statements))
    names = [name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    there = {name: {column[1] for column in plain.execute(f"PRAGMA table_info({name})")} for name in names}
    plain.close()
    of_blocks = {table.name: {"id"} for table in sealed.tables if table.packed}
    expected = {table.name: {*table.columns} | of_blocks.get(table.name, set()) for table in sealed.tables}
    assert {name: columns for name, columns in there.items() if name not in {"text_1", "meta_1"}} == expected
