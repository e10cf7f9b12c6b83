"""From async to threads, bounded: the core is synchronous, and a queue without an end is a way to fall over."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio import CapacityLimiter

from secure_embed.errors import Unavailable

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")

waiting_factor_max = 16  # calls that may wait for each one that runs


class Threads:
    def __init__(self, concurrent_max: int) -> None:
        self._limiter = CapacityLimiter(concurrent_max)
        self._waiting_max = concurrent_max * waiting_factor_max

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work`` in a thread. Raises ``Unavailable`` (``overloaded``) when too many calls wait already.

        A caller that goes away does not cancel the work: a use case that has begun ends, so that nothing is half
        done and its OUTCOME is logged.
        """
        if self._limiter.statistics().tasks_waiting >= self._waiting_max:
            raise Unavailable("too many calls wait already", code="overloaded", members={"retry_after_s": 1})
        with anyio.CancelScope(shield=True):
            result = await anyio.to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)
        return result
