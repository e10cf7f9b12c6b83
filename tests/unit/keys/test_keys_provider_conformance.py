"""What every ``KeyProvider`` keeps to. A new driver adds one line to ``makers`` and passes all of it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secure_embed.errors import SealedValueUnreadable, Unavailable
from secure_embed.keys import KeyProvider, PassphraseProvider

Opener = Callable[[], KeyProvider]


def passphrase_root(folder: Path) -> Opener:
    """Makes a root key and returns what opens it, as a restart would."""
    passphrase = folder / "passphrase"
    passphrase.write_bytes(os.urandom(16).hex().encode())
    passphrase.chmod(0o600)
    PassphraseProvider.create(folder / "root.json", passphrase).close()
    return lambda: PassphraseProvider.open(folder / "root.json", passphrase)


makers: dict[str, Callable[[Path], Opener]] = {"passphrase": passphrase_root}


@pytest.fixture(scope="module", params=makers.values(), ids=makers.keys())
def make_root(request: pytest.FixtureRequest) -> Callable[[Path], Opener]:
    return request.param  # type: ignore[no-any-return]  # pytest gives parameters as Any


@pytest.fixture(scope="module")
def open_root(make_root: Callable[[Path], Opener], tmp_path_factory: pytest.TempPathFactory) -> Opener:
    return make_root(tmp_path_factory.mktemp("first-root"))


@pytest.fixture
def provider(open_root: Opener) -> Iterator[KeyProvider]:
    opened = open_root()
    yield opened
    opened.close()


def test_a_wrapped_key_opens_after_a_restart(provider: KeyProvider, open_root: Opener) -> None:
    key = os.urandom(32)
    wrapped = provider.wrap(key, b"place")
    provider.close()
    assert open_root().unwrap(wrapped, b"place") == key


def test_the_wrapped_key_holds_no_part_of_the_key(provider: KeyProvider) -> None:
    key = os.urandom(32)
    wrapped = provider.wrap(key, b"place")
    assert not any(key[i : i + 4] in wrapped for i in range(29))


def test_wrapping_twice_gives_different_bytes(provider: KeyProvider) -> None:
    key = os.urandom(32)
    assert provider.wrap(key, b"place") != provider.wrap(key, b"place")


@pytest.mark.parametrize("context", [b"", b"plac", b"place\x00", b"PLACE"])
def test_another_context_does_not_open(provider: KeyProvider, context: bytes) -> None:
    with pytest.raises(SealedValueUnreadable):
        provider.unwrap(provider.wrap(os.urandom(32), b"place"), context)


def test_no_byte_can_be_changed_dropped_or_added(provider: KeyProvider) -> None:
    wrapped = provider.wrap(os.urandom(32), b"place")
    for at in range(len(wrapped)):
        changed = wrapped[:at] + bytes([wrapped[at] ^ 0x80]) + wrapped[at + 1 :]
        with pytest.raises(SealedValueUnreadable):
            provider.unwrap(changed, b"place")
    for changed in (wrapped[:-1], wrapped[1:], wrapped + b"\x00", b""):
        with pytest.raises(SealedValueUnreadable):
            provider.unwrap(changed, b"place")


def test_another_root_does_not_open(provider: KeyProvider, make_root: Callable[[Path], Opener], tmp_path: Path) -> None:
    other = make_root(tmp_path)()
    assert other.describe().key_id != provider.describe().key_id
    with pytest.raises(SealedValueUnreadable):
        other.unwrap(provider.wrap(os.urandom(32), b"place"), b"place")


def test_only_keys_of_32_bytes_are_wrapped(provider: KeyProvider) -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            provider.wrap(bytes(size), b"place")


def test_it_says_what_it_is_and_what_it_lacks(provider: KeyProvider, open_root: Opener) -> None:
    described = provider.describe()
    assert described == open_root().describe()
    assert described.kind
    assert described.key_id
    assert described.lacks


def test_after_close_nothing_works_and_closing_again_is_allowed(provider: KeyProvider) -> None:
    wrapped = provider.wrap(bytes(32), b"place")
    provider.close()
    provider.close()
    for use in (lambda: provider.wrap(bytes(32), b"place"), lambda: provider.unwrap(wrapped, b"place")):
        with pytest.raises(Unavailable) as refused:
            use()
        assert refused.value.code == "keys_closed"
