"""An issuer profile that exists is safe: symmetric algorithms, plain http and vague audiences are refused."""

from pathlib import Path
from typing import Any

import pytest

from secure_embed.access import ALGORITHMS, DEVELOPMENT_ISSUER, Authenticator, IssuerProfile
from secure_embed.errors import ConfigurationError

GOOD: dict[str, Any] = {
    "issuer": "https://login.example.org",
    "audience": "https://embed.example.org",
    "jwks": "https://login.example.org/jwks",
}


def test_a_plain_profile_has_the_documented_defaults() -> None:
    profile = IssuerProfile(**GOOD)
    assert (profile.leeway_s, profile.lifetime_max_s, profile.token_type) == (5, 3_600, "at+jwt")
    assert not any(name.startswith("HS") or name == "none" for name in ALGORITHMS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": ""},
        {"audience": "embed"},
        {"audience": "https://embed.example.org/#part"},
        {"audience": "https:"},
        {"algorithms": ()},
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"algorithms": ("ES256", "HS512")},
        {"token_type": "JWS"},
        {"client_id_claim": ""},
        {"leeway_s": 61},
        {"leeway_s": -1},
        {"lifetime_max_s": 0},
        {"lifetime_max_s": 86_401},
        {"attribute_claims": {"Department": "department"}},
        {"attribute_claims": {"team": "team"}},
        {"issuer": DEVELOPMENT_ISSUER},
        {"jwks": "http://login.example.org/jwks"},
        {"jwks": "http://127.0.0.1/jwks"},
        {"jwks": "http://login.example.org/jwks", "development": True},
        {"jwks": "http://localhost.example.org/jwks", "development": True},
        {"jwks": "https://user:secret@login.example.org/jwks"},
        {"jwks": "https:///jwks"},
        {"jwks": "file:///etc/passwd"},
        {"jwks": "https://[::1/jwks"},
    ],
    ids=str,
)
def test_an_unsafe_profile_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        IssuerProfile(**{**GOOD, **wrong})
    assert refused.value.code == "issuer_profile_invalid"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/jwks", "http://[::1]:9/jwks"])
def test_plain_http_is_for_loopback_in_development(url: str) -> None:
    IssuerProfile(**{**GOOD, "jwks": url, "development": True})


def test_a_development_profile_is_refused_unless_allowed_in_so_many_words() -> None:
    profile = IssuerProfile(**{**GOOD, "jwks": Path("jwks.json"), "development": True})
    with pytest.raises(ConfigurationError) as refused:
        Authenticator([profile])
    assert refused.value.code == "development_issuer_refused"
    Authenticator([profile], development_allowed=True)


def test_two_profiles_of_one_issuer_are_refused_rather_than_one_ignored() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Authenticator([IssuerProfile(**GOOD), IssuerProfile(**{**GOOD, "audience": "https://other.example.org"})])
    assert refused.value.code == "issuer_profile_invalid"
