"""The development issuer: its tokens are whole RFC 9068 tokens, its key is private, its folder says what it is."""

import hashlib
import json
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from secure_embed.access import DEVELOPMENT_ISSUER, Authenticator, DevelopmentIssuer
from secure_embed.errors import ConfigurationError, Unauthenticated

AUDIENCE = "https://localhost:8443"
NOW = 1_800_000_000.0


def issuer_in(folder: Path) -> DevelopmentIssuer:
    return DevelopmentIssuer.create(folder, clock=lambda: NOW)


def authenticator(issuer: DevelopmentIssuer, *, now: float = NOW) -> Authenticator:
    return Authenticator([issuer.profile(AUDIENCE)], clock=lambda: now, development_allowed=True)


def mint(issuer: DevelopmentIssuer, lifetime_s: int = 600) -> str:
    return issuer.mint(
        subject="dr-adler",
        client_id="ward-app",
        scopes=["query", "records:read"],
        audience=AUDIENCE,
        lifetime_s=lifetime_s,
        claims={"department": "cardiology", "clearance": 2, "purposes": ["care"], "sub": "someone-else"},
    )


def test_a_minted_token_becomes_its_principal(tmp_path: Path) -> None:
    issuer = issuer_in(tmp_path / "issuer")
    token = mint(issuer)
    principal = authenticator(issuer).authenticate([f"Bearer {token}"])
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    assert principal.issuer == DEVELOPMENT_ISSUER
    assert (principal.subject, principal.client_id) == ("dr-adler", "ward-app")
    assert principal.scopes == {"query", "records:read"}
    assert principal.attributes == {"department": "cardiology", "clearance": 2}
    assert principal.purposes == {"care"}
    assert principal.expires_unix == NOW + 600
    assert principal.token_sha256 == hashlib.sha256(claims["jti"].encode()).hexdigest()


def test_a_negative_lifetime_gives_an_expired_token(tmp_path: Path) -> None:
    issuer = issuer_in(tmp_path)
    with pytest.raises(Unauthenticated) as refused:
        authenticator(issuer).authenticate([f"Bearer {mint(issuer, lifetime_s=-60)}"])
    assert refused.value.code == "token_expired"


def test_an_opened_issuer_signs_with_the_key_that_was_made(tmp_path: Path) -> None:
    made = issuer_in(tmp_path)
    opened = DevelopmentIssuer(tmp_path, clock=lambda: NOW)
    assert authenticator(made).authenticate([f"bearer {mint(opened)}"]).subject == "dr-adler"


def test_the_key_is_private_and_the_folder_says_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "issuer"
    issuer_in(folder)
    assert (folder / "signing-key.pem").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "NOT FOR PRODUCTION" in (folder / "README.txt").read_text()
    (key,) = json.loads((folder / "jwks.json").read_text())["keys"]
    assert "d" not in key


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    issuer_in(tmp_path)
    before = (tmp_path / "signing-key.pem").read_bytes()
    with pytest.raises(ConfigurationError) as refused:
        issuer_in(tmp_path)
    assert refused.value.code == "development_issuer_exists"
    assert (tmp_path / "signing-key.pem").read_bytes() == before


@pytest.mark.parametrize("damage", ["signing-key.pem", "jwks.json"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    issuer_in(tmp_path)
    (tmp_path / damage).write_text("{}")
    with pytest.raises(ConfigurationError) as refused:
        DevelopmentIssuer(tmp_path)
    assert refused.value.code == "development_issuer_unreadable"
