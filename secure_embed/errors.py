"""One taxonomy of errors: a stable code, an HTTP status, an exit status and a message that is safe to show.

What may not be in here: the caller's input. No message, member or ``repr`` of these errors carries the text of a
record or query, an identifier, a key or a token; they travel into answers, logs and terminals. A wrong key, a moved
value and a damaged value give the same error (``sealed_value_unreadable``), so that a caller learns nothing from it.

    SecureEmbedError
    ├── InvalidRequest      4xx  what was asked is malformed, too large or contradictory
    ├── Unauthenticated     401  RFC 6750 section 3.1
    ├── Forbidden           403  scope, policy or risk refuses
    ├── NotFound            404  absent, or hidden from this caller: the two look the same
    ├── Conflict            409  the state does not allow it
    ├── Exhausted           429  a budget is used up
    ├── IntegrityFailure    500  a sealed value, a log or a file is not what was written
    ├── ConfigurationError  500  refused at start (exit status 78, EX_CONFIG of sysexits.h)
    └── Unavailable         503  try again later (exit status 75, EX_TEMPFAIL)
"""

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "AuditUnavailable",
    "ConfigurationError",
    "Conflict",
    "Exhausted",
    "Forbidden",
    "IntegrityFailure",
    "InvalidRequest",
    "NotFound",
    "SealedValueUnreadable",
    "SecureEmbedError",
    "Unauthenticated",
    "Unavailable",
]

Scalar = str | int | float | bool


class SecureEmbedError(Exception):
    """Base of everything this package raises on purpose.

    ``code`` is stable, lower_snake_case and documented in docs/errors.md; ``detail`` is one sentence that is safe to
    show; ``members`` are extension members of the problem details (RFC 9457 section 3.2), equally safe;
    ``challenge`` holds parameters for ``WWW-Authenticate`` where the status is 401 or 403.
    """

    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        members: Mapping[str, Scalar] | None = None,
        challenge: Mapping[str, str] | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.members = dict(members or {})
        self.challenge = dict(challenge or {})
        self.status = http_status or self.http_status
        self.receipt: str | None = None  # where the refusal stands in the log, once it does


class InvalidRequest(SecureEmbedError):
    http_status = 422
    exit_status = 2
    default_code = "invalid_request"


class Unauthenticated(SecureEmbedError):
    http_status = 401
    exit_status = 3
    default_code = "invalid_token"


class Forbidden(SecureEmbedError):
    http_status = 403
    exit_status = 3
    default_code = "policy_denied"


class NotFound(SecureEmbedError):
    http_status = 404
    exit_status = 4
    default_code = "not_found"


class Conflict(SecureEmbedError):
    http_status = 409
    exit_status = 5
    default_code = "conflict"


class Exhausted(SecureEmbedError):
    http_status = 429
    exit_status = 6
    default_code = "budget_exhausted"


class IntegrityFailure(SecureEmbedError):
    http_status = 500
    exit_status = 7
    default_code = "integrity_failure"


class SealedValueUnreadable(IntegrityFailure):
    """Wrong key, moved value or damaged value: one error for the three."""

    default_code = "sealed_value_unreadable"

    def __init__(self, place: str) -> None:
        """``place`` names where the value lies (a field, a file), never what it holds."""
        super().__init__(f"a sealed value could not be opened ({place})")


class ConfigurationError(SecureEmbedError):
    http_status = 500
    exit_status = 78
    default_code = "configuration_refused"


class Unavailable(SecureEmbedError):
    http_status = 503
    exit_status = 75
    default_code = "unavailable"


class AuditUnavailable(Unavailable):
    """The log cannot be written, so nothing is answered and nothing is changed."""

    default_code = "audit_unavailable"

    def __init__(self) -> None:
        super().__init__("the audit log cannot be written, so nothing is answered")
