"""An issuer's key set over real loopback HTTP: rotation, outage, hostile answers, and keys that must not count."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from secure_embed.access import JwksCache
from secure_embed.errors import Unavailable

Json = dict[str, Any]


def public(kid: str, **extra: Any) -> Json:
    return {**ECKey.generate_key("P-256").as_dict(private=False), "kid": kid, **extra}


class Issuer:
    """A key set endpoint whose answer the test sets."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.fetches = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.entered.set()
                issuer.gate.wait(timeout=10)
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(issuer.body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the cache stops at its limit
                    self.wfile.write(issuer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jwks"

    def publish(self, *keys: Json) -> None:
        self.status, self.body = 200, json.dumps({"keys": keys}).encode()

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Clock:
    """Monotonic seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_keys_are_kept_for_five_minutes(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert issuer.fetches == 0  # nothing is read before it is needed
    for _ in range(20):
        assert cache.key("one") is not None
    clock.now += 299
    assert cache.key("one") is not None
    assert issuer.fetches == 1
    clock.now += 1
    assert cache.key("one") is not None
    assert issuer.fetches == 2


def test_a_rotated_key_is_found_and_the_retired_one_forgotten(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("old"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert cache.key("old") is not None
    issuer.publish(public("new"))
    clock.now += 5
    assert cache.key("new") is not None
    assert cache.key("old") is None


def test_a_flood_of_unknown_key_ids_costs_the_issuer_nothing(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert [cache.key(f"unknown-{n}") for n in range(50)] == [None] * 50
    assert issuer.fetches == 1
    clock.now += 5
    assert cache.key("unknown") is None
    assert issuer.fetches == 2


def test_an_outage_is_bridged_for_an_hour_and_then_fails_closed(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert cache.key("one") is not None
    issuer.status = 503
    clock.now += 3_600
    assert cache.key("one") is not None
    clock.now += 1
    with pytest.raises(Unavailable) as refused:
        cache.key("one")
    assert refused.value.code == "issuer_unavailable"
    issuer.publish(public("one"))
    clock.now += 5
    assert cache.key("one") is not None


def test_an_issuer_that_was_never_reached_is_asked_every_five_seconds(issuer: Issuer, clock: Clock) -> None:
    issuer.status = 500
    cache = JwksCache(issuer.url, monotonic=clock)
    for _ in range(10):
        with pytest.raises(Unavailable):
            cache.key("one")
    assert issuer.fetches == 1


def test_an_issuer_that_withdraws_every_key_is_believed(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert cache.key("one") is not None
    issuer.publish()
    clock.now += 300
    assert cache.key("one") is None


def hostile_redirect(issuer: Issuer) -> None:
    issuer.status, issuer.headers = 302, {"Location": "/elsewhere"}


def hostile_size(issuer: Issuer) -> None:
    issuer.body = json.dumps({"keys": [public("two")], "pad": "x" * 65_536}).encode()


def hostile_count(issuer: Issuer) -> None:
    issuer.body = json.dumps({"keys": [{}] * 65}).encode()


HOSTILE: dict[str, Callable[[Issuer], None]] = {
    "redirect": hostile_redirect,
    "larger than 64 KiB": hostile_size,
    "too many keys": hostile_count,
    "not JSON": lambda i: setattr(i, "body", b"<html>"),
    "not UTF-8": lambda i: setattr(i, "body", b"\xff\xfe"),
    "not an object": lambda i: setattr(i, "body", b"[]"),
    "no keys": lambda i: setattr(i, "body", b"{}"),
    "keys is an object": lambda i: setattr(i, "body", b'{"keys": {}}'),
    "a member twice": lambda i: setattr(i, "body", b'{"keys": [], "keys": []}'),
    "deep": lambda i: setattr(i, "body", b'{"keys": ' + b"[" * 60_000),
    "empty": lambda i: setattr(i, "body", b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_an_outage_and_changes_nothing(issuer: Issuer, clock: Clock, name: str) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert cache.key("one") is not None
    HOSTILE[name](issuer)
    clock.now += 300
    assert cache.key("one") is not None
    assert cache.key("two") is None
    assert issuer.fetches == 2  # the redirect was not followed


def test_a_slow_issuer_does_not_stop_callers_whose_key_is_known(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    assert cache.key("one") is not None
    issuer.gate.clear()
    issuer.entered.clear()
    clock.now += 5
    waiting = threading.Thread(target=cache.key, args=("unknown",))
    waiting.start()
    assert issuer.entered.wait(timeout=10)
    clock.now += 300  # "one" is due as well, but it is there: nobody waits for the fetch that hangs
    assert cache.key("one") is not None
    assert waiting.is_alive()
    issuer.gate.set()
    waiting.join(timeout=10)
    assert not waiting.is_alive()


def test_callers_side_by_side_share_one_fetch(issuer: Issuer, clock: Clock) -> None:
    issuer.publish(public("one"))
    cache = JwksCache(issuer.url, monotonic=clock)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(cache.key("one"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert issuer.fetches == 1
    assert len(found) == 8
    assert None not in found


def test_a_closed_port_is_an_outage(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        JwksCache("http://127.0.0.1:9/jwks", monotonic=clock).key("one")


def test_a_self_signed_issuer_is_an_outage(clock: Clock, tmp_path: Path) -> None:
    """TLS is verified: the listener's certificate is signed by nobody we trust."""
    import datetime
    import ipaddress
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "tls.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = Issuer()
    try:
        server.publish(public("one"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        with pytest.raises(Unavailable):
            JwksCache(server.url.replace("http:", "https:"), monotonic=clock).key("one")
        assert server.fetches == 0
    finally:
        server.close()


# --- which keys count, read from a file ---------------------------------------------------------------------------


def keys_in(folder: Path, *keys: Any) -> JwksCache:
    (folder / "jwks.json").write_text(json.dumps({"keys": keys}))
    return JwksCache(folder / "jwks.json", monotonic=Clock())


def test_keys_of_each_accepted_kind_count(tmp_path: Path) -> None:
    cache = keys_in(
        tmp_path,
        public("ec", use="sig", key_ops=["verify"]),
        {**RSAKey.generate_key(2048).as_dict(private=False), "kid": "rsa"},
        {**OKPKey.generate_key("Ed25519").as_dict(private=False), "kid": "ed"},
    )
    assert all(cache.key(kid) is not None for kid in ("ec", "rsa", "ed"))


MADE_BAD: dict[str, Callable[[], Any]] = {
    "symmetric": lambda: {**OctKey.generate_key(256).as_dict(private=True), "kid": "bad"},
    "private EC": lambda: {**ECKey.generate_key("P-256").as_dict(private=True), "kid": "bad"},
    "private RSA": lambda: {**RSAKey.generate_key(2048).as_dict(private=True), "kid": "bad"},
    "EC with a symmetric member": lambda: public("bad", k="AAAA"),
    "for encryption": lambda: public("bad", use="enc"),
    "use is a list": lambda: public("bad", use=["sig"]),
    "only signs": lambda: public("bad", key_ops=["sign"]),
    "key_ops is a string": lambda: public("bad", key_ops="verify"),
    "RSA of 1024 bits": lambda: {**RSAKey.generate_key(1024).as_dict(private=False), "kid": "bad"},
    "RSA without n": lambda: {"kty": "RSA", "e": "AQAB", "kid": "bad"},
    "RSA with even exponent": lambda: {**RSAKey.generate_key(2048).as_dict(private=False), "e": "Ag", "kid": "bad"},
    "point not on the curve": lambda: public("bad", x="AQ", y="AQ"),
    "unknown curve": lambda: public("bad", crv="P-999"),
    "unknown kind": lambda: {"kty": "AKP", "kid": "bad"},
    "kind is a list": lambda: public("bad", kty=["EC"]),
    "kid is a number": lambda: {**public("bad"), "kid": 5},
    "kid too long": lambda: public("k" * 257),
    "kid is empty": lambda: public(""),
    "no kid": lambda: {name: value for name, value in public("bad").items() if name != "kid"},
    "a string": lambda: "key",
    "null": lambda: None,
}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # a 1024-bit key, made to be refused
@pytest.mark.parametrize("name", MADE_BAD)
def test_a_key_that_must_not_verify_is_passed_over(tmp_path: Path, name: str) -> None:
    cache = keys_in(tmp_path, MADE_BAD[name](), public("good"))
    assert cache.key("good") is not None
    assert all(cache.key(kid) is None for kid in ("bad", "5", "k" * 257, ""))


def test_two_keys_under_one_id_count_as_none(tmp_path: Path) -> None:
    cache = keys_in(tmp_path, public("twin"), public("twin"), public("good"))
    assert cache.key("twin") is None
    assert cache.key("good") is not None


@pytest.mark.parametrize("content", [None, b"", b"{", b"x" * 70_000])
def test_a_key_file_that_cannot_be_read_fails_closed(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unavailable):
        JwksCache(path, monotonic=Clock()).key("one")
