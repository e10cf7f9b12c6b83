"""The process is killed with SIGKILL while it ingests, shreds and rotates. What was acknowledged is there, what was
shredded stays gone, and every key that is there opens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest

from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, Secret, SqlcipherKeyStore
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
store = SqlcipherKeyStore(folder / "keys.db", keyring.secret(Secret.KEYS_STORE))
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
"""


def run_and_kill(folder: Path, after_s: float) -> list[list[str]]:
    with subprocess.Popen([sys.executable, "-c", worker, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # it is at work
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
        said = first + process.stdout.read()
    return [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]  # the last may be cut


def test_nothing_acknowledged_is_lost_and_nothing_shredded_returns(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "keyring.json", PassphraseProvider(bytearray(32), "known", (65_536, 3, 4)))
    store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE))
    CollectionKeys.create(keyring, store, uuid).close()
    store.close()
    sealed: dict[Position, bytes] = {}
    shredded: set[Position] = set()
    version = 1
    for after_s in (0.0, 0.013, 0.05, 0.111, 0.2):
        for said in run_and_kill(tmp_path, after_s):
            match said:
                case ["put", position, value]:
                    sealed[Position(int(position))] = bytes.fromhex(value)
                case ["shredded", position]:
                    shredded.add(Position(int(position)))
                case ["rotated", number]:
                    version = max(version, int(number))
        store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE))
        keys = CollectionKeys.unlock(keyring, store, uuid)
        for position, value in sealed.items():
            opened = keys.open(position, Field.TEXT, value, space)
            if position in shredded:
                assert opened is None
            elif position % 20:  # the first of each batch may have been shredded without a word
                assert opened == b"text"
            else:
                assert opened in {b"text", None}
        assert keys.version in {version, version + 1}
        version = keys.version
        assert store.next_position(uuid) > max(sealed)
        assert store.next_position(uuid) % 20 == 0  # batches are whole
        store.close()
    assert len(sealed) > 100
    assert shredded
    assert version > 2


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
