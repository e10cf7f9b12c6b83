"""What the health listener says: whether callers would be served, what is still coming into memory, how full it is.

Numbers only: whoever reaches loopback reads them, without a token. No collection is named.
"""

import time
from collections.abc import Callable, Mapping
from threading import Lock

from secure_embed.collection import Holdings, Memory, Warming
from secure_embed.collection.figures import mib

__all__ = ["Readiness", "Said"]

Said = Mapping[str, str | int | Mapping[str, int | None] | None]
looked_every_s = 1.0  # a look asks the store about each collection


class Readiness:
    """Thread safe."""

    def __init__(self, unready: Callable[[], str | None], holdings: Holdings, warming: Warming) -> None:
        self._unready = unready
        self._holdings = holdings
        self._warming = warming
        self._lock = Lock()
        self._looked: tuple[float, Memory] | None = None

    def say(self) -> tuple[bool, Said]:
        """It is ready while collections are warmed: their callers wait, or are told when to come again."""
        why = self._unready()
        warmed, memory = self._warming.so_far, self._memory()
        budget = None if memory.budget is None else mib(memory.budget)
        return why is None, {
            "status": "unready" if why else "ready",
            "why": why,
            "warming": {
                "named": warmed.named,
                "left": warmed.left,
                "unknown": warmed.unknown,
                "refused": warmed.refused,
            },
            "building": {
                "collections": len(memory.building),
                "records_done": sum(each.done for each in memory.building),
                "records_total": sum(each.total for each in memory.building),
            },
            "memory": {
                "budget_mib": budget,
                "used_mib": mib(memory.used),
                "open": memory.open,
                "needed_mib": mib(memory.needed),
                "largest_mib": mib(memory.largest),
            },
        }

    def _memory(self) -> Memory:
        with self._lock:
            now = time.monotonic()
            if self._looked is None or now >= self._looked[0] + looked_every_s:
                self._looked = now, self._holdings.memory()
            return self._looked[1]
