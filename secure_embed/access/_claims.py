"""What a token must say before its bearer is a :class:`Principal`. Pure: claims and the time in, principal out.

Sources: RFC 9068 section 4 (which claims), RFC 7519 section 4.1 (what they mean), RFC 8725 section 3.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from secure_embed.access._refusals import TokenRefused
from secure_embed.access.profile import IssuerProfile
from secure_embed.types import AttributeType, AttributeValue, Principal

__all__ = ["principal_of"]

identifier_chars_max = 512
scopes_max = 64
purposes_max = 64

_PYTHON_TYPES: Mapping[AttributeType, type] = {"string": str, "long": int, "bool": bool}


def principal_of(claims: Mapping[str, Any], profile: IssuerProfile, now: float) -> Principal:
    """Check every claim of a token whose signature holds. ``now``: Unix seconds. Raises :class:`TokenRefused`."""
    if claims.get("iss") != profile.issuer:
        raise TokenRefused("token_issuer", "the issuer is not known here")
    _check_audience(claims, profile)
    expires = _check_times(claims, profile, now)
    if "cnf" in claims:
        # A token bound to a key must not be taken from a bearer: that would undo the binding (RFC 7800 section 3.1).
        raise TokenRefused("token_binding_unsupported", "tokens bound to a key are not accepted here yet")
    jti = _identifier(claims, "jti")
    return Principal(
        issuer=profile.issuer,
        subject=_identifier(claims, "sub"),
        client_id=_identifier(claims, profile.client_id_claim),
        scopes=_words(claims.get("scope", ""), scopes_max),
        token_sha256=hashlib.sha256(jti.encode()).hexdigest(),
        expires_unix=int(expires),
        attributes=_attributes(claims, profile),
        purposes=_purposes(claims.get(profile.purposes_claim, [])),
    )


def _refuse_claim() -> TokenRefused:
    return TokenRefused("token_claims", "a claim is missing or malformed")


def _check_audience(claims: Mapping[str, Any], profile: IssuerProfile) -> None:
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if profile.audience not in named:
        raise TokenRefused("token_audience", "the token is for another resource")


def _check_times(claims: Mapping[str, Any], profile: IssuerProfile, now: float) -> float:
    """Returns ``exp``."""
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if now >= expires + profile.leeway_s:
        raise TokenRefused("token_expired", "the token has expired")
    not_before = _seconds(claims, "nbf") if "nbf" in claims else issued
    if max(issued, not_before) > now + profile.leeway_s:
        raise TokenRefused("token_not_yet_valid", "the token is not valid yet")
    if expires - issued > profile.lifetime_max_s:
        raise TokenRefused("token_lifetime", "the token lives longer than is allowed here")
    return expires


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    # 2**53: beyond it a float is no longer exact to the second; no date needs it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise _refuse_claim()
    return value


def _identifier(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= identifier_chars_max or not _is_plain(value):
        raise _refuse_claim()
    return value


def _words(value: object, count_max: int) -> frozenset[str]:
    if not isinstance(value, str) or not _is_plain(value):
        raise _refuse_claim()
    words = value.split()
    if len(words) > count_max:
        raise _refuse_claim()
    return frozenset(words)


def _purposes(value: object) -> frozenset[str]:
    """A list of strings, or one string with spaces between them."""
    if isinstance(value, str):
        return _words(value, purposes_max)
    if not isinstance(value, list) or not all(isinstance(v, str) and _is_plain(v) for v in value):
        raise _refuse_claim()
    if len(value) > purposes_max:
        raise _refuse_claim()
    return frozenset(value)


def _attributes(claims: Mapping[str, Any], profile: IssuerProfile) -> dict[str, AttributeValue]:
    """A claim of the wrong type refuses the token: dropping it could lift a prohibition that asks for it."""
    attributes: dict[str, AttributeValue] = {}
    for attribute, claim in profile.attribute_claims.items():
        if claim not in claims:
            continue
        value: AttributeValue = claims[claim]
        if type(value) is not _PYTHON_TYPES[profile.attribute_types[attribute]]:  # bool is an int: the exact type
            raise _refuse_claim()
        if isinstance(value, str) and (len(value) > identifier_chars_max or not _is_plain(value)):
            raise _refuse_claim()
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _refuse_claim()
        attributes[attribute] = value
    return attributes


def _is_plain(value: str) -> bool:
    """No control characters, and no lone surrogates, which JSON can escape and no log can carry."""
    return value.isprintable()
