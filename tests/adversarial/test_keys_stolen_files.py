"""An attacker has copies of key files, or puts old or foreign ones in place. Nothing opens but with what belongs to it."""

import base64
import json
import os
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from secure_embed.errors import IntegrityFailure, SealedValueUnreadable
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, Secret, SqlcipherKeyStore
from secure_embed.keys.key_tables import column
from secure_embed.keys.root import Root
from secure_embed.types import Field, Position

uuid, space = UUID(int=3), bytes(32)


def root(byte: int = 0) -> PassphraseProvider:
    """A known root: the same name for each, as an attacker would write it."""
    return PassphraseProvider(bytearray([byte]) * 32, "known", (65_536, 3, 4))


class Deployment:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keyring = Keyring.create(folder / "keyring.json", root())
        self.store = SqlcipherKeyStore(folder / "keys.db", self.keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
        self.keys = CollectionKeys.create(self.keyring, self.store, uuid)
        wrapped, sealed = self.keys.seal_records(Position(0), [None], [{Field.TEXT: b"text"}], space)
        self.store.put(uuid, wrapped)
        self.keys.admit(wrapped)
        self.text = sealed[0][Field.TEXT]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_two_secrets_of_the_keyring_swapped(deployment: Deployment) -> None:
    path = deployment.folder / "keyring.json"
    original = json.loads(path.read_text())
    for one in Secret:
        for two in Secret:
            if one == two:
                continue
            document = json.loads(json.dumps(original))
            document["secrets"][one] = original["secrets"][two]
            document["secrets"][two] = original["secrets"][one]
            path.write_text(json.dumps(document))
            with pytest.raises(SealedValueUnreadable):
                Keyring.open(path, root())


def test_a_secret_of_another_deployment_of_the_same_root(deployment: Deployment, tmp_path: Path) -> None:
    Keyring.create(tmp_path / "other.json", root())
    path = deployment.folder / "keyring.json"
    document, other = json.loads(path.read_text()), json.loads((tmp_path / "other.json").read_text())
    document["secrets"]["log_signing"] = other["secrets"]["log_signing"]
    path.write_text(json.dumps(document))
    with pytest.raises(SealedValueUnreadable):
        Keyring.open(path, root())


def test_the_keyring_without_its_root(deployment: Deployment) -> None:
    with pytest.raises(SealedValueUnreadable):
        Keyring.open(deployment.folder / "keyring.json", root(1))


def test_a_copy_of_the_keys_database_without_its_key(deployment: Deployment, tmp_path: Path) -> None:
    deployment.store.close()
    shutil.copy(deployment.folder / "keys.db", tmp_path / "copy.db")
    with pytest.raises(IntegrityFailure):
        SqlcipherKeyStore(tmp_path / "copy.db", os.urandom(32), rows_key=bytes(32))


def test_a_copy_of_the_keys_database_with_its_key_and_without_the_root(deployment: Deployment, tmp_path: Path) -> None:
    """The database's key alone gives wrapped keys and tags; the collection key needs the root."""
    deployment.store.close()
    shutil.copy(deployment.folder / "keys.db", tmp_path / "copy.db")
    copy = SqlcipherKeyStore(tmp_path / "copy.db", deployment.keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    assert len(list(copy.wrapped(uuid))) == 1
    own = tmp_path / "own.json"
    Keyring.create(own, root(1))
    document = json.loads(own.read_text()) | {"deployment_id": str(deployment.keyring.deployment_id)}
    document["secrets"] = {
        name: base64.b64encode(Root(root(1), deployment.keyring.deployment_id).wrap_secret(name, bytes(32))).decode()
        for name in Secret
    }
    own.write_text(json.dumps(document))
    stolen = Keyring.open(own, root(1))
    with pytest.raises(SealedValueUnreadable):
        CollectionKeys.unlock(stolen, copy, uuid)


def test_a_collection_key_in_another_deployment_of_the_same_root(deployment: Deployment, tmp_path: Path) -> None:
    other = Keyring.create(tmp_path / "other.json", root())
    with pytest.raises(SealedValueUnreadable):
        CollectionKeys.unlock(other, deployment.store, uuid)


def test_old_wraps_put_back_after_a_rotation(deployment: Deployment) -> None:
    old_collection = deployment.store.collection(uuid)
    (old_key,) = deployment.store.wrapped(uuid)
    deployment.keys.rotate(deployment.store)

    with (
        deployment.store.database.transaction() as run
    ):  # the attacker has the keys of the keys database and of its rows
        run.execute("UPDATE record_keys SET wrapped = ?", (old_key.wrapped + bytes(255 * 40),))
    replayed = CollectionKeys.unlock(deployment.keyring, deployment.store, uuid)
    with pytest.raises(SealedValueUnreadable):
        replayed.open(Position(0), Field.TEXT, deployment.text, space)

    with deployment.store.database.transaction() as run:
        run.execute("UPDATE collections SET collection_key = ?", (column(old_collection.collection_key),))
    with pytest.raises(SealedValueUnreadable):
        CollectionKeys.unlock(deployment.keyring, deployment.store, uuid)


def test_no_secret_shows_in_what_is_printed_of_the_objects(deployment: Deployment) -> None:
    provider = root(9)
    shown = " ".join(map(repr, (provider, deployment.keyring, deployment.keys, deployment.keys._state)))
    for secret in [bytes([9]) * 32, *(deployment.keyring.secret(name) for name in Secret)]:
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
