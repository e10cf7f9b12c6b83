"""Reading the log, which is logged too."""

from typing import Any

import orjson

from secure_embed.audit import AuditLog, parse_tile_path
from secure_embed.trail import Call
from secure_embed.types import Action, Receipt
from secure_embed.vault.entrance import Entrance

__all__ = ["Logbook"]


class Logbook:
    def __init__(self, way: Entrance, log: AuditLog) -> None:
        self._way = way
        self._log = log

    def checkpoint(self, call: Call) -> tuple[str, Receipt]:
        """A checkpoint that covers this call too."""
        with self._way.begin(call, Action.AUDIT_READ) as trail:
            self._way.enter(trail, None)
            receipt = trail.done()
        return self._log.checkpoint(), receipt

    def tile(self, call: Call, path: str) -> tuple[bytes, Receipt]:
        """``path``: as C2SP tlog-tiles has it, behind ``tile/``."""
        with self._way.begin(call, Action.AUDIT_READ) as trail:
            self._way.enter(trail, None)
            level, index, width = parse_tile_path(path)
            content = self._log.bundle(index, width) if level is None else self._log.tile(level, index, width)
            return content, trail.done()

    def events(self, call: Call, start: int, count: int) -> tuple[list[Any], Receipt]:
        with self._way.begin(call, Action.AUDIT_READ) as trail:
            self._way.enter(trail, None)
            there = max(0, min(count, self._log.head().size - start))
            entries = [orjson.loads(entry) for entry in self._log.entries(start, there)] if there else []
            return entries, trail.done(results=len(entries))
