"""From the Authorization header to a :class:`Principal`, or to a refusal that says which rule was broken.

The issuer that a token names picks the profile; then everything is checked against that profile: algorithm, type,
key, signature, claims. joserfc verifies signatures; the rules around it are RFC 9068 section 4, RFC 8725 and
RFC 6750. What may not be in here: scopes, policy, and any part of a token in an error, a log line or a ``repr``.
"""

import base64
import binascii
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from secure_embed.access._claims import principal_of
from secure_embed.access._json import parse_object
from secure_embed.access._jwks import JwksCache, kid_chars_max
from secure_embed.access._refusals import TokenRefused
from secure_embed.access.profile import IssuerProfile
from secure_embed.errors import ConfigurationError, Unauthenticated
from secure_embed.types import Principal

if TYPE_CHECKING:
    from joserfc.jwk import Key

__all__ = ["REALM", "Authenticator"]

REALM = "secure_embed"
token_chars_max = 8 * 1024
header_bytes_max = 4 * 1024

_BEARER = re.compile(r"bearer +([A-Za-z0-9_.~+/-]+=*) *\Z", re.IGNORECASE)  # RFC 6750 section 2.1
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\Z")


class Authenticator:
    """Knows the issuers and their keys. Safe to call from several threads; may fetch keys, so not on an event loop."""

    def __init__(
        self,
        issuers: Sequence[IssuerProfile],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        resource_metadata: str | None = None,
        development_allowed: bool = False,
    ) -> None:
        """``clock`` gives Unix seconds. ``resource_metadata``: URL of our RFC 9728 document, for the challenges.

        Raises ``ConfigurationError``: ``development_issuer_refused``, or ``issuer_profile_invalid`` when two
        profiles share an issuer.
        """
        if any(i.development for i in issuers) and not development_allowed:
            raise ConfigurationError(
                "the development issuer hands out any token: refused outside development",
                code="development_issuer_refused",
            )
        self._profiles = {profile.issuer: profile for profile in issuers}
        if len(self._profiles) != len(issuers):
            raise ConfigurationError("two profiles share an issuer", code="issuer_profile_invalid")
        self._keys = {profile.issuer: JwksCache(profile.jwks, monotonic=monotonic) for profile in issuers}
        self._clock = clock
        self._resource_metadata = resource_metadata

    def authenticate(self, authorization_headers: Sequence[str]) -> Principal:
        """``authorization_headers``: every Authorization header of the request, as it came.

        Raises ``Unauthenticated`` (codes: docs/access.md) and ``Unavailable`` (``issuer_unavailable``).
        """
        try:
            return self._principal(_token_in(authorization_headers))
        except TokenRefused as refused:
            raise Unauthenticated(
                refused.detail,
                code=refused.code,
                challenge=self._challenge(refused),
                http_status=refused.status,
            ) from None

    def _challenge(self, refused: TokenRefused) -> dict[str, str]:
        challenge = {"realm": REALM}
        if refused.error is not None:
            challenge |= {"error": refused.error, "error_description": refused.detail}
        if self._resource_metadata is not None:
            challenge["resource_metadata"] = self._resource_metadata  # RFC 9728 section 5.1
        return challenge

    def _principal(self, token: str) -> Principal:
        header, claims = _parts_of(token)
        issuer = claims.get("iss")
        profile = self._profiles.get(issuer) if isinstance(issuer, str) else None
        if profile is None:
            raise TokenRefused("token_issuer", "the issuer is not known here")
        algorithm, kid = _check_header(header, profile)
        key = self._keys[profile.issuer].key(kid)
        if key is None:
            raise TokenRefused("token_invalid", "the signature cannot be verified")
        _verify_signature(token, key, algorithm)
        return principal_of(claims, profile, self._clock())


def _token_in(headers: Sequence[str]) -> str:
    if not headers:
        raise TokenRefused("token_missing", "an access token is needed", error=None)
    if len(headers) > 1:
        raise TokenRefused("token_malformed", "more than one Authorization header", error="invalid_request", status=400)
    scheme = headers[0].split(" ", 1)[0]
    if scheme.lower() != "bearer":  # RFC 6750 section 3.1: an unsupported scheme counts as no credentials
        raise TokenRefused("token_missing", "an access token under the Bearer scheme is needed", error=None)
    match = _BEARER.match(headers[0]) if len(headers[0]) <= token_chars_max + 16 else None
    if match is None or len(match[1]) > token_chars_max:
        raise TokenRefused(
            "token_malformed", "the Authorization header is malformed or too long", error="invalid_request", status=400
        )
    return match[1]


def _parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, read strictly but not verified yet."""
    match = _COMPACT.match(token)
    try:
        if match is None:
            raise ValueError
        header, claims, _ = (_decode(part) for part in match.groups())
        if len(header) > header_bytes_max:
            raise ValueError
        return parse_object(header), parse_object(claims)
    except ValueError:
        raise TokenRefused("token_malformed", "the token is not a signed JWT") from None


def _decode(part: str) -> bytes:
    """Base64url without padding, in its one canonical form; joserfc's own decoder is laxer."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise ValueError from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode():
        raise ValueError
    return raw


def _check_header(header: dict[str, Any], profile: IssuerProfile) -> tuple[str, str]:
    """Algorithm and key id. ``jku``, ``jwk``, ``x5c`` and ``x5u`` are passed over: keys come from configuration."""
    token_type, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    if not isinstance(token_type, str) or token_type.lower().removeprefix("application/") != profile.token_type.lower():
        raise TokenRefused("token_type", "the token is not of the type that is accepted from its issuer")
    if not isinstance(algorithm, str) or algorithm not in profile.algorithms:
        raise TokenRefused("token_invalid", "the signature algorithm is not accepted")
    if "crit" in header or "b64" in header:  # we understand no extension (RFC 7515 section 4.1.11, RFC 7797)
        raise TokenRefused("token_invalid", "a header parameter is not accepted")
    if not isinstance(kid, str) or not 0 < len(kid) <= kid_chars_max:
        raise TokenRefused("token_invalid", "the signature cannot be verified")
    return algorithm, kid


def _verify_signature(token: str, key: "Key", algorithm: str) -> None:
    from joserfc import jws
    from joserfc.errors import JoseError

    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)  # RFC 7515 section 4: ignore unknown
    registry.max_header_length = token_chars_max  # _parts_of has bounded it; joserfc's own 512 refuse long chains
    try:
        jws.deserialize_compact(token, key, registry=registry)
    except (JoseError, ValueError, TypeError):
        raise TokenRefused("token_invalid", "the signature cannot be verified") from None
