"""Intents that never got an outcome: what a crash cut off between permission and answer."""

from dataclasses import dataclass

import orjson

from secure_embed.audit.events import Phase
from secure_embed.audit.protocol import LogReader
from secure_embed.audit.tree import tile_width
from secure_embed.errors import IntegrityFailure

__all__ = ["Unfinished", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What the last run left."""

    clean: bool  # it logged its own stop, or there was none
    orphans: tuple[int, ...]  # indexes of INTENTs, ascending


def unfinished(log: LogReader) -> Unfinished:
    """Read back to the last start or stop: what lies before, that start or stop has named."""
    end = log.head().size
    ended: set[int] = set()
    orphans: list[int] = []
    while end > 0:
        start = (end - 1) // tile_width * tile_width
        for offset, entry in reversed(list(enumerate(log.entries(start, end - start)))):
            event = _parse(entry)
            if event.get("phase") == Phase.SYSTEM and event.get("action") in ("log.start", "log.stop"):
                clean = event["action"] == "log.stop" and start + offset == log.head().size - 1
                return Unfinished(clean=clean, orphans=tuple(sorted(orphans)))
            if event.get("phase") == Phase.INTENT and start + offset not in ended:
                orphans.append(start + offset)
            intent = event.get("intent")
            if isinstance(intent, int):
                ended.add(intent)
        end = start
    return Unfinished(clean=log.head().size == 0, orphans=tuple(sorted(orphans)))


def _parse(entry: bytes) -> dict[str, object]:
    try:
        event = orjson.loads(entry)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise IntegrityFailure("the log is damaged: an entry is no event", code="log_damaged")
    return event
