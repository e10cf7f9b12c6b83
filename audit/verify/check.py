"""The whole check of a log folder: checkpoint, published files, journal, receipts, earlier checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .entries import EntryInvalid, Story
from .folder import Folder
from .journal import Frame, Journal, read_journal
from .merkle import EMPTY_ROOT, Range, leaf_hash
from .notes import Checkpoint, Key, NoteInvalid, open_checkpoint, open_statement, read_checkpoint, split_note
from .published import Published
from .report import Report


class NotALog(Exception):
    """There is nothing to check."""


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


class LogCheck:
    def __init__(self, root: Path, key: Key, vkey: str, questions: Questions) -> None:
        self._folder = Folder(root)
        self._key = key
        self._questions = questions
        self._story = Story()
        self._report = Report(key=vkey, origin=key.name)
        self._receipts = list(questions.receipts)
        self._seen: dict[int, bytes] = {}
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}  # at the sizes of earlier checkpoints

    def run(self) -> Report:
        """Raises NotALog, and OSError for what cannot be read."""
        journal = self._read_journal()
        note = self._folder.read("checkpoint")
        if note is None and journal is None:
            raise NotALog("the folder holds neither a checkpoint nor a journal")
        self._read_erasure_receipts()
        earlier = self._read_earlier()
        frames = journal.frames if journal else []
        checkpoint = self._checkpoint(note, never_published=bool(frames) and frames[0].first == 0)
        wanted = {receipt.index for receipt in self._receipts}
        wanted |= {i for frame in frames if checkpoint and frame.first < checkpoint.size for i in _indexes(frame)}
        sizes = {c.size for c in earlier}
        published = Published(self._folder, self._report, self._story, wanted, sizes)
        grown: Range | None = Range()
        size = 0
        if checkpoint is not None:
            grown, size = published.check(checkpoint), checkpoint.size
            self._seen = published.seen
            self._roots |= {s: r for s in sizes if (r := published.root_at(s)) is not None}
        self._report.checked.append(f"entries published: {size:,}; their tiles, the checkpoint's signature and root")
        self._report.size = size
        if journal is not None:
            self._check_journal(journal, size, grown, sizes)
        elif self._questions.journal_required:
            self._report.blame("journal", "it is missing")
        self._check_receipts()
        self._check_earlier(earlier)
        self._finish(grown, checkpoint)
        return self._report

    def _read_journal(self) -> Journal | None:
        data = self._folder.read("journal")
        return None if data is None else read_journal(data)

    def _checkpoint(self, note: bytes | None, *, never_published: bool) -> Checkpoint | None:
        """What the checkpoint says, even where it is not to be trusted: then it still helps to locate the damage."""
        if note is None:
            if not never_published and (self._folder.root / "tile").exists():
                self._report.blame("checkpoint", "it is missing, so nothing below tile/ can be checked")
            return None
        text = note.decode(errors="replace")
        try:
            return open_checkpoint(text, self._key)
        except NoteInvalid as fault:
            self._report.blame("checkpoint", str(fault))
        try:
            return read_checkpoint(split_note(text)[0])
        except NoteInvalid:
            return None

    def _read_erasure_receipts(self) -> None:
        for note in self._questions.erasure_receipts:
            try:
                text = open_statement(note, self._key, "erasure-receipt")
                body = json.loads(text)
            except NoteInvalid as fault:
                self._report.blame("erasure-receipt", str(fault))
                continue
            except (ValueError, RecursionError):
                self._report.blame("erasure-receipt", "its text is not JSON")
                continue
            self._report.checked.append(f"erasure receipt, signed: {text.strip()}")
            index, leaf = (body.get("log_index"), body.get("log_leaf_hash")) if isinstance(body, dict) else (None, None)
            if isinstance(index, int) and isinstance(leaf, str):
                self._receipts.append(Receipt(index, _hex(leaf), "erasure-receipt"))

    def _read_earlier(self) -> list[Checkpoint]:
        found = []
        for note in self._questions.earlier:
            try:
                found.append(open_checkpoint(note, self._key))
            except NoteInvalid as fault:
                self._report.blame("earlier", f"an earlier checkpoint cannot be used: {fault}")
        return found

    # --- journal ---------------------------------------------------------------------------------------------------

    def _check_journal(self, journal: Journal, published: int, grown: Range | None, sizes: set[int]) -> None:
        self._describe_damage(journal)
        at = published
        for frame in journal.frames:
            bad = self._check_frame(frame)
            if frame.end <= published:
                self._compare_published(frame)
            elif frame.first != at:
                self._report.blame("journal", f"a commit begins at entry {frame.first}, not at {at}")
            else:
                self._append(frame, bad, grown, sizes)
                at = frame.end
        if journal.frames:
            self._report.checked.append(f"{_some(len(journal.frames), 'commit')} in the journal, each signed")
        self._report.size, self._report.journal_entries = at, at - published

    def _describe_damage(self, journal: Journal) -> None:
        for damage in journal.damage:
            self._report.blame("journal", damage)
        if journal.unknown_end:
            self._report.blame("journal", f"its last {journal.unknown_end:,} bytes are no frame")
        if journal.torn:
            self._report.notes.append(
                f"the journal ends in an unfinished write of {journal.torn:,} bytes; it was never acknowledged"
            )

    def _append(self, frame: Frame, bad: set[int], grown: Range | None, sizes: set[int]) -> None:
        wanted = {receipt.index for receipt in self._receipts}
        for index, entry in zip(_indexes(frame), frame.entries, strict=True):
            if index in wanted:
                self._seen[index] = leaf_hash(entry)
        self._tell(frame, bad)
        if grown is not None:
            self._check_root(frame, grown, sizes)

    def _check_frame(self, frame: Frame) -> set[int]:
        """Indexes of entries that do not fit their leaf hashes."""
        bad = {
            i for i, e, h in zip(_indexes(frame), frame.entries, frame.leaf_hashes, strict=True) if leaf_hash(e) != h
        }
        for index in sorted(bad):
            self._report.blame("entry", "in the journal, its bytes do not fit its leaf hash", index)
        if not frame.intact and not bad:
            self._report.blame(
                "journal", f"the commit of entries {frame.first} to {frame.end - 1} has a wrong checksum"
            )
        try:
            said = open_checkpoint(frame.note, self._key)
            if said.size != frame.end:
                self._report.blame("journal", f"the checkpoint behind entry {frame.end - 1} is of size {said.size}")
        except NoteInvalid as fault:
            self._report.blame("journal", f"the checkpoint behind entry {frame.end - 1}: {fault}")
        return bad

    def _compare_published(self, frame: Frame) -> None:
        for index, entry in zip(_indexes(frame), frame.entries, strict=True):
            if index in self._seen and self._seen[index] != leaf_hash(entry):
                self._report.blame("entry", "the journal and the bundle do not hold the same", index)

    def _tell(self, frame: Frame, bad: set[int]) -> None:
        for index, entry in zip(_indexes(frame), frame.entries, strict=True):
            if index in bad:
                self._story.skip(index)
                continue
            try:
                self._story.tell(index, entry)
            except EntryInvalid as fault:
                self._story.skip(index)
                self._report.blame("entry", str(fault), index)

    def _check_root(self, frame: Frame, grown: Range, sizes: set[int]) -> None:
        try:
            said = read_checkpoint(split_note(frame.note)[0])
        except NoteInvalid:
            said = None
        there = [leaf_hash(entry) for entry in frame.entries]
        stored = grown.copy()
        stored.extend(frame.leaf_hashes)
        hashes = frame.leaf_hashes if said is not None and stored.root() == said.root else there
        for offset, leaf in enumerate(hashes, start=1):
            grown.extend([leaf])
            if frame.first + offset in sizes:
                self._roots[frame.first + offset] = grown.root()
        if said is not None and said.root != grown.root():
            self._report.blame(
                "entry", "the root that was signed for this commit is another", frame.first, frame.end - 1
            )

    # --- what others hold ------------------------------------------------------------------------------------------

    def _check_receipts(self) -> None:
        for receipt in self._receipts:
            if not 0 <= receipt.index < self._report.size:
                what = f"the log has {self._report.size:,} entries, and not this one"
                self._report.blame(receipt.name, what, receipt.index)
            elif self._seen.get(receipt.index) != receipt.leaf_hash:
                self._report.blame(receipt.name, "the log holds another entry there", receipt.index)
        if self._receipts:
            self._report.checked.append(_some(len(self._receipts), "receipt"))

    def _check_earlier(self, earlier: Sequence[Checkpoint]) -> None:
        for checkpoint in earlier:
            if checkpoint.size > self._report.size:
                what = f"the log had {checkpoint.size:,} entries and has {self._report.size:,}: its end was cut off"
                self._report.blame("earlier", what)
            elif checkpoint.size not in self._roots:
                self._report.blame("earlier", f"the log at {checkpoint.size:,} entries cannot be derived")
            elif self._roots[checkpoint.size] != checkpoint.root:
                self._report.blame("earlier", f"the first {checkpoint.size:,} entries are not those of that time")
        if earlier:
            self._report.checked.append(_some(len(earlier), "earlier checkpoint"))

    def _finish(self, grown: Range | None, checkpoint: Checkpoint | None) -> None:
        report, story = self._report, self._story
        if grown is not None:
            report.root = grown.root().hex()
        report.first_time, report.last_time = story.first_time, story.last_time
        report.events, report.decisions = dict(story.phases), dict(story.decisions)
        if story.open_intents and report.intact:
            first = min(story.open_intents)
            many = _some(len(story.open_intents), "INTENT")
            report.notes.append(f"{many} without an OUTCOME (first: entry {first}): cut off, or still running")
        if story.named_orphans:
            report.notes.append(f"{_some(story.named_orphans, 'INTENT')} named by the service as cut off")
        if story.clock_backwards:
            report.notes.append(f"the clock went back before entry {story.clock_backwards[0]}")
        if checkpoint is not None:
            strangers = self._folder.strangers(checkpoint.size, report.size)
            if strangers:
                many = _some(len(strangers), "file")
                report.notes.append(f"{many} under tile/ no part of this log, for example {strangers[0]!a}")


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def _indexes(frame: Frame) -> range:
    return range(frame.first, frame.end)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
