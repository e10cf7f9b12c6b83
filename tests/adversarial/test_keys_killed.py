"""The process is killed with SIGKILL while it ingests, shreds, rotates, seals again or encrypts its files anew. What was
acknowledged is there, what was shredded stays gone, and every key that is there opens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

from secure_embed.errors import IntegrityFailure
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, SealedDatabase, Secret, SqlcipherKeyStore
from secure_embed.types import Field, Position

uuid, space = UUID(int=5), bytes(32)

worker = """
import sys, time
from pathlib import Path
from uuid import UUID
from secure_embed.keys import *
from secure_embed.types import *

folder, uuid = Path(sys.argv[1]), UUID(int=5)
keyring = Keyring.open(folder / "keyring.json", PassphraseProvider(bytearray(32), "known", (65_536, 3, 4)))
store = SqlcipherKeyStore(folder / "keys.db", keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
keys = CollectionKeys.unlock(keyring, store, uuid)
ticket = Ticket(intent_index=1, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 600)
while True:
    first = store.next_position(uuid)
    wrapped, sealed = keys.seal_records(first, [None] * 20, [{Field.TEXT: b"text"}] * 20, bytes(32))
    store.put(uuid, wrapped)
    keys.admit(wrapped)
    for key, row in zip(wrapped, sealed):
        print("put", key.position, row[Field.TEXT].hex(), flush=True)
    store.shred(uuid, [first], ticket=ticket)
    keys.discard([first])
    print("shredded", first, flush=True)
    keys.rotate(store)
    print("rotated", keys.version, flush=True)
    at = [key.position for key in wrapped[1:]]
    fresh, rows = keys.seal_again(at, [{Field.TEXT: b"text"}] * len(at), bytes(32))
    keys.offer(store, fresh)
    for position, row in zip(at, rows):
        print("replaced", position, row[Field.TEXT].hex(), flush=True)  # as the record store would
    keys.promote(store, at)
    print("promoted", first, flush=True)
"""

rekeying = """
import sys
from pathlib import Path
from secure_embed.keys import SealedDatabase
database = SealedDatabase(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), migrations=("CREATE TABLE notes (text BLOB)",))
print("open", flush=True)
database.rekey(bytes.fromhex(sys.argv[3]))
print("rekeyed", flush=True)
"""


def run_and_kill(folder: Path, after_s: float) -> list[list[str]]:
    with subprocess.Popen([sys.executable, "-c", worker, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = ""
        while "promoted" not in first:  # it has done everything once, however slow the machine is
            first += process.stdout.readline()
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
        said = first + process.stdout.read()
    return [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]  # the last may be cut


class Seen:
    """What the workers acknowledged, over all their lives."""

    def __init__(self) -> None:
        self.sealed: dict[Position, bytes] = {}
        self.shredded: set[Position] = set()
        self.version, self.promotions = 1, 0

    def take(self, said: list[str]) -> None:
        match said:
            case ["put" | "replaced", position, value]:
                self.sealed[Position(int(position))] = bytes.fromhex(value)
            case ["shredded", position]:
                self.shredded.add(Position(int(position)))
            case ["promoted", _]:
                self.promotions += 1
            case ["rotated", number]:
                self.version = max(self.version, int(number))

    def check(self, keys: CollectionKeys) -> None:
        for position, value in self.sealed.items():
            opened = keys.open(position, Field.TEXT, value, space)
            if position in self.shredded:
                assert opened is None
            elif position % 20:  # the first of each batch may have been shredded without a word
                assert opened == b"text"
            else:
                assert opened in {b"text", None}
        assert keys.version in {self.version, self.version + 1}
        self.version = keys.version


def test_nothing_acknowledged_is_lost_and_nothing_shredded_returns(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "keyring.json", PassphraseProvider(bytearray(32), "known", (65_536, 3, 4)))
    store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    CollectionKeys.create(keyring, store, uuid).close()
    store.close()
    seen = Seen()
    for after_s in (0.0, 0.013, 0.05, 0.111, 0.2):
        for said in run_and_kill(tmp_path, after_s):
            seen.take(said)
        store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
        keys = CollectionKeys.unlock(keyring, store, uuid)
        keys.settle(store, Field.TEXT, seen.sealed, space)
        assert store.offered(uuid) == []
        seen.check(keys)
        assert store.next_position(uuid) > max(seen.sealed)
        assert store.next_position(uuid) % 20 == 0  # batches are whole
        store.close()
    assert len(seen.sealed) >= 100
    assert seen.shredded
    assert seen.version > 2
    assert seen.promotions > 2


def test_a_kill_while_a_file_is_encrypted_anew_leaves_it_whole_under_one_of_the_keys(tmp_path: Path) -> None:
    """The keyring and its successor hold both keys; opening says which one counts."""
    path, schema = tmp_path / "notes.db", ("CREATE TABLE notes (text BLOB)",)
    old, new = bytes(range(32)), bytes(range(32, 64))
    database = SealedDatabase(path, old, migrations=schema)
    with database.transaction() as run:
        run.executemany("INSERT INTO notes VALUES (?)", [(os.urandom(3_000),) for _ in range(6_000)])
    notes = database.rows("SELECT text FROM notes ORDER BY rowid")
    database.close()
    outcomes = set()
    for after_s in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, None):
        arguments = [sys.executable, "-c", rekeying, path, old.hex(), new.hex()]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            if after_s is not None:  # the last is left to finish, so that both outcomes are seen on any machine
                time.sleep(after_s)
                process.kill()
            acknowledged = process.stdout.read() == "rekeyed\n"
        try:
            database, counts = SealedDatabase(path, new, migrations=schema), "new"
        except IntegrityFailure:
            database, counts = SealedDatabase(path, old, migrations=schema), "old"
        assert database.rows("SELECT text FROM notes ORDER BY rowid") == notes
        database.check()
        database.close()
        assert counts == "new" or not acknowledged
        outcomes.add(counts)
        if counts == "new":
            old, new = new, bytes(reversed(old))
    assert outcomes == {"old", "new"}


@pytest.mark.parametrize("change", ["store.shred(uuid, [Position(0)], ticket=ticket)", "keys.rotate(store)"])
def test_a_change_killed_before_its_log_is_emptied_is_finished_by_the_next_start(tmp_path: Path, change: str) -> None:
    keyring = Keyring.create(tmp_path / "keyring.json", PassphraseProvider(bytearray(32), "known", (65_536, 3, 4)))
    store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    keys = CollectionKeys.create(keyring, store, uuid)
    wrapped, _ = keys.seal_records(Position(0), [None], [{Field.TEXT: b"text"}], space)
    store.put(uuid, wrapped)
    store.close()
    stops = "import os, signal\nstore.database.empty_write_ahead_log = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
    script = worker.partition("while True")[0] + stops + change
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -signal.SIGKILL
    log = tmp_path / "keys.db-wal"
    assert log.stat().st_size > 0
    store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    assert log.stat().st_size == 0
    assert wrapped[0] not in list(store.wrapped(uuid))
    store.close()


@pytest.mark.parametrize("name", ["root.json", "keyring.json"])
def test_a_key_file_cut_short_by_a_crash_is_not_there_at_all(name: str, tmp_path: Path) -> None:
    """What a crash leaves is the temporary file; it does not stand in the way of a second attempt."""
    (tmp_path / f".{name}.0123456789abcdef").write_bytes(b'{"format"')
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(b"a passphrase of some length")
    passphrase.chmod(0o600)
    provider = PassphraseProvider.create(tmp_path / "root.json", passphrase)
    Keyring.create(tmp_path / "keyring.json", provider)
    assert Keyring.open(tmp_path / "keyring.json", PassphraseProvider.open(tmp_path / "root.json", passphrase))
