"""The deployment's secrets: made once, opened by their root alone, strict about the file."""

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_embed.errors import ConfigurationError, SealedValueUnreadable, Unavailable
from secure_embed.keys import Keyring, PassphraseProvider, Secret


def test_secrets_are_32_bytes_each_their_own_and_the_same_after_opening(
    keyring: Keyring, tmp_path: Path, provider: PassphraseProvider
) -> None:
    opened = Keyring.open(tmp_path / "keyring.json", provider)
    found = [opened.secret(name) for name in Secret]
    assert found == [keyring.secret(name) for name in Secret]
    assert len(set(found)) == len(Secret)
    assert {len(secret) for secret in found} == {32}
    assert opened.deployment_id == keyring.deployment_id


def test_the_file_is_private_and_holds_no_secret(keyring: Keyring, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    raw = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in Secret:
        assert keyring.secret(name) not in raw
        assert keyring.secret(name).hex().encode() not in raw


def test_a_keyring_that_exists_is_not_overwritten(
    keyring: Keyring, tmp_path: Path, provider: PassphraseProvider
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Keyring.create(tmp_path / "keyring.json", provider)
    assert refused.value.code == "key_file_exists"
    assert Keyring.open(tmp_path / "keyring.json", provider).deployment_id == keyring.deployment_id


def test_after_close_no_secret_is_given(keyring: Keyring) -> None:
    keyring.close()
    keyring.close()
    with pytest.raises(Unavailable):
        keyring.secret(Secret.CATALOGUE)


def test_another_root_is_told_apart_by_its_name(keyring: Keyring, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(b"another long passphrase")
    passphrase.chmod(0o600)
    other = PassphraseProvider.create(tmp_path / "root.json", passphrase)
    with pytest.raises(ConfigurationError) as refused:
        Keyring.open(tmp_path / "keyring.json", other)
    assert refused.value.code == "root_key_mismatch"


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["secrets"].pop(name)


@pytest.mark.parametrize(
    "change",
    [
        without("log_hmac"),
        lambda document: document["secrets"].update(more="AAAA"),
        lambda document: document["secrets"].update(log_hmac=5),
        lambda document: document.update(secrets=[]),
        lambda document: document.update(deployment_id="not a uuid"),
        lambda document: document.update(deployment_id=document["deployment_id"].upper()),
        lambda document: document.update(format="secure_embed/keyring/v2"),
        lambda document: document.pop("provider"),
    ],
)
def test_a_keyring_that_is_not_ours_is_refused(
    keyring: Keyring, tmp_path: Path, provider: PassphraseProvider, change: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "keyring.json"
    document = json.loads(path.read_text())
    document["deployment_id"] = document["deployment_id"][:-1] + "a"  # so that upper() changes something
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError) as refused:
        Keyring.open(path, provider)
    assert refused.value.code == "key_file_invalid"


@pytest.mark.parametrize("length", [0, 1, 32, 64, 66])
def test_a_wrapped_secret_of_another_length_does_not_open(
    keyring: Keyring, tmp_path: Path, provider: PassphraseProvider, length: int
) -> None:
    path = tmp_path / "keyring.json"
    document = json.loads(path.read_text())
    document["secrets"]["log_hmac"] = base64.b64encode(bytes(length)).decode()
    path.write_text(json.dumps(document))
    with pytest.raises(SealedValueUnreadable):
        Keyring.open(path, provider)
