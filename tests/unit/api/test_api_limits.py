"""Bodies and threads are bounded: too slow, too large, too many each end in a clear error."""

import asyncio
import threading

import anyio
import pytest
from starlette.exceptions import HTTPException

from secure_embed.api.body import BodyLimits
from secure_embed.api.threads import Threads, waiting_factor_max
from secure_embed.errors import Unavailable


def read_through(limits_of, messages, headers=()):
    """Run an application that reads its body to the end behind the limits; gives the bytes, or raises the refusal."""
    seen = bytearray()

    async def application(scope, receive, send):
        while True:
            message = await receive()
            seen.extend(message.get("body", b""))
            if not message.get("more_body"):
                return

    async def main():
        incoming = iter(messages)

        async def receive():
            message = next(incoming)
            if message is None:
                await asyncio.sleep(60)
            return message

        await limits_of(application)({"type": "http", "headers": list(headers)}, receive, None)

    asyncio.run(main())
    return bytes(seen)


def chunk(size, more=True):
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def test_a_body_within_the_limits_passes():
    limits = lambda app: BodyLimits(app, bytes_max=100, seconds_max=5)  # noqa: E731
    assert read_through(limits, [chunk(60), chunk(40, more=False)]) == b"x" * 100


@pytest.mark.parametrize(
    ("messages", "headers", "status"),
    [
        ([chunk(101, more=False)], [], 413),
        ([chunk(60), chunk(41, more=False)], [], 413),
        ([chunk(1, more=False)], [(b"content-length", b"101")], 413),
        ([chunk(1, more=False)], [(b"content-length", b"-1")], 413),
        ([chunk(1), None], [], 408),
        ([None], [], 408),
    ],
)
def test_a_body_beyond_the_limits_is_refused(messages, headers, status):
    limits = lambda app: BodyLimits(app, bytes_max=100, seconds_max=0.2)  # noqa: E731
    with pytest.raises(HTTPException) as refused:
        read_through(limits, messages, headers)
    assert refused.value.status_code == status


def test_calls_beyond_the_queue_are_refused_and_the_others_finish():
    release = threading.Event()

    async def main():
        threads = Threads(1)
        running = [asyncio.create_task(threads.run(release.wait, 10)) for _ in range(1 + waiting_factor_max)]
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable) as refused:
            await threads.run(release.wait, 10)
        assert refused.value.code == "overloaded"
        release.set()
        return await asyncio.gather(*running)

    assert asyncio.run(main()) == [True] * (1 + waiting_factor_max)


def test_a_caller_that_goes_away_does_not_cancel_what_has_begun():
    """A use case ends with its OUTCOME in the log, whether or not anyone still listens (Starlette cancels by scopes)."""
    began, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        began.set()
        release.wait(10)
        ended.set()

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(Threads(1).run, work)
            await anyio.to_thread.run_sync(began.wait, 10)
            group.cancel_scope.cancel()
            release.set()

    anyio.run(main)
    assert ended.is_set()
