"""What others hold of the log: receipts, checkpoints kept earlier, signed erasure receipts. Compared with what is there.

Who may have signed them is known only once the log is read, so they are opened after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from .keys import Chain
from .notes import Checkpoint, NoteInvalid, read_checkpoint, split_note
from .report import Report, some

KIND = "erasure-receipt"


@dataclass(frozen=True)
class Receipt:
    index: int
    leaf_hash: bytes
    name: str = "receipt"


@dataclass
class Questions:
    """What to check besides the log itself."""

    receipts: list[Receipt] = field(default_factory=list)
    earlier: list[str] = field(default_factory=list)  # signed checkpoints
    erasure_receipts: list[str] = field(default_factory=list)  # signed notes
    journal_required: bool = False


class Held:
    def __init__(self, questions: Questions, report: Report) -> None:
        self._questions = questions
        self._report = report
        named = (_named(note) for note in questions.erasure_receipts)
        self.receipts = [*questions.receipts, *(receipt for receipt in named if receipt is not None)]
        self.sizes = {c.size for note in questions.earlier if (c := _said(note)) is not None}

    def check(self, seen: Mapping[int, bytes], roots: Mapping[int, bytes], chain: Chain) -> None:
        """``seen``: leaf hashes of the entries that receipts name; ``roots``: by size, of earlier checkpoints."""
        receipts = list(self._questions.receipts)
        for note in self._questions.erasure_receipts:
            receipts += self._signed(note, chain)
        for receipt in receipts:
            if not 0 <= receipt.index < self._report.size:
                what = f"the log has {self._report.size:,} entries, and not this one"
                self._report.blame(receipt.name, what, receipt.index)
            elif seen.get(receipt.index) != receipt.leaf_hash:
                self._report.blame(receipt.name, "the log holds another entry there", receipt.index)
        if receipts:
            self._report.checked.append(some(len(receipts), "receipt"))
        for note in self._questions.earlier:
            self._check_earlier(note, roots, chain)
        if self.sizes:
            self._report.checked.append(some(len(self._questions.earlier), "earlier checkpoint"))

    def _signed(self, note: str, chain: Chain) -> list[Receipt]:
        """The entry that an erasure receipt names, where its signature holds."""
        named = _named(note)
        try:
            text, span = chain.open_statement(note, KIND)
            json.loads(text)
        except NoteInvalid as fault:
            self._report.blame(KIND, str(fault))
            return []
        except (ValueError, RecursionError):
            self._report.blame(KIND, "its text is not JSON")
            return []
        if span.end is not None and named is not None and named.index >= span.end:
            self._report.blame(KIND, f"its key was replaced at entry {span.end}, before the entry that it names")
            return []
        if span.end is not None and named is None:
            what = f"a key that was replaced at entry {span.end:,} signed an erasure receipt that names no entry"
            self._report.notes.append(f"{what}: it cannot be told when")
        self._report.checked.append(f"erasure receipt, signed: {text.strip()}")
        return [] if named is None else [named]

    def _check_earlier(self, note: str, roots: Mapping[int, bytes], chain: Chain) -> None:
        said = _said(note)
        size = self._report.size
        if said is not None and said.size > size:
            what = f"the log had {said.size:,} entries and has {size:,}: its end was cut off"
            self._report.blame("earlier", what)
            return
        try:
            checkpoint = chain.open_checkpoint(note)
        except NoteInvalid as fault:
            self._report.blame("earlier", f"an earlier checkpoint cannot be used: {fault}")
            return
        if checkpoint.size not in roots:
            self._report.blame("earlier", f"the log at {checkpoint.size:,} entries cannot be derived")
        elif roots[checkpoint.size] != checkpoint.root:
            self._report.blame("earlier", f"the first {checkpoint.size:,} entries are not those of that time")


def _said(note: str) -> Checkpoint | None:
    """Not verified: only where to look."""
    try:
        return read_checkpoint(split_note(note)[0])
    except NoteInvalid:
        return None


def _named(note: str) -> Receipt | None:
    """The entry that an erasure receipt names. Not verified: only where to look."""
    try:
        body = json.loads(split_note(note)[0].split("\n", 1)[1])
    except (NoteInvalid, ValueError, RecursionError):
        return None
    index, leaf = (body.get("log_index"), body.get("log_leaf_hash")) if isinstance(body, dict) else (None, None)
    if not isinstance(index, int) or not isinstance(leaf, str):
        return None
    try:
        return Receipt(index, bytes.fromhex(leaf), KIND)
    except ValueError:
        return Receipt(index, b"", KIND)
