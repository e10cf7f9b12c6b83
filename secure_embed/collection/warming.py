"""Collections brought into memory at the start, one after the other, beside everything else.

A name that is not there stops nothing: its collection may have been erased since the settings were written. It is said
once and counted. What does not fit is left for its first caller; none that was warmed has to go for it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread

from secure_embed.collection.holdings import Holdings
from secure_embed.errors import NotFound, SecureEmbedError

__all__ = ["Warmed", "Warming"]

_logger = logging.getLogger(__name__)
_progress = logging.getLogger("secure_embed.progress")
join_s = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """How many of the named collections are still to come; are not there; did not fit or did not open."""

    named: int
    left: int
    unknown: int = 0
    refused: int = 0


class Warming:
    def __init__(self, holdings: Holdings, names: Sequence[str]) -> None:
        self._holdings = holdings
        self._names = tuple(dict.fromkeys(names))
        self._lock = Lock()
        self._so_far = Warmed(named=len(self._names), left=len(self._names))
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="warm-up", daemon=True)

    @property
    def so_far(self) -> Warmed:
        with self._lock:
            return self._so_far

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """No other is begun; what is on its way ends with its collection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(join_s)

    def _run(self) -> None:
        for name in self._names:
            if self._stopping.is_set():
                return
            unknown, refused = self._warm(name)
            with self._lock:
                now = self._so_far
                self._so_far = replace(
                    now, left=now.left - 1, unknown=now.unknown + unknown, refused=now.refused + refused
                )
        if self._names:
            _progress.info("warm-up has ended: %d of %d collections", self._came(), len(self._names))

    def _came(self) -> int:
        now = self.so_far
        return now.named - now.left - now.unknown - now.refused

    def _warm(self, name: str) -> tuple[int, int]:
        """Whether it is unknown, and whether it was refused."""
        try:
            if self._holdings.warm(name):
                return 0, 0
            _logger.warning("index.warm_up: %s does not fit into index.memory_mib_max beside those before it", name)
        except NotFound:
            _logger.warning("index.warm_up names %s, and there is no such collection", name)
            return 1, 0
        except SecureEmbedError as fault:
            if not self._stopping.is_set():
                _logger.warning("index.warm_up: %s did not come into memory: %s", name, fault.code)
        except Exception as fault:  # noqa: BLE001 - the others have to come
            _logger.error("index.warm_up: %s: %s", name, type(fault).__name__)
        return 0, 1
