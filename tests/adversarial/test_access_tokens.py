"""Attacks on access tokens. Each has its name, its code, and leaves no part of the token in the error.

Tokens are forged with cryptography's own primitives, not with the library that verifies them.
"""

import base64
import hashlib
import hmac
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from secure_embed.access import Authenticator, IssuerProfile
from secure_embed.errors import Unauthenticated
from secure_embed.types import Principal

ISSUER = "https://login.example.org"
AUDIENCE = "https://embed.example.org"
NOW = 1_800_000_000
METADATA = "https://embed.example.org/.well-known/oauth-protected-resource"

Json = dict[str, Any]
REMOVED = object()


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def es256(key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


class Forge:
    """An honest issuer's keys, and whatever else an attacker wants to say or sign."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ed = ed25519.Ed25519PrivateKey.generate()
        point, modulus = self.key.public_key().public_numbers(), self.rsa.public_key().public_numbers()
        self.public: Json = {
            "kty": "EC", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32),
        }  # fmt: skip
        raw = self.ed.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.jwks = folder / "jwks.json"
        keys = [
            {**self.public, "kid": "one", "use": "sig"},
            {**self.public, "kid": "pinned", "alg": "ES384"},
            {"kty": "RSA", "kid": "rsa", "n": number(modulus.n, 256), "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(raw)},
            {"kty": "oct", "kid": "secret", "k": b64(b"k" * 32)},
        ]
        self.jwks.write_text(json.dumps({"keys": keys}))
        self.authenticator = self.accepting()

    def accepting(self, **changed: Any) -> Authenticator:
        profile = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "jwks": self.jwks,
            "algorithms": ("ES256", "PS256", "EdDSA"),
            **changed,
        }
        return Authenticator([IssuerProfile(**profile)], clock=lambda: float(NOW), resource_metadata=METADATA)

    def token(
        self,
        *,
        header: Json | None = None,
        sign: Callable[[bytes], bytes] | None = None,
        payload: bytes | None = None,
        **claims: Any,
    ) -> str:
        said = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "subject-marker", "client_id": "client-marker", "jti": "jti-marker",
            "iat": NOW, "exp": NOW + 300, "scope": "query", **claims,
        }  # fmt: skip
        said = {name: value for name, value in said.items() if value is not REMOVED}
        head = {"typ": "at+jwt", "alg": "ES256", "kid": "one", **(header or {})}
        head = {name: value for name, value in head.items() if value is not REMOVED}
        body = payload if payload is not None else json.dumps(said).encode()
        signed = f"{b64(json.dumps(head).encode())}.{b64(body)}"
        return f"{signed}.{b64((sign or es256(self.key))(signed.encode()))}"

    def enter(self, token: str) -> Principal:
        return self.authenticator.authenticate([f"Bearer {token}"])


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("issuer"))


def refusal(forge: Forge, token: str, code: str) -> Unauthenticated:
    """The token is refused with ``code``, and nothing of it is in the error or its traceback."""
    with pytest.raises(Unauthenticated) as refused:
        forge.enter(token)
    error = refused.value
    assert error.code == code
    shown = " ".join(
        [error.detail, repr(error), str(error.members), str(error.challenge), *traceback.format_exception(error)]
    )
    for part in (*token.split("."), "subject-marker", "client-marker", "jti-marker"):
        assert len(part) < 8 or part not in shown
    return error


def test_the_honest_token_enters(forge: Forge) -> None:
    principal = forge.enter(forge.token())
    assert (principal.subject, principal.client_id, principal.scopes) == ("subject-marker", "client-marker", {"query"})


def test_the_other_algorithms_that_are_allowed_verify(forge: Forge) -> None:
    salt = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    forge.enter(
        forge.token(header={"alg": "PS256", "kid": "rsa"}, sign=lambda m: forge.rsa.sign(m, salt, hashes.SHA256()))
    )
    forge.enter(forge.token(header={"alg": "EdDSA", "kid": "ed"}, sign=forge.ed.sign))


def test_a_large_but_honest_header_is_read(forge: Forge) -> None:
    forge.enter(forge.token(header={"x5c": ["A" * 2_000], "x5t": "thumb", "unknown": {"deep": [1]}}))


# --- the signature ------------------------------------------------------------------------------------------------


def test_alg_none(forge: Forge) -> None:
    refusal(forge, forge.token(header={"alg": "none"}, sign=lambda _: b"x"), "token_invalid")
    refusal(forge, forge.token(header={"alg": "none"}, sign=lambda _: b""), "token_malformed")


@pytest.mark.parametrize("alg", ["None", "NONE", "nOnE", "", None, 5, ["ES256"], {"ES256": 1}, REMOVED])
def test_alg_in_disguise(forge: Forge, alg: object) -> None:
    refusal(forge, forge.token(header={"alg": alg}), "token_invalid")


def test_hs256_with_the_public_key_as_the_secret(forge: Forge) -> None:
    public = forge.key.public_key()
    for secret in (
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        json.dumps(forge.public).encode(),
    ):
        token = forge.token(
            header={"alg": "HS256"},
            sign=lambda m, s=secret: hmac.digest(s, m, hashlib.sha256),  # type: ignore[misc]
        )
        refusal(forge, token, "token_invalid")


def test_hs256_with_a_symmetric_key_that_the_issuer_published(forge: Forge) -> None:
    token = forge.token(
        header={"alg": "HS256", "kid": "secret"}, sign=lambda m: hmac.digest(b"k" * 32, m, hashlib.sha256)
    )
    refusal(forge, token, "token_invalid")
    refusal(forge, forge.token(header={"kid": "secret"}), "token_invalid")


def test_an_algorithm_that_is_sound_but_not_on_the_profiles_list(forge: Forge) -> None:
    def sign(message: bytes) -> bytes:
        return forge.rsa.sign(message, padding.PKCS1v15(), hashes.SHA256())

    token = forge.token(header={"alg": "RS256", "kid": "rsa"}, sign=sign)
    refusal(forge, token, "token_invalid")
    assert forge.accepting(algorithms=("RS256",)).authenticate([f"Bearer {token}"]).subject == "subject-marker"


def test_a_key_of_another_algorithm_or_kind(forge: Forge) -> None:
    refusal(forge, forge.token(header={"kid": "pinned"}), "token_invalid")
    refusal(forge, forge.token(header={"kid": "rsa"}), "token_invalid")
    refusal(forge, forge.token(header={"kid": "ed"}), "token_invalid")


def test_the_attackers_own_key_however_it_is_offered(forge: Forge) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    point = own.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32)}
    offers: list[Json] = [
        {},
        {"jwk": jwk},
        {"jwk": {**jwk, "kid": "one"}},
        {"jku": "https://attacker.example.org/jwks"},
        {"x5u": "https://attacker.example.org/chain"},
    ]
    for offer in offers:
        refusal(forge, forge.token(header=offer, sign=es256(own)), "token_invalid")


@pytest.mark.parametrize("kid", ["two", "", "../jwks.json", "one\x00", "k" * 257, 1, None, ["one"], REMOVED])
def test_a_kid_that_the_issuer_does_not_have(forge: Forge, kid: object) -> None:
    refusal(forge, forge.token(header={"kid": kid}), "token_invalid")


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"b64": True}], ids=str
)
def test_extensions_are_not_understood_and_so_refused(forge: Forge, extra: Json) -> None:
    refusal(forge, forge.token(header=extra), "token_invalid")


def test_changed_claims_under_an_old_signature(forge: Forge) -> None:
    head, _, signature = forge.token().split(".")
    _, body, _ = forge.token(scope="query vectors:export").split(".")
    refusal(forge, f"{head}.{body}.{signature}", "token_invalid")


@pytest.mark.parametrize("signature", [b"\x00" * 64, b"\x00", b"\xff" * 64, b"\x00" * 2_000])
def test_signatures_of_nothing(forge: Forge, signature: bytes) -> None:
    refusal(forge, forge.token(sign=lambda _: signature), "token_invalid")


# --- the claims ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ("iss", "token_issuer"),
        ("aud", "token_audience"),
        ("exp", "token_claims"),
        ("iat", "token_claims"),
        ("sub", "token_claims"),
        ("client_id", "token_claims"),
        ("jti", "token_claims"),
    ],
)
@pytest.mark.parametrize("value", [REMOVED, None, "", [], {}, True], ids=repr)
def test_each_required_claim(forge: Forge, claim: str, code: str, value: object) -> None:
    refusal(forge, forge.token(**{claim: value}), code)


@pytest.mark.parametrize(
    "audience", ["https://embed.example.org/", "https://EMBED.example.org", "embed", ["https://other.example.org"], 1]
)
def test_a_token_for_another_resource(forge: Forge, audience: object) -> None:
    refusal(forge, forge.token(aud=audience), "token_audience")


def test_our_audience_among_several(forge: Forge) -> None:
    forge.enter(forge.token(aud=["https://other.example.org", AUDIENCE]))


@pytest.mark.parametrize("issuer", ["https://login.example.org/", "https://evil.example.org", 7, ["x"]])
def test_a_token_of_another_issuer(forge: Forge, issuer: object) -> None:
    refusal(forge, forge.token(iss=issuer), "token_issuer")


@pytest.mark.parametrize("typ", ["JWT", "dpop+jwt", "logout+jwt", "", None, ["at+jwt"], REMOVED], ids=repr)
def test_a_token_of_another_type(forge: Forge, typ: object) -> None:
    refusal(forge, forge.token(header={"typ": typ}), "token_type")


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_type_in_each_form_of_rfc_9068(forge: Forge, typ: str) -> None:
    forge.enter(forge.token(header={"typ": typ}))


def test_the_jwt_type_is_an_opt_in_of_one_issuer_and_then_the_only_one(forge: Forge) -> None:
    lax = forge.accepting(token_type="JWT")
    lax.authenticate([f"Bearer {forge.token(header={'typ': 'JWT'})}"])
    with pytest.raises(Unauthenticated):
        lax.authenticate([f"Bearer {forge.token()}"])


@pytest.mark.parametrize(
    ("times", "code"),
    [
        ({"iat": NOW - 400, "exp": NOW - 5}, "token_expired"),
        ({"exp": NOW - 3_000_000, "iat": 0}, "token_expired"),
        ({"iat": NOW + 6}, "token_not_yet_valid"),
        ({"nbf": NOW + 6}, "token_not_yet_valid"),
        ({"nbf": "soon"}, "token_claims"),
        ({"nbf": None}, "token_claims"),
        ({"exp": NOW + 3_601}, "token_lifetime"),
        ({"exp": NOW + 10 * 365 * 86_400}, "token_lifetime"),
        ({"exp": 2**53}, "token_claims"),
        ({"exp": 10**4000}, "token_claims"),
        ({"exp": -1}, "token_claims"),
        ({"exp": str(NOW + 300)}, "token_claims"),
        ({"exp": True}, "token_claims"),
        ({"iat": False}, "token_claims"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_times_that_are_not_now(forge: Forge, times: Json, code: str) -> None:
    refusal(forge, forge.token(**times), code)


@pytest.mark.parametrize("times", [{"exp": NOW - 4, "iat": NOW - 300}, {"iat": NOW + 5}, {"exp": NOW + 0.5}], ids=str)
def test_times_within_the_leeway(forge: Forge, times: Json) -> None:
    forge.enter(forge.token(**times))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_compare_with_nothing(forge: Forge, value: str) -> None:
    body = json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "client_id": "c", "jti": "j", "iat": NOW})
    payload = (body[:-1] + f', "exp": {value}}}').encode()
    refusal(forge, forge.token(payload=payload), "token_claims" if value == "1e999" else "token_malformed")


@pytest.mark.parametrize("binding", [{"jkt": "thumb"}, {"x5t#S256": "thumb"}, {}, None], ids=str)
def test_a_bound_token_is_not_taken_from_a_bearer(forge: Forge, binding: object) -> None:
    refusal(forge, forge.token(cnf=binding), "token_binding_unsupported")


@pytest.mark.parametrize(
    "claims",
    [
        {"clearance": "3"},
        {"clearance": True},
        {"clearance": 3.0},
        {"clearance": 2**63},
        {"clearance": None},
        {"department": ["cardiology"]},
        {"department": 5},
        {"department": "d" * 513},
        {"department": "two\nlines"},
        {"purposes": {"care": True}},
        {"purposes": ["care", 1]},
        {"purposes": ["p"] * 65},
        {"scope": ["query"]},
        {"scope": "s " * 65},
        {"sub": "s" * 513},
        {"sub": "lone \ud800 surrogate"},
        {"jti": "bell\x07"},
    ],
    ids=lambda v: str(v)[:40].encode("unicode_escape").decode(),
)
def test_claims_of_the_wrong_shape_refuse_the_token_and_are_not_dropped(forge: Forge, claims: Json) -> None:
    refusal(forge, forge.token(**claims), "token_claims")


def test_claims_cannot_widen_what_the_token_carries(forge: Forge) -> None:
    principal = forge.enter(forge.token(scope="", scopes=["query"], scp=["query"], roles=["query"], clearence=9))
    assert principal.scopes == frozenset()
    assert principal.attributes == {}


# --- the envelope -------------------------------------------------------------------------------------------------


def test_no_header_gets_a_challenge_without_an_error(forge: Forge) -> None:
    for headers in ([], ["Basic dXNlcjpwYXNz"], ["DPoP abc"], [""]):
        with pytest.raises(Unauthenticated) as refused:
            forge.authenticator.authenticate(headers)
        assert refused.value.code == "token_missing"
        assert refused.value.challenge == {"realm": "secure_embed", "resource_metadata": METADATA}


def test_a_refused_token_gets_the_challenge_of_rfc_6750_and_9728(forge: Forge) -> None:
    challenge = refusal(forge, forge.token(exp=NOW - 60, iat=NOW - 90), "token_expired").challenge
    assert challenge["error"] == "invalid_token"
    assert challenge["resource_metadata"] == METADATA
    assert all(c.isprintable() and c not in '"\\' for value in challenge.values() for c in value)


@pytest.mark.parametrize("second", ["same", "", "Basic dXNlcjpwYXNz"])
def test_two_authorization_headers(forge: Forge, second: str) -> None:
    first = f"Bearer {forge.token()}"
    with pytest.raises(Unauthenticated) as refused:
        forge.authenticator.authenticate([first, first if second == "same" else second])
    assert (refused.value.code, refused.value.status) == ("token_malformed", 400)
    assert refused.value.challenge["error"] == "invalid_request"


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a b", "Bearer a, Bearer b", "Bearer\ta", "Bearer ü"])
def test_a_malformed_header(forge: Forge, header: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        forge.authenticator.authenticate([header])
    assert refused.value.code in {"token_malformed", "token_missing"}


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b",
        "a.b.c.d.e",
        "..",
        "e30.e30.e30",
        "e30=.e30.e30",
        "W10.W10.W10",
        "bnVsbA.bnVsbA.bnVsbA",
        "e30.e31.e30",
        "_w._w._w",
        "a.a.a",
    ],
)
def test_what_is_no_signed_jwt(forge: Forge, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        forge.enter(token)
    assert refused.value.code in {"token_malformed", "token_issuer"}
    assert token == "opaque" or token not in str(refused.value)


def test_a_member_that_stands_twice(forge: Forge) -> None:
    body = f'{{"aud":"https://other.example.org","iss":"{ISSUER}","aud":"{AUDIENCE}"}}'
    refusal(forge, forge.token(payload=body.encode()), "token_malformed")


def test_base64_in_a_second_form_is_another_token_and_refused(forge: Forge) -> None:
    token = forge.token(sign=lambda _: b"\x00" * 64)  # 64 bytes leave 4 unused bits in the last character
    refusal(forge, token[:-1] + "B", "token_malformed")
    refusal(forge, token + "==", "token_malformed")


def test_deep_nesting(forge: Forge) -> None:
    refusal(forge, forge.token(payload=b'{"a":' + b"[" * 2_900), "token_malformed")
    refusal(forge, forge.token(payload=b'{"a":' * 1_100 + b"1" + b"}" * 1_100), "token_malformed")


def test_a_token_of_any_size_is_refused_at_once(forge: Forge) -> None:
    for size in (8_193, 10_000_000):
        with pytest.raises(Unauthenticated) as refused:
            forge.enter("a" * size)
        assert (refused.value.code, refused.value.status) == ("token_malformed", 400)
    refusal(forge, forge.token(header={"pad": "x" * 4_096}), "token_malformed")
