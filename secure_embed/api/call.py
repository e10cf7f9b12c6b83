"""From a request to a :class:`Call`: what is known of it before anyone is authenticated."""

from typing import cast
from uuid import uuid4

from fastapi import Request
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2

from secure_embed.api.threads import Threads
from secure_embed.deadline import Deadline
from secure_embed.types import Action
from secure_embed.vault import Call, Vault

__all__ = ["SCOPES", "bearer", "call_of", "threads_of", "vault_of"]

PURPOSE_HEADER = "Purpose-Of-Use"
purpose_characters_max = 64

SCOPES = {
    "collections:read": "list and describe collections",
    "collections:admin": "create and tune collections",
    "records:write": "ingest records",
    "records:read": "read a record's text and metadata",
    "records:erase": "erase records, data subjects and collections; legal holds",
    "query": "search",
    "vectors:export": "take vectors out; no other scope implies it, and no released profile allows it",
    "audit:read": "read the audit log",
    "keys:admin": "see and rotate keys, take backups",
}

# Says in the OpenAPI document what the vault enforces; nothing is decided by it.
bearer = OAuth2(
    flows=OAuthFlows(clientCredentials=OAuthFlowClientCredentials(tokenUrl="", scopes=SCOPES)), auto_error=False
)


def vault_of(request: Request) -> Vault:
    return cast("Vault", request.app.state.vault)


def threads_of(request: Request) -> Threads:
    return cast("Threads", request.app.state.threads)


def call_of(request: Request) -> Call:
    """One :class:`Call` for each request, however often it is asked for."""
    if not hasattr(request.state, "call"):
        request.state.call = Call(
            request=uuid4(),
            action=Action(request.scope["route"].name),
            authorization=tuple(request.headers.getlist("authorization")),
            purpose=request.headers.get(PURPOSE_HEADER, "")[:purpose_characters_max] or None,
            source=request.client.host if request.client else "",
            deadline=Deadline(request.app.state.query_seconds_max),
        )
    return cast("Call", request.state.call)
