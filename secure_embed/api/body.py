"""Bodies of requests: bounded in size and time, and parsed strictly.

orjson refuses what the standard library lets pass: NaN, Infinity, lone surrogates, deep nesting (RFC 8259, RFC 7493).
"""

import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyLimits", "StrictRoute"]


class BodyLimits:
    """ASGI middleware: a body that is too large (413) or too slow (408) ends the reading, not the process."""

    def __init__(self, app: ASGIApp, *, bytes_max: int, seconds_max: float) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        ends = time.monotonic() + self._seconds_max
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            if not declared.isdigit() or int(declared) > self._bytes_max:
                raise HTTPException(413)
            with anyio.move_on_after(ends - time.monotonic()) as window:
                message = await receive()
            if window.cancelled_caught:
                raise HTTPException(408)
            seen += len(message.get("body", b""))
            if seen > self._bytes_max:
                raise HTTPException(413)
            return message

        await self._app(scope, bounded, send)


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return orjson.loads(await self.body())
        except orjson.JSONDecodeError as fault:
            # Neither the document nor what the parser says of it travels on: both carry the caller's text.
            raise json.JSONDecodeError("not JSON", "", fault.pos) from None


class StrictRoute(APIRoute):
    """Routes whose JSON bodies are read by orjson."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await inner(_StrictRequest(request.scope, request.receive))

        return handler


def lines(body: bytes) -> list[Any]:
    """The values of an NDJSON body, one a line; blank lines are passed over. Raises ``RequestValidationError``."""
    values = []
    for number, line in enumerate(body.split(b"\n")):
        if line.strip():
            try:
                values.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                raise RequestValidationError([{"type": "json_invalid", "loc": ("body", number), "msg": ""}]) from None
    return values
