"""Every error as problem details (RFC 9457), logged before it is answered.

FastAPI's own handlers echo the caller's input; these do not. What a validator says is reduced to where (names of our
own models only) and which rule.
"""

from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from secure_embed.api.call import call_of, threads_of, vault_of
from secure_embed.errors import InvalidRequest, SecureEmbedError

__all__ = ["install", "problem"]

PROBLEM_JSON = "application/problem+json"
errors_shown_max = 8

_HTTP = {
    404: ("path_unknown", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not answer that method"),
    408: ("request_too_slow", "the request's body did not arrive in time"),
    413: ("request_too_large", "the request's body is larger than this service reads"),
}


def problem(error: SecureEmbedError) -> Response:
    """The answer for ``error``: type, title, status, detail, code, extension members; RFC 6750 challenge at 401, 403."""
    body: dict[str, Any] = {
        "type": f"urn:secure-embed:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.members,
    }
    headers = {"Cache-Control": "no-store"}
    if error.receipt:
        headers["Audit-Receipt"] = error.receipt
    if error.status == 401 or (error.status == 403 and error.challenge):
        parameters = ", ".join(f'{name}="{value}"' for name, value in error.challenge.items())
        headers["WWW-Authenticate"] = f"Bearer {parameters}".rstrip()
    if "retry_after_s" in error.members:
        headers["Retry-After"] = str(error.members["retry_after_s"])
    return Response(orjson.dumps(body), error.status, headers, media_type=PROBLEM_JSON)


def install(app: FastAPI, *, field_names: frozenset[str]) -> None:
    """``field_names``: names that may be said of a malformed body; all others are the caller's own text."""

    async def refuse(request: Request, error: SecureEmbedError) -> Response:
        """Log a refusal that no use case has seen, then answer it. An unknown caller gets 401 for it."""
        if error.receipt is None and request.scope.get("route") is not None:
            try:
                await threads_of(request).run(vault_of(request).refuse, call_of(request), error)
            except SecureEmbedError as logged:
                error = logged
        return problem(error)

    async def on_ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, SecureEmbedError)
        return await refuse(request, error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await refuse(request, _invalid(error.errors(), field_names))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code, detail = _HTTP.get(error.status_code, ("request_refused", "the request cannot be read"))
        return await refuse(request, InvalidRequest(detail, code=code, http_status=error.status_code))

    async def on_anything(request: Request, error: Exception) -> Response:  # noqa: ARG001 - its text may carry data
        return problem(SecureEmbedError("something went wrong here; the log has the request"))

    app.add_exception_handler(SecureEmbedError, on_ours)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_anything)


def _invalid(faults: Iterable[Any], field_names: frozenset[str]) -> InvalidRequest:
    listed = list(faults)
    if any(fault["type"] == "json_invalid" for fault in listed):
        return InvalidRequest(
            "the body is not JSON as RFC 8259 and RFC 7493 have it", code="malformed_json", http_status=400
        )
    shown = "; ".join(f"{_place(fault['loc'], field_names)}: {fault['type']}" for fault in listed[:errors_shown_max])
    return InvalidRequest("the request does not have the shape that this path asks for", members={"errors": shown})


def _place(loc: Iterable[str | int], field_names: frozenset[str]) -> str:
    return ".".join(str(part) if isinstance(part, int) or part in field_names else "*" for part in loc)
