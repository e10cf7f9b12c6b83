"""The contract of the vault provider: the same tests against our own server that speaks Transit's shapes, and against a
real Vault or OpenBao where an address is given. No real one ran where this project is built.

    SECURE_EMBED_TEST_VAULT_ADDR=https://127.0.0.1:8200     a Transit engine mounted at `transit`
    SECURE_EMBED_TEST_VAULT_TOKEN_FILE=/path                mode 0600; the rights that docs/key-providers.md lists
    SECURE_EMBED_TEST_VAULT_CA_FILE=/path                   optional

Keys that the tests make are named `secure-embed-test-...`, and are deleted again.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError, SealedValueUnreadable, Unavailable
from secure_embed.keys.transit import TransitProvider
from secure_embed.settings import TransitSettings
from tests.transit_server import TransitServer

ADDRESS = "SECURE_EMBED_TEST_VAULT_ADDR"


@dataclass
class Place:
    settings: TransitSettings
    credential: Path
    ca_file: Path | None
    folder: Path
    made: list[Path] = field(default_factory=list)

    def create(self, name: str = "root.json") -> TransitProvider:
        provider = TransitProvider.create(self.folder / name, self.settings, self.credential, self.ca_file)
        self.made.append(self.folder / name)
        return provider

    def open(self, name: str = "root.json") -> TransitProvider:
        return TransitProvider.open(self.folder / name, self.settings, self.credential, self.ca_file)

    def retire(self, name: str = "root.json") -> None:
        TransitProvider.retire(self.folder / name, self.settings, self.credential, self.ca_file)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransitServer]:
    made = TransitServer(tmp_path_factory.mktemp("transit"))
    yield made
    made.stop()


@pytest.fixture(params=["our own server", "a real one"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "our own server":
        server: TransitServer = request.getfixturevalue("server")
        made = Place(server.settings(), server.credential(tmp_path), server.ca_file, tmp_path)
    elif ADDRESS not in os.environ:
        pytest.skip(f"no real Vault or OpenBao: {ADDRESS} is not set")
    else:
        ca_file = os.environ.get("SECURE_EMBED_TEST_VAULT_CA_FILE")
        settings = TransitSettings(address=os.environ[ADDRESS], key_prefix="secure-embed-test", timeout_s=20)
        credential = Path(os.environ["SECURE_EMBED_TEST_VAULT_TOKEN_FILE"])
        made = Place(settings, credential, Path(ca_file) if ca_file else None, tmp_path)
    yield made
    for path in made.made:
        if path.exists():
            made.retire(path.name)


def refusal(kind: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(kind) as refused:
        act()
    return getattr(refused.value, "code", "")


def test_what_is_wrapped_opens_after_a_restart_and_in_its_place_alone(place: Place) -> None:
    first = place.create()
    key = os.urandom(32)
    wrapped = first.wrap(key, b"place")
    assert len(wrapped) == 64
    first.close()
    second = place.open()
    assert second.unwrap(wrapped, b"place") == key
    for context in (b"", b"Place", b"place\x00"):
        with pytest.raises(SealedValueUnreadable):
            second.unwrap(wrapped, context)
    second.check()
    second.close()


def test_no_byte_can_be_changed(place: Place) -> None:
    provider = place.create()
    wrapped = provider.wrap(bytes(32), b"place")
    for at in range(len(wrapped)):
        with pytest.raises(SealedValueUnreadable):
            provider.unwrap(wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], b"place")
    provider.close()


def test_a_data_key_of_the_server_is_bound_to_its_place(place: Place) -> None:
    provider = place.create()
    key, wrapped = provider.generate(b"place")
    assert (len(key), provider.unwrap(wrapped, b"place")) == (32, key)
    assert provider.generate(b"place")[0] != key
    with pytest.raises(SealedValueUnreadable):
        provider.unwrap(wrapped, b"elsewhere")
    provider.close()


def test_one_root_does_not_open_what_another_wrapped(place: Place) -> None:
    one, other = place.create("one.json"), place.create("other.json")
    with pytest.raises(SealedValueUnreadable):
        other.unwrap(one.wrap(bytes(32), b"place"), b"place")
    one.close()
    other.close()


def test_a_retired_root_is_deleted_on_the_server(place: Place) -> None:
    provider = place.create()
    wrapped = provider.wrap(bytes(32), b"place")
    copy = place.folder / "copy.json"
    copy.write_bytes((place.folder / "root.json").read_bytes())
    place.retire()
    assert not (place.folder / "root.json").exists()
    assert refusal(Unavailable, lambda: provider.unwrap(wrapped, b"place")) == "key_provider_unavailable"
    assert refusal(Unavailable, provider.check) == "key_provider_unavailable"
    assert refusal(ConfigurationError, lambda: place.open("copy.json")) == "root_key_missing"
    place.retire("copy.json")  # a crash came between key and file
    assert not copy.exists()
    provider.close()


def test_a_credential_that_is_refused_is_said(place: Place) -> None:
    place.create().close()
    wrong = place.folder / "wrong"
    wrong.write_text("hvs.not-a-token")
    wrong.chmod(0o600)
    with pytest.raises(ConfigurationError) as refused:
        TransitProvider.open(place.folder / "root.json", place.settings, wrong, place.ca_file)
    assert refused.value.code == "vault_access_refused"
    assert "hvs" not in repr(refused.value)
