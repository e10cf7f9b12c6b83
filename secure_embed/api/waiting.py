"""Notices that a caller has gone away while its query is worked on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from starlette.exceptions import HTTPException

from secure_embed.deadline import Deadline

__all__ = ["while_awaited"]


@asynccontextmanager
async def while_awaited(request: Request, deadline: Deadline) -> AsyncIterator[None]:
    """Within the block: once the connection is closed, ``deadline`` is abandoned. The request's body has been read."""
    watch = asyncio.create_task(_watch(request, deadline))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(request: Request, deadline: Deadline) -> None:
    with suppress(HTTPException):  # the body's own limits end the wait for more of it
        while (await request.receive())["type"] != "http.disconnect":
            pass
        deadline.abandon()
