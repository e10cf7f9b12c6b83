"""OAuth scopes: which one opens the door to an action. What lies behind the door is policy's affair.

A scope is a coarse verb; there is none for a single collection or record. ``vectors:export`` is implied by nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType

from secure_embed.errors import Forbidden
from secure_embed.types import Action, Principal

__all__ = ["SCOPES", "require_scope", "required_scope"]

SCOPES = frozenset(
    {
        "audit:read",
        "collections:admin",
        "collections:read",
        "embeddings:create",
        "keys:admin",
        "query",
        "records:erase",
        "records:read",
        "records:write",
        "vectors:export",
    }
)

_REQUIRED: Mapping[Action, str] = MappingProxyType(
    {
        Action.COLLECTION_CREATE: "collections:admin",
        Action.COLLECTION_LIST: "collections:read",
        Action.COLLECTION_READ: "collections:read",
        Action.COLLECTION_ERASE: "records:erase",
        Action.COLLECTION_TUNE: "collections:admin",
        Action.RECORD_INGEST: "records:write",
        Action.RECORD_READ: "records:read",
        Action.RECORD_ERASE: "records:erase",
        Action.QUERY: "query",
        Action.VECTORS_EXPORT: "vectors:export",
        Action.AUDIT_READ: "audit:read",
        Action.HOLD_PLACE: "records:erase",
        Action.HOLD_RELEASE: "records:erase",
        Action.HOLD_LIST: "records:erase",
        Action.KEYS_READ: "keys:admin",
        Action.KEYS_ROTATE: "keys:admin",
        Action.BACKUP_CREATE: "keys:admin",
    }
)


def required_scope(action: Action) -> str:
    """The one scope that ``action`` needs."""
    return _REQUIRED[action]


def require_scope(principal: Principal, action: Action) -> None:
    """Raise ``Forbidden`` (``insufficient_scope``, RFC 6750 section 3.1) unless the token carries the scope."""
    scope = required_scope(action)
    if scope not in principal.scopes:
        raise Forbidden(
            "the access token lacks the scope that this needs",
            code="insufficient_scope",
            members={"required_scope": scope},
            challenge={"error": "insufficient_scope", "scope": scope},
        )
