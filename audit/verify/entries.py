"""What a single entry must be, and how entries refer to each other (docs/log-format.md, "Leaves" and "Events")."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 16


class EntryInvalid(Exception):
    """The message says what is wrong."""


def _refuse(_: str) -> object:
    raise EntryInvalid("it holds a number that is not an integer")


def read_entry(entry: bytes) -> dict[str, object]:
    """The event in canonical JSON. Raises EntryInvalid."""
    try:
        value = json.loads(entry.decode(), parse_float=_refuse, parse_constant=_refuse)
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise EntryInvalid("it is not JSON in UTF-8") from None
    if canonical != entry or not isinstance(value, dict):
        raise EntryInvalid("it is not a JSON object in canonical form")
    _check_value(value, 0)
    return value


def _check_value(value: object, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise EntryInvalid("it is nested too deep")
    if isinstance(value, dict):
        if not all(name.isascii() for name in value):
            raise EntryInvalid("a member's name is not ASCII")
        for member in value.values():
            _check_value(member, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, depth + 1)
    elif value is None or (isinstance(value, int) and abs(value) > INTEGER_MAX):
        raise EntryInvalid("it holds a null or an integer that is too large")


@dataclass
class Story:
    """Follows the events from the first to the last. ``unknown`` entries were found wrong already: what refers to them
    is not blamed."""

    open_intents: dict[int, tuple[object, object]] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)
    phases: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    named_orphans: int = 0
    first_time: str = ""
    last_time: str = ""
    clock_backwards: list[int] = field(default_factory=list)
    handovers: list[tuple[int, object]] = field(default_factory=list)  # index, and the note that should be there
    pointers: list[tuple[int, object]] = field(default_factory=list)  # index, and what it says of the newest hand-over
    _last_ms: int = 0

    def skip(self, index: int) -> None:
        self.unknown.add(index)

    def peek(self, index: int, entry: bytes) -> None:
        """Of an entry that does not fit its tile: a hand-over still counts where it holds, since its signature says so."""
        try:
            event = read_entry(entry)
        except EntryInvalid:
            return
        if event.get("phase") == "SYSTEM" and event.get("action") == "log.key":
            self.handovers.append((index, event.get("handover")))

    def tell(self, index: int, entry: bytes) -> None:
        """Raises EntryInvalid for an entry that is no event, or does not fit those before it."""
        event = read_entry(entry)
        phase = event.get("phase")
        if event.get("v") != 1 or phase not in ("INTENT", "OUTCOME", "SYSTEM"):
            raise EntryInvalid("it is not an event of version 1")
        self.phases[str(phase)] += 1
        self._clock(index, event)
        if phase == "INTENT":
            self.open_intents[index] = (event.get("request"), event.get("action"))
        elif phase == "OUTCOME":
            self._outcome(index, event)
        else:
            self._system(index, event)

    def _clock(self, index: int, event: dict[str, object]) -> None:
        now, text = event.get("time_ms"), event.get("time")
        if not isinstance(now, int) or not isinstance(text, str):
            raise EntryInvalid("it has no time")
        if now < self._last_ms:
            self.clock_backwards.append(index)
        self.first_time = self.first_time or text
        self.last_time, self._last_ms = text, now

    def _outcome(self, index: int, event: dict[str, object]) -> None:
        self.decisions[str(event.get("decision"))] += 1
        intent = event.get("intent")
        if intent is None:
            if event.get("decision") == "allowed":
                raise EntryInvalid("it was allowed without an INTENT")
            return
        if not isinstance(intent, int) or isinstance(intent, bool) or not 0 <= intent < index:
            raise EntryInvalid("its INTENT is not an earlier entry")
        if intent in self.unknown:
            return
        known = self.open_intents.pop(intent, None)
        if known is None:
            raise EntryInvalid(f"entry {intent} is no INTENT that is still open")
        if known != (event.get("request"), event.get("action")):
            raise EntryInvalid(f"entry {intent} is the INTENT of another request or action")

    def _system(self, index: int, event: dict[str, object]) -> None:
        if event.get("action") in ("log.start", "log.stop", "log.key"):
            self.pointers.append((index, event.get("key_at")))
        if event.get("action") == "log.key":
            self.handovers.append((index, event.get("handover")))
        orphans = event.get("orphans", [])
        if not isinstance(orphans, list):
            raise EntryInvalid("its orphans are not a list")
        for orphan in orphans:
            if isinstance(orphan, int) and self.open_intents.pop(orphan, None) is not None:
                self.named_orphans += 1
