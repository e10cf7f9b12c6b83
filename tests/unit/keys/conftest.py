"""Real parts for the tests of keys/: a passphrase root, a keyring, a keys database, one collection."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, Secret, SqlcipherKeyStore
from secure_embed.types import Action, Ticket

COLLECTION = UUID("0f9c3a54-6c1f-4c0e-9d0a-0d9f6b1f2a11")


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> PassphraseProvider:
    """One for the session: Argon2id takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("root")
    passphrase = folder / "passphrase"
    passphrase.write_bytes(b"correct horse battery staple\n")
    passphrase.chmod(0o600)
    return PassphraseProvider.create(folder / "root.json", passphrase)


@pytest.fixture
def keyring(tmp_path: Path, provider: PassphraseProvider) -> Keyring:
    return Keyring.create(tmp_path / "keyring.json", provider)


@pytest.fixture
def key_store(tmp_path: Path, keyring: Keyring) -> Iterator[SqlcipherKeyStore]:
    store = SqlcipherKeyStore(tmp_path / "keys.db", keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32))
    yield store
    store.close()


@pytest.fixture
def collection(keyring: Keyring, key_store: SqlcipherKeyStore) -> CollectionKeys:
    return CollectionKeys.create(keyring, key_store, COLLECTION)


@pytest.fixture
def ticket() -> Ticket:
    return Ticket(
        intent_index=7, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 3_600
    )
