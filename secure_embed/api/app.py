"""The application: routes, limits and problem details around one vault."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig

from secure_embed import __version__
from secure_embed.api import custody, log_routes, models, privacy_routes, problems, routes, tuning_routes
from secure_embed.api.body import BodyLimits
from secure_embed.api.call import SCOPES
from secure_embed.api.threads import Threads
from secure_embed.settings import LimitSettings
from secure_embed.vault import Vault

__all__ = ["create_app"]

# FastAPI's own instruments record validation failures with the caller's input in them: all off.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}

_DESCRIPTION = """Sealed embeddings, searched under OAuth scopes and Cedar policies; every call is in the audit log.

Errors are problem details (RFC 9457) with a stable `code`. Each answer carries its receipt from the log."""


def create_app(vault: Vault, limits: LimitSettings, *, resource: str, issuers: tuple[str, ...]) -> FastAPI:
    """``resource``: our resource identifier (RFC 8707); ``issuers``: whose access tokens we take."""
    app = FastAPI(
        title="secure_embed",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # the pages load scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
        responses={"default": {"model": models.ProblemAnswer, "content": {problems.PROBLEM_JSON: {}}}},
    )
    app.state.vault = vault
    app.state.threads = Threads(limits.concurrent_calls_max)
    app.state.query_seconds_max = limits.query_seconds_max
    app.include_router(routes.router)
    app.include_router(privacy_routes.router)
    app.include_router(log_routes.router)
    app.include_router(custody.router)
    app.include_router(tuning_routes.router)
    ours = models.field_names() | custody.FIELD_NAMES | tuning_routes.FIELD_NAMES
    problems.install(app, field_names=ours)
    app.add_middleware(BodyLimits, bytes_max=limits.request_bytes_max, seconds_max=limits.request_seconds_max)

    @app.get("/.well-known/oauth-protected-resource", include_in_schema=False)
    async def protected_resource() -> dict[str, Any]:
        """RFC 9728 section 2: how a client finds out whose token to bring."""
        return {
            "resource": resource,
            "authorization_servers": list(issuers),
            "scopes_supported": sorted(SCOPES),
            "bearer_methods_supported": ["header"],
            "resource_name": "secure_embed",
        }

    @app.middleware("http")
    async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the body of an ingest, which two media types can carry."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schema = models.IngestRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document["components"]["schemas"]
        schemas.update(schema.pop("$defs"))
        schemas["IngestRequest"] = schema
        app.openapi_schema = document
    return app.openapi_schema
