"""The vault provider and a server that goes away, is sealed, slow, redirects, or takes the token back.

The server is ours and speaks Transit's documented shapes; tests/integration/test_keys_transit.py can ask a real one.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError, SecureEmbedError, Unavailable
from secure_embed.keys.transit import TransitProvider
from secure_embed.keys.transit_client import TransitClient
from secure_embed.settings import TransitSettings
from tests.transit_server import JWT, ROLE, SECRET_ID, TransitServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TransitServer]:
    made = TransitServer(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def credential(server: TransitServer, tmp_path: Path) -> Path:
    return server.credential(tmp_path)


@pytest.fixture
def provider(server: TransitServer, credential: Path, tmp_path: Path) -> Iterator[TransitProvider]:
    made = TransitProvider.create(tmp_path / "root.json", server.settings(timeout_s=20), credential, server.ca_file)
    yield made
    made.close()


def code(kind: type[SecureEmbedError], act: Callable[[], object]) -> str:
    with pytest.raises(kind) as refused:
        act()
    return refused.value.code


def uses(provider: TransitProvider) -> list[Callable[[], object]]:
    wrapped = provider.wrap(bytes(32), b"place")
    return [
        lambda: provider.wrap(bytes(32), b"place"),
        lambda: provider.unwrap(wrapped, b"place"),
        lambda: provider.generate(b"place"),
        provider.check,
    ]


def test_the_root_key_is_derived_and_cannot_be_exported(server: TransitServer, provider: TransitProvider) -> None:
    (key,) = server.keys.values()
    assert (key["type"], key["derived"], key["exportable"]) == ("aes256-gcm96", True, False)
    assert key["name"] == provider.describe().parameters["key"]


@pytest.mark.parametrize("made", [{"exportable": True}, {"derived": False}, {"type": "aes128-gcm96"}])
def test_a_key_that_is_not_what_was_asked_for_is_refused(
    server: TransitServer, credential: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, object]
) -> None:
    real = server._keys
    monkeypatch.setattr(server, "_keys", lambda *asked: (real(*asked) or {}) | made)
    create = lambda: TransitProvider.create(tmp_path / "root.json", server.settings(), credential, server.ca_file)  # noqa: E731
    assert code(ConfigurationError, create) == "root_key_extractable"
    assert not (tmp_path / "root.json").exists()


def test_sealed_and_unsealed_again(server: TransitServer, provider: TransitProvider) -> None:
    for sealed in (True, False):
        for use in uses_of_a_wrapped(provider, server, sealed=sealed):
            if sealed:
                assert code(Unavailable, use) == "key_provider_unavailable"
            else:
                use()


def uses_of_a_wrapped(
    provider: TransitProvider, server: TransitServer, *, sealed: bool
) -> Iterator[Callable[[], object]]:
    server.sealed = False
    made = uses(provider)
    server.sealed = sealed
    yield from made


def test_away_and_back_again(server: TransitServer, provider: TransitProvider) -> None:
    made = uses(provider)
    server.stop()
    for use in made:
        assert code(Unavailable, use) == "key_provider_unavailable"
    server.start()
    for use in made:
        use()


def test_a_server_that_hangs_is_given_up(
    server: TransitServer, provider: TransitProvider, credential: Path, tmp_path: Path
) -> None:
    server.delay_s = 3
    quick = server.settings(timeout_s=0.2)
    reopen = lambda: TransitProvider.open(tmp_path / "root.json", quick, credential, server.ca_file)  # noqa: E731
    assert code(Unavailable, reopen) == "key_provider_unavailable"


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>a proxy</html>"),
        (200, b"[]"),
        (200, b'{"data": {}}'),
        (200, b'{"data": {"plaintext": "!", "ciphertext": "vault:v1:AAAA"}}'),
        (307, b""),
        (404, b'{"errors": []}'),
        (429, b"{}"),
        (473, b"{}"),
        (500, b"secret=shown"),
    ],
)
def test_answers_that_are_none(server: TransitServer, provider: TransitProvider, answer: tuple[int, bytes]) -> None:
    made = uses(provider)
    server.answer = answer
    for use in made:
        with pytest.raises(Unavailable) as refused:
            use()
        assert refused.value.code == "key_provider_unavailable"
        assert "shown" not in repr(refused.value)
    assert not [path for _, path in server.seen if path == "/elsewhere"]


def test_a_token_that_ran_out_is_read_again(server: TransitServer, provider: TransitProvider, tmp_path: Path) -> None:
    """As a Vault Agent beside the service writes it."""
    made = uses(provider)
    server.tokens = {"another"}
    server.credential(tmp_path, "another")
    for use in made:
        use()


def test_a_refused_credential_is_not_tried_in_a_loop(server: TransitServer, provider: TransitProvider) -> None:
    made = uses(provider)
    server.tokens.clear()
    server.seen.clear()
    for _ in range(5):
        for use in made:
            assert code(Unavailable, use) == "key_provider_unavailable"
    assert len(server.seen) == 2  # the old token, and the one time that the file was read


@pytest.mark.parametrize(
    ("auth", "secret"), [("approle", SECRET_ID), ("kubernetes", JWT)], ids=["approle", "kubernetes"]
)
def test_other_ways_in(server: TransitServer, tmp_path: Path, auth: str, secret: str) -> None:
    settings = server.settings(auth=auth, role=ROLE)
    credential = server.credential(tmp_path, secret)
    made = TransitProvider.create(tmp_path / "root.json", settings, credential, server.ca_file)
    wrapped = made.wrap(bytes(32), b"place")
    server.tokens.clear()  # every login's token runs out
    assert made.unwrap(wrapped, b"place") == bytes(32)
    made.close()
    server.credential(tmp_path, "another")
    reopen = lambda: TransitProvider.open(tmp_path / "root.json", settings, credential, server.ca_file)  # noqa: E731
    assert code(ConfigurationError, reopen) == "vault_access_refused"


@pytest.mark.parametrize("right", ["POST /v1/transit/decrypt", "POST /v1/transit/keys", "POST /v1/transit/datakey"])
def test_a_right_that_lacks_is_said_at_once(
    server: TransitServer, credential: Path, tmp_path: Path, right: str
) -> None:
    import re

    server.denied = re.compile(re.escape(right))

    def begin() -> None:
        TransitProvider.create(tmp_path / "root.json", server.settings(), credential, server.ca_file).close()
        TransitProvider.open(tmp_path / "root.json", server.settings(), credential, server.ca_file)

    assert code(ConfigurationError, begin) == "vault_access_refused"


@pytest.mark.parametrize("right", ["config", "DELETE"])
def test_a_root_that_may_not_be_deleted_is_said_and_stays(
    server: TransitServer, provider: TransitProvider, credential: Path, tmp_path: Path, right: str
) -> None:
    import re

    server.denied = re.compile(right)
    retire = lambda: TransitProvider.retire(tmp_path / "root.json", server.settings(), credential, server.ca_file)  # noqa: E731
    assert code(ConfigurationError, retire) == "root_key_not_destroyed"
    assert (tmp_path / "root.json").exists()
    provider.check()


def test_the_transit_key_may_be_rotated_on_the_server(server: TransitServer, provider: TransitProvider) -> None:
    """By its administrator: what older versions wrapped still opens."""
    wrapped = provider.wrap(bytes(32), b"place")
    server.rotate(str(provider.describe().parameters["key"]))
    newer = provider.wrap(bytes(32), b"place")
    assert (wrapped[:4], newer[:4]) == (b"\x00\x00\x00\x01", b"\x00\x00\x00\x02")
    assert provider.unwrap(wrapped, b"place") == provider.unwrap(newer, b"place") == bytes(32)
    provider.check()


def test_the_environment_decides_nothing(
    server: TransitServer, provider: TransitProvider, credential: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VAULT_ADDR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("VAULT_TOKEN", "of-the-environment")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/dev/null")
    TransitProvider.open(tmp_path / "root.json", server.settings(), credential, server.ca_file).close()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
    reopen = lambda: TransitProvider.open(tmp_path / "root.json", server.settings(), credential, None)  # noqa: E731
    assert code(Unavailable, reopen) == "key_provider_unavailable"  # its certificate is of no known authority


def test_no_secret_stands_in_root_json(provider: TransitProvider, server: TransitServer, tmp_path: Path) -> None:
    document = json.loads((tmp_path / "root.json").read_text())
    assert set(document) == {"format", "key_id", "mount", "key", "sample"}
    assert server.token not in (tmp_path / "root.json").read_text()


def test_the_address_has_to_be_its_own(
    server: TransitServer, provider: TransitProvider, credential: Path, tmp_path: Path
) -> None:
    """Another name than the certificate's is refused."""
    settings = TransitSettings(address=f"https://localhost:{server.port}")
    reopen = lambda: TransitProvider.open(tmp_path / "root.json", settings, credential, server.ca_file)  # noqa: E731
    assert code(Unavailable, reopen) == "key_provider_unavailable"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["make_key", "data_key"])
def test_a_crash_while_a_root_is_made_leaves_no_key_that_nothing_names(
    server: TransitServer, credential: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The file names the Transit key before there is one; who finds it deletes the key, or finds none."""

    def killed(*_: object) -> None:
        raise Killed

    path, settings = tmp_path / "other.json", server.settings(timeout_s=20)
    with monkeypatch.context() as patched:
        patched.setattr(TransitClient, step, killed)
        patched.setattr(TransitProvider, "retire", killed)  # a process that is gone cleans nothing up
        with pytest.raises(Killed):
            TransitProvider.create(path, settings, credential, server.ca_file)
    named = json.loads(path.read_text())["key"]
    assert [key["name"] for key in server.keys.values()] == ([named] if step == "data_key" else [])
    refused = code(ConfigurationError, lambda: TransitProvider.open(path, settings, credential, server.ca_file))
    assert refused == "root_key_missing"
    TransitProvider.retire(path, settings, credential, server.ca_file)
    assert not server.keys
    assert not path.exists()
