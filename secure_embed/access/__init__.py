"""access/: who calls, and what they may do.

An access token becomes a :class:`Principal` (RFC 9068), its scopes open doors, and Cedar policies decide what is
behind them for this principal, collection, purpose and record. What may not be in here: sealed values, vectors, the
log, HTTP. Heavy libraries (cedarpy, joserfc, httpx) load when they are used.
"""

from secure_embed.access._jwks import JwksCache
from secure_embed.access.authenticator import REALM, Authenticator
from secure_embed.access.authorizer import PURPOSE, Authorizer
from secure_embed.access.development import DevelopmentIssuer
from secure_embed.access.profile import ALGORITHMS, DEVELOPMENT_ISSUER, IssuerProfile
from secure_embed.access.scopes import SCOPES, require_scope, required_scope

__all__ = [
    "ALGORITHMS",
    "DEVELOPMENT_ISSUER",
    "PURPOSE",
    "REALM",
    "SCOPES",
    "Authenticator",
    "Authorizer",
    "DevelopmentIssuer",
    "IssuerProfile",
    "JwksCache",
    "require_scope",
    "required_scope",
]
