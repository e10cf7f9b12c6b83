"""What every ``KeyProvider`` keeps to. A new driver adds what makes its root, and passes all of it.

pkcs11 runs on a real SoftHSM2 token, vault against a server of ours that speaks Transit's documented shapes.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from secure_embed.errors import SealedValueUnreadable, Unavailable
from secure_embed.keys import KeyProvider, PassphraseProvider
from secure_embed.settings import TokenSettings
from tests.soft_token import PIN, SoftTokens
from tests.transit_server import TransitServer

Opener = Callable[[], KeyProvider]


def passphrase_root(folder: Path) -> Opener:
    """Makes a root key and returns what opens it, as a restart would."""
    passphrase = folder / "passphrase"
    passphrase.write_bytes(os.urandom(16).hex().encode())
    passphrase.chmod(0o600)
    PassphraseProvider.create(folder / "root.json", passphrase).close()
    return lambda: PassphraseProvider.open(folder / "root.json", passphrase)


def token_root(tokens: SoftTokens, folder: Path) -> Opener:
    from secure_embed.keys.pkcs11 import Pkcs11Provider

    pin = folder / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    settings = TokenSettings(library=tokens.library, token_label=tokens.make())
    Pkcs11Provider.create(folder / "root.json", settings, pin).close()
    return lambda: Pkcs11Provider.open(folder / "root.json", settings, pin)


def transit_root(server: TransitServer, folder: Path) -> Opener:
    from secure_embed.keys.transit import TransitProvider

    credential = server.credential(folder)
    TransitProvider.create(folder / "root.json", server.settings(), credential, server.ca_file).close()
    return lambda: TransitProvider.open(folder / "root.json", server.settings(), credential, server.ca_file)


@pytest.fixture(scope="module")
def transit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransitServer]:
    server = TransitServer(tmp_path_factory.mktemp("transit"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def soft_tokens() -> Iterator[SoftTokens]:
    made = SoftTokens()
    yield made
    made.remove()


@pytest.fixture(scope="module", params=["passphrase", "pkcs11", "vault"])
def make_root(request: pytest.FixtureRequest) -> Callable[[Path], Opener]:
    if request.param == "passphrase":
        return passphrase_root
    if request.param == "pkcs11":
        return partial(token_root, request.getfixturevalue("soft_tokens"))
    return partial(transit_root, request.getfixturevalue("transit_server"))


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


def test_a_generated_key_comes_with_its_wrapping(provider: KeyProvider) -> None:
    key, wrapped = provider.generate(b"place")
    assert len(key) == 32
    assert provider.unwrap(wrapped, b"place") == key
    assert provider.generate(b"place")[0] != key
    with pytest.raises(SealedValueUnreadable):
        provider.unwrap(wrapped, b"other place")


def test_two_providers_of_one_root_work_side_by_side(provider: KeyProvider, open_root: Opener) -> None:
    """As while a deployment is rotated, and its service runs."""
    other = open_root()
    wrapped = provider.wrap(bytes(32), b"place")
    assert other.unwrap(wrapped, b"place") == bytes(32)
    assert provider.unwrap(other.wrap(bytes(32), b"place"), b"place") == bytes(32)
    other.close()
    assert provider.unwrap(wrapped, b"place") == bytes(32)


def test_several_threads_use_it_at_once(provider: KeyProvider) -> None:
    keys = [os.urandom(32) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        wrapped = list(threads.map(lambda key: provider.wrap(key, key[:4]), keys))
        assert list(threads.map(lambda w, key: provider.unwrap(w, key[:4]), wrapped, keys)) == keys


def test_the_check_passes_while_the_root_key_is_there(provider: KeyProvider) -> None:
    provider.check()


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
    uses: list[Callable[[], object]] = [
        lambda: provider.wrap(bytes(32), b"place"),
        lambda: provider.unwrap(wrapped, b"place"),
        lambda: provider.generate(b"place"),
        provider.check,
    ]
    for use in uses:
        with pytest.raises(Unavailable) as refused:
            use()
        assert refused.value.code == "keys_closed"
