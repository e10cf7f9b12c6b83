"""Issuer profiles: whom we believe, about what, and how its tokens look. No IO.

One profile for each authorization server, because servers differ (header type, name of the client claim, lifetimes)
and one reading for all would have to be the laxest. Every exception is a field here, so that it can be reported.
Sources: RFC 9068 section 4, RFC 8725 section 3, RFC 8707 section 2.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from secure_embed.errors import ConfigurationError
from secure_embed.types import ATTRIBUTE_NAME, AttributeType

__all__ = ["ALGORITHMS", "DEVELOPMENT_ISSUER", "IssuerProfile"]

# Asymmetric only: with a shared secret every resource server could mint tokens (RFC 8725 section 3.2).
ALGORITHMS = frozenset(
    {"ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "EdDSA", "Ed25519"}
)
DEVELOPMENT_ISSUER = "urn:secure-embed:development-issuer"

leeway_s_max = 60
lifetime_s_max = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerProfile:
    """One authorization server. Raises ``ConfigurationError`` (``issuer_profile_invalid``) for what is unsafe.

    ``audience`` is this deployment's resource identifier. ``attribute_claims`` names, for each principal attribute,
    the claim it is read from; ``attribute_types`` says what the claim must hold. ``token_type`` "JWT" is the opt-in
    for servers that cannot issue ``at+jwt``; then nothing but the audience keeps other JWTs of that server out.
    """

    issuer: str
    audience: str
    jwks: str | Path  # https URL, or a file (a site without a network); http only for loopback in development
    algorithms: tuple[str, ...] = ("ES256", "PS256", "EdDSA")
    token_type: Literal["at+jwt", "JWT"] = "at+jwt"  # noqa: S105 - the JOSE header's typ, not a secret
    client_id_claim: str = "client_id"
    purposes_claim: str = "purposes"
    attribute_claims: Mapping[str, str] = field(
        default_factory=lambda: {"department": "department", "clearance": "clearance"}
    )
    attribute_types: Mapping[str, AttributeType] = field(
        default_factory=lambda: {"department": "string", "clearance": "long"}
    )
    leeway_s: int = 5
    lifetime_max_s: int = 3_600
    development: bool = False

    def __post_init__(self) -> None:
        audience = urlsplit(self.audience)
        for wrong, what in (
            (not self.issuer, "the issuer has no name"),
            (not audience.scheme or not (audience.netloc or audience.path), "the audience is not an absolute URI"),
            (bool(audience.fragment), "the audience has a fragment"),
            (not self.algorithms, "no signature algorithm is named"),
            (not ALGORITHMS.issuperset(self.algorithms), "an algorithm is unknown, symmetric or 'none'"),
            (self.token_type not in ("at+jwt", "JWT"), "token_type is at+jwt or JWT"),
            (not self.client_id_claim or not self.purposes_claim, "a claim has no name"),
            (not 0 <= self.leeway_s <= leeway_s_max, "leeway_s is 0 to 60"),
            (not 1 <= self.lifetime_max_s <= lifetime_s_max, "lifetime_max_s is 1 to 86400"),
            (not all(map(ATTRIBUTE_NAME.match, self.attribute_claims)), "an attribute's name is not allowed"),
            (not self.attribute_types.keys() >= self.attribute_claims.keys(), "an attribute has no type"),
            (self.issuer == DEVELOPMENT_ISSUER and not self.development, "the development issuer must say what it is"),
            (isinstance(self.jwks, str) and not self._url_allowed(self.jwks), "jwks is not an https URL"),
        ):
            if wrong:
                raise ConfigurationError(f"issuer profile: {what}", code="issuer_profile_invalid")

    def _url_allowed(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            if not host or parts.username is not None or parts.fragment:
                return False
            if parts.scheme == "https":
                return True
            return parts.scheme == "http" and self.development and ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
