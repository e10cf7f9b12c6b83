"""An issuer's public keys: fetched or read, filtered, kept for a while, renewed when a key id is unknown.

Nothing in a token says where to look: the source comes from configuration alone, so ``jku``, ``x5u`` and ``jwk`` in
a token's header are never followed (RFC 8725 section 3.10). Source of the format: RFC 7517.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from secure_embed.access._json import parse_object
from secure_embed.errors import Unavailable

if TYPE_CHECKING:
    from joserfc.jwk import Key

__all__ = ["JwksCache"]

ttl_s = 300.0
retry_s = 5.0  # unknown key ids and failures ask the source at most this often
stale_s_max = 3_600.0  # how long an outage of the issuer is bridged with the last keys
timeout_s = 5.0
wait_s_max = 10.0  # for a fetch that another thread has begun
jwks_bytes_max = 64 * 1024
keys_max = 64
kid_chars_max = 256
rsa_bits_min = 2_048
rsa_bits_max = 8_192  # a verification's cost grows with it

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class _SourceError(Exception):
    """The source gave nothing that can be used; the caller bridges it or fails closed."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    keys: "Mapping[str, Key]"
    fetched: float  # monotonic seconds


class JwksCache:
    """Keys by id. Safe to call from several threads; does network IO, so never call it from an event loop."""

    def __init__(self, source: str | Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``source``: URL, already checked by the issuer's profile, or a file. Nothing is read yet."""
        self._source = source
        self._monotonic = monotonic
        self._snapshot: _Snapshot | None = None
        self._attempted: float | None = None
        self._fetching = Lock()

    def key(self, kid: str) -> "Key | None":
        """The key named ``kid``, or None when the issuer has none of that name.

        Raises ``Unavailable`` (``issuer_unavailable``) when no keys could be had, or the last ones are too old.
        """
        snapshot = self._snapshot
        if self._is_due(snapshot, kid):
            # Who can go on with the keys there are does not wait for a slow issuer; who cannot, waits.
            must_wait = snapshot is None or kid not in snapshot.keys or not self._is_usable(snapshot)
            if self._fetching.acquire(timeout=wait_s_max if must_wait else 0):
                try:
                    if self._is_due(self._snapshot, kid):
                        self._refresh()
                finally:
                    self._fetching.release()
            snapshot = self._snapshot
        if snapshot is None or not self._is_usable(snapshot):
            raise Unavailable("the issuer's keys cannot be had now", code="issuer_unavailable")
        return snapshot.keys.get(kid)

    def _is_due(self, snapshot: _Snapshot | None, kid: str) -> bool:
        now = self._monotonic()
        if self._attempted is not None and now - self._attempted < retry_s:
            return False
        return snapshot is None or kid not in snapshot.keys or now - snapshot.fetched >= ttl_s

    def _is_usable(self, snapshot: _Snapshot) -> bool:
        return self._monotonic() - snapshot.fetched <= stale_s_max

    def _refresh(self) -> None:
        try:
            raw = _fetch(self._source) if isinstance(self._source, str) else _read(self._source)
            self._snapshot = _Snapshot(_usable_keys(raw), self._monotonic())
        except _SourceError:
            pass  # the last keys serve until stale_s_max; key() fails closed after that
        finally:
            self._attempted = self._monotonic()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(jwks_bytes_max + 1)
    except OSError:
        raise _SourceError from None
    if len(raw) > jwks_bytes_max:
        raise _SourceError
    return raw


def _fetch(url: str) -> bytes:
    import ssl

    import httpx

    # The system's trust store, so that a private CA works; no proxy, netrc or certificate path from the environment.
    context = ssl.create_default_context()
    deadline = time.monotonic() + timeout_s
    raw = bytearray()
    try:
        with (
            httpx.Client(verify=context, follow_redirects=False, trust_env=False, timeout=timeout_s) as client,
            client.stream("GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise _SourceError
            for chunk in answer.iter_raw():
                raw += chunk
                if len(raw) > jwks_bytes_max or time.monotonic() > deadline:
                    raise _SourceError
    except (httpx.HTTPError, OSError):
        raise _SourceError from None
    return bytes(raw)


def _usable_keys(raw: bytes) -> "dict[str, Key]":
    """The keys that may verify tokens; the others are passed over (RFC 7517 section 5)."""
    try:
        members = parse_object(raw).get("keys")
    except ValueError:
        raise _SourceError from None
    if not isinstance(members, list) or len(members) > keys_max:
        raise _SourceError
    named = [m for m in members if isinstance(m, dict) and isinstance(m.get("kid"), str)]
    seen = Counter(m["kid"] for m in named)
    keys: dict[str, Key] = {}
    for member in named:
        kid = member["kid"]
        # Two keys under one id: which one signed cannot be told, so neither counts.
        if 0 < len(kid) <= kid_chars_max and seen[kid] == 1 and (key := _verification_key(member)) is not None:
            keys[kid] = key
    return keys


def _verification_key(member: "dict[str, object]") -> "Key | None":
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    operations = member.get("key_ops")
    kinds: dict[object, type[ECKey | OKPKey | RSAKey]] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}
    kind = kinds.get(member["kty"]) if isinstance(member.get("kty"), str) else None
    if (
        kind is None
        or _PRIVATE_MEMBERS & member.keys()
        or member.get("use", "sig") != "sig"
        or (operations is not None and not (isinstance(operations, list) and "verify" in operations))
    ):
        return None
    try:
        key = kind.import_key(member)  # type: ignore[arg-type]  # joserfc checks the members' types itself
        if isinstance(key, RSAKey) and not rsa_bits_min <= key.public_key.key_size <= rsa_bits_max:
            return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key
