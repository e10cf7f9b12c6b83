"""A collection's keys over any course of ingests, erasures, rotations, re-sealings, restarts and power cuts: a record
opens exactly when it was put and not shredded, and a position is never used twice."""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from secure_embed.errors import Conflict
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, SqlcipherKeyStore, TagKind
from secure_embed.types import Action, Field, Position, Ticket

uuid, space = UUID(int=9), bytes(32)
subjects = ("ana", "ben", None)


class KnownRoot(PassphraseProvider):
    """The real provider without Argon2id's tenth of a second."""

    def __init__(self) -> None:
        super().__init__(bytearray(range(32)), "known", (65_536, 3, 4))


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.keyring = Keyring.create(self.path / "keyring.json", KnownRoot())
        self.database_folder, self.database_key, self.copies = self.path, bytes(range(32)), 0
        self.store = SqlcipherKeyStore(self.path / "keys.db", self.database_key, rows_key=bytes(32))
        self.keys = CollectionKeys.create(self.keyring, self.store, uuid)
        self.sealed: dict[Position, tuple[str | None, bytes]] = {}  # every record that ever was
        self.there: set[Position] = set()
        self.next_rows: dict[Position, bytes] = {}  # sealed under the keys on offer
        self.version = 1

    @rule(people=st.lists(st.sampled_from(subjects), min_size=1, max_size=5))
    def ingest(self, people: list[str | None]) -> None:
        first = self.store.next_position(uuid)
        tags = [self.keys.tag(TagKind.SUBJECT, person) if person else None for person in people]
        rows = [{Field.TEXT: f"record {first + i}".encode()} for i in range(len(people))]
        wrapped, sealed = self.keys.seal_records(first, tags, rows, space)
        self.store.put(uuid, wrapped)
        self.keys.admit(wrapped)
        for key, person, row in zip(wrapped, people, sealed, strict=True):
            assert key.position not in self.sealed
            self.sealed[key.position] = (person, row[Field.TEXT])
            self.there.add(key.position)

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def use_a_position_again(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.sealed)))
        wrapped, _ = self.keys.seal_records(position, [None], [{Field.TEXT: b"again"}], space)
        with pytest.raises(Conflict):
            self.store.put(uuid, wrapped)

    @rule(person=st.sampled_from(subjects[:2]))
    def erase_subject(self, person: str) -> None:
        at = self.store.positions_of_subject(uuid, self.keys.tag(TagKind.SUBJECT, person))
        assert set(at) == {p for p in self.there if self.sealed[p][0] == person}
        self.shred(list(at))

    @rule(at=st.lists(st.integers(0, 20).map(Position), max_size=4))
    def erase_records(self, at: list[Position]) -> None:
        self.shred(at)

    def shred(self, at: list[Position]) -> None:
        ticket = Ticket(
            intent_index=1, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 60
        )
        shredded = self.store.shred(uuid, at, ticket=ticket)
        assert set(shredded.positions) == self.there & set(at)
        assert shredded.key_version == self.version
        self.keys.discard(shredded.positions)
        self.there -= set(at)

    # --- sealing again: the store of rows is `sealed`, and either side of it may be reached by a kill -------------

    def unsettled(self) -> list[Position]:
        return list(self.keys.offered)

    @precondition(lambda self: self.there and not self.keys.offered)
    @rule(data=st.data())
    def offer(self, data: st.DataObject) -> None:
        at = data.draw(st.lists(st.sampled_from(sorted(self.there)), unique=True, min_size=1, max_size=5))
        fresh, rows = self.keys.seal_again(at, [{Field.TEXT: f"record {p}".encode()} for p in at], space)
        self.keys.offer(self.store, fresh)
        self.next_rows = dict(zip(at, [row[Field.TEXT] for row in rows], strict=True))
        assert self.keys.offered == tuple(sorted(at))

    @precondition(lambda self: self.keys.offered and self.next_rows)
    @rule()
    def replace_rows(self) -> None:
        for position, row in self.next_rows.items():
            self.sealed[position] = (self.sealed[position][0], row)
        self.next_rows = {}

    @precondition(lambda self: self.keys.offered)
    @rule()
    def settle(self) -> None:
        """Right after the rows were replaced, before it, and after a restart in between."""
        at, replaced = self.unsettled(), not self.next_rows
        rows = {p: self.sealed[p][1] for p in at}
        promoted, withdrawn = self.keys.settle(self.store, Field.TEXT, rows, space)
        assert (promoted, withdrawn) == ((at, []) if replaced else ([], at))
        self.next_rows = {}

    @rule()
    def rotate(self) -> None:
        self.version += 1
        assert self.keys.rotate(self.store) == self.version

    @rule()
    def restart(self) -> None:
        self.keys.close()
        self.store.close()
        self.open_again()

    @rule()
    def power_is_lost(self) -> None:
        """The files as they are, write-ahead log included, opened elsewhere: nothing is closed, nothing tidied up."""
        self.copies += 1
        there = self.path / str(self.copies)
        there.mkdir()
        for name in ("keys.db", "keys.db-wal"):
            shutil.copy(self.database_folder / name, there)
        self.store.close()
        self.database_folder = there
        self.open_again()

    @rule()
    def new_database_key(self) -> None:
        self.database_key = bytes(reversed(self.database_key))
        self.store.database.rekey(self.database_key)

    def open_again(self) -> None:
        self.store = SqlcipherKeyStore(self.database_folder / "keys.db", self.database_key, rows_key=bytes(32))
        self.keys = CollectionKeys.unlock(self.keyring, self.store, uuid)

    @invariant()
    def every_record_opens_or_is_gone(self) -> None:
        for position, (_, sealed) in self.sealed.items():
            expected = f"record {position}".encode() if position in self.there else None
            assert self.keys.open(position, Field.TEXT, sealed, space) == expected
        assert self.keys.records == len(self.there)
        assert self.keys.version == self.version
        assert self.store.next_position(uuid) == len(self.sealed)
        for position in self.keys.offered:
            assert position in self.there
            if position in self.next_rows:
                assert self.keys.open(position, Field.TEXT, self.next_rows[position], space) is not None

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
