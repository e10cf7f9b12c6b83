"""What a check found, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN_MAX = 50


def some(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


@dataclass(frozen=True)
class Finding:
    where: str  # entry | tile | bundle | checkpoint | journal | key | receipt | earlier | erasure-receipt
    what: str
    index: int | None = None  # the first entry concerned
    last: int | None = None  # the last one, where it cannot be told which of them

    def __str__(self) -> str:
        if self.index is None:
            return f"{self.where}: {self.what}"
        if self.last is not None and self.last != self.index:
            return f"{self.where} {self.index} to {self.last}: {self.what}"
        return f"{self.where} {self.index}: {self.what}"


@dataclass
class Report:
    keys: list[tuple[str, int, int]]  # verifier key, first entry it stands for, and the one behind its last
    origin: str
    size: int = 0
    root: str = ""
    journal_entries: int = 0
    first_time: str = ""
    last_time: str = ""
    events: dict[str, int] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def blame(self, where: str, what: str, index: int | None = None, last: int | None = None) -> None:
        self.findings.append(Finding(where, what, index, last))

    @property
    def intact(self) -> bool:
        return not self.findings

    @property
    def first_wrong_entry(self) -> int | None:
        return min((f.index for f in self.findings if f.where == "entry" and f.index is not None), default=None)

    def as_json(self) -> dict[str, object]:
        return {
            "result": "intact" if self.intact else "tampered",
            "origin": self.origin,
            "keys": [{"key": key, "first": first, "end": end} for key, first, end in self.keys],
            "size": self.size,
            "root": self.root,
            "journal_entries": self.journal_entries,
            "first_time": self.first_time,
            "last_time": self.last_time,
            "events": self.events,
            "decisions": self.decisions,
            "checked": self.checked,
            "notes": self.notes,
            "first_wrong_entry": self.first_wrong_entry,
            "wrong_entries": sorted({f.index for f in self.findings if f.where == "entry" and f.index is not None}),
            "findings": [{"where": f.where, "index": f.index, "last": f.last, "what": f.what} for f in self.findings],
        }

    def as_text(self) -> str:
        counts = ", ".join(f"{number:,} {phase}" for phase, number in sorted(self.events.items()))
        decided = ", ".join(f"{number:,} {decision}" for decision, number in sorted(self.decisions.items()))
        lines = [
            f"Log       {self.origin}",
            *(f"Key       {line}" for line in self._keys()),
            f"Entries   {self.size:,}"
            + (f", of them {self.journal_entries:,} in the journal" * bool(self.journal_entries)),
            f"Root      {self.root or 'unknown'}",
            f"Time      {self.first_time or '-'} to {self.last_time or '-'} (the host's clock)",
            f"Events    {counts or 'none'}",
            f"Outcomes  {decided or 'none'}",
        ]
        lines += [f"Checked   {line}" for line in self.checked]
        lines += [f"Note      {line}" for line in self.notes]
        lines += [f"WRONG     {finding}" for finding in self.findings[:SHOWN_MAX]]
        if len(self.findings) > SHOWN_MAX:
            lines.append(f"WRONG     and {len(self.findings) - SHOWN_MAX:,} more; --json lists all")
        lines.append(f"Result    {self._result()}")
        return "\n".join(lines)

    def _keys(self) -> list[str]:
        if len(self.keys) == 1:
            return [self.keys[0][0]]
        return [f"{key} for entries {first:,} to {end - 1:,}" for key, first, end in self.keys]

    def _result(self) -> str:
        if self.intact:
            return "INTACT. Every entry is the one that was signed. This does not show that everything was logged."
        first = self.first_wrong_entry
        place = "" if first is None else f" First wrong entry: {first}."
        return f"TAMPERED. {len(self.findings):,} finding{'s' * (len(self.findings) != 1)}.{place}"
