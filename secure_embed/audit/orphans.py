"""What the last run left: intents that never got an outcome, and where the newest hand-over of the signing key stands."""

from dataclasses import dataclass

from secure_embed.audit.events import Phase
from secure_embed.audit.handover import handover_of, parse_event
from secure_embed.audit.protocol import LogReader
from secure_embed.audit.tree import tile_width

__all__ = ["Unfinished", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What the last run left."""

    clean: bool  # it logged its own stop, or there was none
    orphans: tuple[int, ...]  # indexes of INTENTs, ascending
    key_at: int | None  # index of the newest hand-over


def unfinished(log: LogReader) -> Unfinished:
    """Read back to the last start or stop: what lies before, that start or stop has named."""
    size = end = log.head().size
    ended: set[int] = set()
    orphans: list[int] = []
    key_at: int | None = None
    while end > 0:
        start = (end - 1) // tile_width * tile_width
        for index, entry in reversed(list(enumerate(log.entries(start, end - start), start))):
            event = parse_event(entry)
            if event.get("phase") == Phase.SYSTEM and event.get("action") in ("log.start", "log.stop"):
                clean = event["action"] == "log.stop" and index == size - 1
                said = event.get("key_at")
                if key_at is None and isinstance(said, int):
                    key_at = said
                return Unfinished(clean=clean, orphans=tuple(sorted(orphans)), key_at=key_at)
            if key_at is None and handover_of(entry) is not None:
                key_at = index
            if event.get("phase") == Phase.INTENT and index not in ended:
                orphans.append(index)
            intent = event.get("intent")
            if isinstance(intent, int):
                ended.add(intent)
        end = start
    return Unfinished(clean=size == 0, orphans=tuple(sorted(orphans)), key_at=key_at)
