"""A keyring's successor: durable before anything changes, taken over in place, settled by evidence after a crash."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from secure_embed.errors import ConfigurationError, SealedValueUnreadable, Unavailable
from secure_embed.keys import (
    CollectionKeys,
    Keyring,
    LockedMemory,
    PassphraseProvider,
    Purpose,
    Secret,
    SqlcipherKeyStore,
    WrappedCollection,
)
from secure_embed.types import Field, Position


def root(byte: int) -> PassphraseProvider:
    return PassphraseProvider(bytearray([byte]) * 32, f"root-{byte}", (65_536, 3, 4))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keyring.json"


def secrets_of(keyring: Keyring) -> dict[Secret, bytes]:
    return {name: keyring.secret(name) for name in Secret}


def test_a_successor_is_durable_and_changes_nothing_until_it_is_committed(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    before, raw = secrets_of(keyring), path.read_bytes()
    successor = keyring.prepare(Purpose.LOG, renew={Secret.LOG_SIGNING})
    assert (path.read_bytes(), secrets_of(keyring)) == (raw, before)
    assert stat.S_IMODE(path.with_name("keyring.next.json").stat().st_mode) == 0o600
    after = {name: successor.secret(name) for name in Secret}
    assert [name for name in Secret if after[name] != before[name]] == [Secret.LOG_SIGNING]
    successor.commit()
    assert secrets_of(keyring) == after == secrets_of(Keyring.open(path, root(1)))
    assert json.loads(path.read_text())["purpose"] == "log"
    assert {p.name for p in path.parent.iterdir()} == {"keyring.json"}
    assert Keyring.pending(path) is None


def test_an_abandoned_successor_leaves_the_present_one(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    before, raw = secrets_of(keyring), path.read_bytes()
    successor = keyring.prepare(Purpose.STORE, renew={Secret.DATA_STORE, Secret.KEYS_STORE, Secret.RISK_STORE})
    successor.abandon()
    assert (path.read_bytes(), secrets_of(keyring)) == (raw, before)
    assert {p.name for p in path.parent.iterdir()} == {"keyring.json"}
    with pytest.raises(Unavailable):
        successor.secret(Secret.DATA_STORE)
    keyring.prepare(Purpose.STORE).abandon()


def test_there_is_one_successor_at_a_time(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    keyring.prepare(Purpose.LOG)
    with pytest.raises(ConfigurationError) as refused:
        keyring.prepare(Purpose.STORE)
    assert refused.value.code == "key_file_exists"


def test_another_root_takes_over_in_place(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    before = secrets_of(keyring)
    keyring.prepare(Purpose.ROOT, provider=root(2)).commit()
    assert secrets_of(keyring) == before
    assert keyring.root_key_id == keyring.new_collection_key(uuid4(), 1, root_key_id=None).root_key_id == "root-2"
    with pytest.raises(ConfigurationError) as refused:
        Keyring.open(path, root(1))
    assert refused.value.code == "root_key_mismatch"
    assert secrets_of(Keyring.open(path, root(2))) == before


def test_a_root_that_is_replaced_between_asking_and_putting_is_asked_for_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn for the old root is refused, drawn again for the new one, and nothing is left of the first."""
    keyring = Keyring.create(path, root(1))
    store = SqlcipherKeyStore(path.with_name("keys.db"), keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    CollectionKeys.create(keyring, store, uuid4())
    put, uuid = store.create_collection, uuid4()

    def late(wrapped: WrappedCollection) -> None:
        monkeypatch.undo()  # it happens once
        successor = keyring.prepare(Purpose.ROOT, provider=root(2))

        def rewrap(uuid: UUID, version: int, old: bytes) -> bytes:
            key = keyring.unwrap_collection_key(old, uuid, version, root_key_id="root-1")
            return successor.wrap_collection_key(key, uuid, version)

        store.rewrap_root("root-2", rewrap)
        successor.commit()
        put(wrapped)

    monkeypatch.setattr(store, "create_collection", late)
    CollectionKeys.create(keyring, store, uuid)
    assert store.collection(uuid).root_key_id == "root-2"
    CollectionKeys.unlock(keyring, store, uuid)


def test_collections_open_before_between_and_after_the_steps_of_a_new_root(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    store = SqlcipherKeyStore(path.with_name("keys.db"), keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    uuids = [uuid4() for _ in range(3)]
    values = []
    for uuid in uuids:
        keys = CollectionKeys.create(keyring, store, uuid)
        wrapped, rows = keys.seal_records(Position(0), [None], [{Field.TEXT: uuid.bytes}], bytes(32))
        store.put(uuid, wrapped)
        values.append(rows[0][Field.TEXT])

    def every_collection_opens() -> None:
        for uuid, value in zip(uuids, values, strict=True):
            assert (
                CollectionKeys.unlock(keyring, store, uuid).open(Position(0), Field.TEXT, value, bytes(32))
                == uuid.bytes
            )

    successor = keyring.prepare(Purpose.ROOT, provider=root(2))
    every_collection_opens()

    def rewrap(uuid: UUID, version: int, old: bytes) -> bytes:
        key = keyring.unwrap_collection_key(old, uuid, version, root_key_id="root-1")
        return successor.wrap_collection_key(key, uuid, version)

    assert store.rewrap_root(successor.root_key_id, rewrap) == 3
    every_collection_opens()
    between = uuid4()  # wrapped by the old root, it would be lost with it
    CollectionKeys.create(keyring, store, between)
    CollectionKeys.unlock(keyring, store, uuids[1]).rotate(store)
    assert {store.collection(each).root_key_id for each in (between, *uuids)} == {"root-2"}
    successor.commit()
    CollectionKeys.unlock(keyring, store, between)
    every_collection_opens()
    CollectionKeys.create(keyring, store, uuid4())
    CollectionKeys.unlock(keyring, store, uuids[0]).rotate(store)
    every_collection_opens()
    store.close()
    keyring = Keyring.open(path, root(2))
    store = SqlcipherKeyStore(path.with_name("keys.db"), keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    every_collection_opens()
    store.close()


def test_a_collection_of_a_third_root_does_not_open(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    store = SqlcipherKeyStore(path.with_name("keys.db"), keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    uuid = uuid4()
    CollectionKeys.create(keyring, store, uuid)
    store.rewrap_root("root-3", lambda uuid, version, old: old)
    with pytest.raises(SealedValueUnreadable):
        CollectionKeys.unlock(keyring, store, uuid)
    store.close()


def test_old_secrets_are_wiped_once_the_successor_counts(path: Path) -> None:
    with LockedMemory() as memory:
        keyring = Keyring.create(path, root(1), memory)
        old = dict(keyring._secrets)
        keyring.prepare(Purpose.LOG, renew={Secret.LOG_SIGNING}).commit()
        for held in old.values():
            with pytest.raises(Unavailable):
                held.copy()
        keyring.close()
        with pytest.raises(Unavailable):
            keyring.secret(Secret.LOG_SIGNING)


def test_the_bytes_of_the_old_keyring_are_overwritten_unless_somebody_keeps_them(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    with path.open("rb") as still_open:
        keyring.prepare(Purpose.ROOT, provider=root(2)).commit()
        assert not any(still_open.read())
    kept, raw = path.with_name("backup.json"), path.read_bytes()
    os.link(path, kept)
    keyring.prepare(Purpose.ROOT, provider=root(3)).commit()
    assert kept.read_bytes() == raw


# --- after a crash -----------------------------------------------------------------------------------------------


def test_a_left_over_says_what_it_is_for_before_it_is_opened(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    keyring.prepare(Purpose.ROOT, provider=root(2), renew={Secret.CATALOGUE})
    found = Keyring.pending(path)
    assert found is not None
    assert (found.purpose, found.provider, found.key_id) == (Purpose.ROOT, "passphrase", "root-2")
    with pytest.raises(ConfigurationError) as refused:
        found.open(root(1))
    assert refused.value.code == "root_key_mismatch"
    successor = found.open(root(2))
    assert successor.secret(Secret.LOG_HMAC) == keyring.secret(Secret.LOG_HMAC)
    fresh = successor.secret(Secret.CATALOGUE)
    assert fresh != keyring.secret(Secret.CATALOGUE)
    successor.commit()
    assert Keyring.open(path, root(2)).secret(Secret.CATALOGUE) == fresh


def test_a_left_over_is_abandoned_unopened(path: Path) -> None:
    keyring = Keyring.create(path, root(1))
    keyring.prepare(Purpose.ROOT, provider=root(2))
    found = Keyring.pending(path)
    assert found is not None
    found.abandon()
    assert Keyring.pending(path) is None
    assert secrets_of(Keyring.open(path, root(1))) == secrets_of(keyring)


def test_a_left_over_that_is_not_ours_is_refused(path: Path) -> None:
    Keyring.create(path, root(1))
    path.with_name("keyring.next.json").write_text('{"format": "secure_embed/keyring/v1"}')
    with pytest.raises(ConfigurationError) as refused:
        Keyring.pending(path)
    assert refused.value.code == "key_file_invalid"


killed_at_step = """
import os, signal, sys
from pathlib import Path
from secure_embed.keys import *
path, step = Path(sys.argv[1]), int(sys.argv[2])
root = lambda byte: PassphraseProvider(bytearray([byte]) * 32, f"root-{byte}", (65_536, 3, 4))
calls = 0

def killed(name, original):
    def instead(*arguments, **named):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)
    return instead

keyring = Keyring.open(path, root(1))
store = SqlcipherKeyStore(path.with_name("keys.db"), keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
for name in ("open", "fsync", "link", "pwrite", "close"):  # what the file is written and moved by
    setattr(os, name, killed(name, getattr(os, name)))
Path.replace = killed("replace", Path.replace)
Path.unlink = killed("unlink", Path.unlink)
store.database.empty_write_ahead_log = killed("checkpoint", store.database.empty_write_ahead_log)
successor = keyring.prepare(Purpose.ROOT, provider=root(2))
def rewrap(uuid, version, old):
    key = keyring.unwrap_collection_key(old, uuid, version, root_key_id="root-1")
    return successor.wrap_collection_key(key, uuid, version)
store.rewrap_root(successor.root_key_id, killed("rewrap", rewrap))
successor.commit()
"""


def test_a_kill_at_any_step_leaves_one_root_that_opens_everything(tmp_path: Path) -> None:
    """What the start does: the root that keys.db names says whether the successor counts."""
    outcomes: list[str] = []
    for step in range(1, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "keyring.json"
        keyring = Keyring.create(path, root(1))
        before = secrets_of(keyring)
        store = SqlcipherKeyStore(folder / "keys.db", before[Secret.KEYS_STORE], rows_key=bytes(32))
        uuid = uuid4()
        CollectionKeys.create(keyring, store, uuid)
        store.close()
        ended = subprocess.run(
            [sys.executable, "-c", killed_at_step, path, str(step)], check=False, capture_output=True
        ).returncode
        assert ended in {0, -signal.SIGKILL}

        pending = Keyring.pending(path)
        store = SqlcipherKeyStore(folder / "keys.db", before[Secret.KEYS_STORE], rows_key=bytes(32))
        named = store.root_key_id()
        if pending is not None:
            pending.open(root(2)).commit() if named == pending.key_id else pending.abandon()
        opened = Keyring.open(path, root(2 if named == "root-2" else 1))
        assert secrets_of(opened) == before
        CollectionKeys.unlock(opened, store, uuid)
        store.close()
        outcomes.append(f"{named}, {'left over' if pending else 'none left over'}")
        if ended == 0:
            break
    assert set(outcomes) == {
        "root-1, none left over", "root-1, left over", "root-2, left over", "root-2, none left over",
    }  # fmt: skip
    assert len(outcomes) > 15
