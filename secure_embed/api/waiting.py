"""Notices that a caller has gone away while its query is worked on."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from starlette.exceptions import HTTPException

from secure_embed.deadline import Deadline

__all__ = ["while_awaited"]

_logger = logging.getLogger(__name__)


@asynccontextmanager
async def while_awaited(request: Request, deadline: Deadline) -> AsyncIterator[None]:
    """Within the block: once the connection is closed, ``deadline`` is abandoned. The request's body has been read."""
    watch = asyncio.create_task(_watch(request, deadline))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        if not watch.cancelled() and watch.exception() is not None:
            _logger.warning("it could not be seen whether a caller still waits")


async def _watch(request: Request, deadline: Deadline) -> None:
    with suppress(HTTPException):  # the body's own limits end the wait for more of it
        # After the body nothing else can come (ASGI's HTTP specification, "Disconnect - receive event").
        if (await request.receive())["type"] == "http.disconnect":
            deadline.abandon()
