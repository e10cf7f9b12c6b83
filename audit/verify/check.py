"""The whole check of a log folder: checkpoint, published files, journal, receipts, earlier checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .entries import EntryInvalid, Story
from .folder import Folder
from .held import Held, Questions, Receipt
from .journal import Frame, Journal, read_journal
from .keys import Chain, HandOverInvalid
from .merkle import EMPTY_ROOT, Range, leaf_hash
from .notes import Checkpoint, Key, NoteInvalid, read_checkpoint, split_note
from .published import Published
from .report import Report, some

__all__ = ["LogCheck", "NotALog", "Questions", "Receipt"]


class NotALog(Exception):
    """There is nothing to check."""


class LogCheck:
    def __init__(self, root: Path, keys: Sequence[Key], questions: Questions) -> None:
        """``keys``: from outside, oldest first. The first is enough."""
        self._folder = Folder(root)
        self._chain = Chain(keys)
        self._questions = questions
        self._story = Story()
        self._report = Report(keys=[], origin=keys[0].name)
        self._held = Held(questions, self._report)
        self._seen: dict[int, bytes] = {}
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}  # at the sizes of earlier checkpoints
        self._handed_over = True  # every hand-over so far holds

    def run(self) -> Report:
        """Raises NotALog, and OSError for what cannot be read."""
        journal = self._read_journal()
        note = self._folder.read("checkpoint")
        if note is None and journal is None:
            raise NotALog("the folder holds neither a checkpoint nor a journal")
        frames = journal.frames if journal else []
        checkpoint = self._checkpoint(note, never_published=bool(frames) and frames[0].first == 0)
        wanted = {receipt.index for receipt in self._held.receipts}
        wanted |= {i for frame in frames if checkpoint and frame.first < checkpoint.size for i in _indexes(frame)}
        sizes = self._held.sizes
        published = Published(self._folder, self._report, self._story, wanted, sizes)
        grown: Range | None = Range()
        size = 0
        if checkpoint is not None and note is not None:
            grown, size = published.check(checkpoint), checkpoint.size
            self._seen = published.seen
            self._roots |= {s: r for s in sizes if (r := published.root_at(s)) is not None}
            for index, handover in self._story.handovers:
                self._hand_over(index, handover, published.root_at(index))
            self._check_signature("checkpoint", "", note.decode(errors="replace"))
        self._report.checked.append(f"entries published: {size:,}; their tiles, the checkpoint's signature and root")
        self._report.size = size
        if journal is not None:
            self._check_journal(journal, size, grown, sizes)
        elif self._questions.journal_required:
            self._report.blame("journal", "it is missing")
        self._held.check(self._seen, self._roots, self._chain)
        self._check_keys()
        self._finish(grown, checkpoint)
        return self._report

    def _read_journal(self) -> Journal | None:
        data = self._folder.read("journal")
        return None if data is None else read_journal(data)

    def _checkpoint(self, note: bytes | None, *, never_published: bool) -> Checkpoint | None:
        """What the checkpoint says, before it is known who may have signed it: the log says that, and where it is damaged
        this helps to locate the damage."""
        if note is None:
            if not never_published and (self._folder.root / "tile").exists():
                self._report.blame("checkpoint", "it is missing, so nothing below tile/ can be checked")
            return None
        try:
            return read_checkpoint(split_note(note.decode(errors="replace"))[0])
        except NoteInvalid as fault:
            self._report.blame("checkpoint", str(fault))
            return None

    # --- keys ------------------------------------------------------------------------------------------------------

    def _hand_over(self, index: int, note: object, root: bytes | None) -> None:
        try:
            self._chain.take(index, note, root)
        except HandOverInvalid as fault:
            self._handed_over = False
            if index not in self._story.unknown:  # otherwise its bytes are to blame
                self._report.blame("entry", str(fault), index)

    def _check_signature(self, where: str, which: str, note: str) -> Checkpoint | None:
        try:
            return self._chain.open_checkpoint(note)
        except NoteInvalid as fault:
            self._report.blame(where, f"{which}{fault}")
            return None

    def _check_keys(self) -> None:
        missing = self._chain.missing()
        if missing:
            what = f"the log hands over to {missing} of the given keys nowhere: an older state of it, or another log"
            self._report.blame("key", what)
        if self._handed_over:
            starts = [span.first for span in self._chain.spans[1:]]
            for index, said in self._story.pointers:
                newest = max((start for start in starts if start < index), default=None)
                if said != newest or isinstance(said, bool):
                    self._report.blame("entry", "it names another hand-over than the newest one before it", index)
        ends = (self._report.size if span.end is None else span.end for span in self._chain.spans)
        self._report.keys = [(str(s.key), s.first, end) for s, end in zip(self._chain.spans, ends, strict=True)]
        if len(self._chain.spans) > 1:
            self._report.checked.append(f"{some(len(self._chain.spans) - 1, 'hand-over')} from key to key, each signed")

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
            said = self._check_signature("journal", f"the checkpoint behind entry {frame.end - 1}: ", frame.note)
            if said is not None and said.size != frame.end:
                self._report.blame("journal", f"the checkpoint behind entry {frame.end - 1} is of size {said.size}")
        if journal.frames:
            self._report.checked.append(f"{some(len(journal.frames), 'commit')} in the journal, each signed")
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
        wanted = {receipt.index for receipt in self._held.receipts}
        for index, entry in zip(_indexes(frame), frame.entries, strict=True):
            if index in wanted:
                self._seen[index] = leaf_hash(entry)
        before = len(self._story.handovers)
        self._tell(frame, bad)
        handovers = dict(self._story.handovers[before:])
        if grown is not None:
            self._check_root(frame, grown, sizes, handovers)
        for index, note in handovers.items() if grown is None else ():
            self._hand_over(index, note, None)

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

    def _check_root(self, frame: Frame, grown: Range, sizes: set[int], handovers: dict[int, object]) -> None:
        try:
            said = read_checkpoint(split_note(frame.note)[0])
        except NoteInvalid:
            said = None
        there = [leaf_hash(entry) for entry in frame.entries]
        stored = grown.copy()
        stored.extend(frame.leaf_hashes)
        hashes = frame.leaf_hashes if said is not None and stored.root() == said.root else there
        for index, leaf in enumerate(hashes, start=frame.first):
            if index in handovers:
                self._hand_over(index, handovers[index], grown.root())
            grown.extend([leaf])
            if index + 1 in sizes:
                self._roots[index + 1] = grown.root()
        if said is not None and said.root != grown.root():
            self._report.blame(
                "entry", "the root that was signed for this commit is another", frame.first, frame.end - 1
            )

    def _finish(self, grown: Range | None, checkpoint: Checkpoint | None) -> None:
        report, story = self._report, self._story
        if grown is not None:
            report.root = grown.root().hex()
        report.first_time, report.last_time = story.first_time, story.last_time
        report.events, report.decisions = dict(story.phases), dict(story.decisions)
        if story.open_intents and report.intact:
            first = min(story.open_intents)
            many = some(len(story.open_intents), "INTENT")
            report.notes.append(f"{many} without an OUTCOME (first: entry {first}): cut off, or still running")
        if story.named_orphans:
            report.notes.append(f"{some(story.named_orphans, 'INTENT')} named by the service as cut off")
        if story.clock_backwards:
            report.notes.append(f"the clock went back before entry {story.clock_backwards[0]}")
        if checkpoint is not None:
            strangers = self._folder.strangers(checkpoint.size, report.size)
            if strangers:
                many = some(len(strangers), "file")
                report.notes.append(f"{many} under tile/ no part of this log, for example {strangers[0]!a}")


def _indexes(frame: Frame) -> range:
    return range(frame.first, frame.end)
