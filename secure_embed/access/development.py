"""The development issuer: signs any token that is asked for, so that the service can be tried without a real one.

Not for production: the Authenticator refuses its profile unless development is allowed in so many words.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from secure_embed.access.profile import DEVELOPMENT_ISSUER, IssuerProfile
from secure_embed.errors import ConfigurationError

__all__ = ["DevelopmentIssuer"]

KEY_FILE = "signing-key.pem"
JWKS_FILE = "jwks.json"
README_FILE = "README.txt"

_README = """DEVELOPMENT ISSUER - NOT FOR PRODUCTION

Whoever can read signing-key.pem can mint an access token for any subject, scope and purpose.
secure_embed accepts these tokens only when it runs with --dev. Delete this folder when you are done.
"""

ClaimValue = str | int | bool | Sequence[str]


class DevelopmentIssuer:
    """An ES256 key in a folder. ``create`` makes one; the constructor opens what ``create`` made."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Raises ``ConfigurationError`` (``development_issuer_unreadable``)."""
        from joserfc.errors import JoseError
        from joserfc.jwk import ECKey

        self._folder = folder
        self._clock = clock
        try:
            self._key = ECKey.import_key((folder / KEY_FILE).read_bytes())
            self._kid = str(json.loads((folder / JWKS_FILE).read_bytes())["keys"][0]["kid"])
        except (OSError, ValueError, KeyError, IndexError, TypeError, JoseError):
            raise ConfigurationError(
                "the development issuer's folder cannot be read", code="development_issuer_unreadable"
            ) from None

    @classmethod
    def create(cls, folder: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Make the folder (0700), the key (0600), jwks.json and a README that says what this is.

        Raises ``ConfigurationError`` (``development_issuer_exists``) rather than replace a key.
        """
        from joserfc.jwk import ECKey

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ECKey.generate_key("P-256")
        kid = key.thumbprint()
        try:
            descriptor = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                "there is a development issuer in this folder already", code="development_issuer_exists"
            ) from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.as_pem(private=True))
        public = {**key.as_dict(private=False), "kid": kid, "use": "sig", "alg": "ES256"}
        (folder / JWKS_FILE).write_text(json.dumps({"keys": [public]}, indent=2) + "\n")
        (folder / README_FILE).write_text(_README)
        return cls(folder, clock=clock)

    def profile(self, audience: str) -> IssuerProfile:
        """``audience``: the deployment's resource identifier."""
        return IssuerProfile(
            issuer=DEVELOPMENT_ISSUER,
            audience=audience,
            jwks=self._folder / JWKS_FILE,
            algorithms=("ES256",),
            development=True,
        )

    def mint(
        self,
        *,
        subject: str,
        client_id: str,
        scopes: Iterable[str],
        audience: str,
        lifetime_s: int = 600,
        claims: Mapping[str, ClaimValue] | None = None,
    ) -> str:
        """An ``at+jwt`` with every claim of RFC 9068 section 2.2. ``claims`` adds department, clearance, purposes.

        A negative lifetime gives a token that has expired, for showing how that is refused. ``claims`` cannot
        replace the claims that the other parameters set.
        """
        from joserfc import jwt

        now = int(self._clock())
        payload: dict[str, ClaimValue] = {
            **(claims or {}),
            "iss": DEVELOPMENT_ISSUER,
            "sub": subject,
            "client_id": client_id,
            "aud": audience,
            "scope": " ".join(sorted(scopes)),
            "iat": now + min(lifetime_s, 0),
            "exp": now + lifetime_s,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode({"typ": "at+jwt", "alg": "ES256", "kid": self._kid}, payload, self._key)
