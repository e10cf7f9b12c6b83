"""Checks this program against the published test vectors, tests/vectors/log-*.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from .entries import EntryInvalid, Story, read_entry
from .folder import partial_tiles, place_of
from .journal import read_journal
from .keys import Chain, HandOverInvalid
from .merkle import Range, consistency_holds, inclusion_holds, leaf_hash
from .notes import Key, KeyInvalid, NoteInvalid, open_checkpoint, open_note, open_statement

Vector = Mapping[str, Any]  # a decoded JSON object


def _merkle(vector: Vector) -> str:
    if vector["check"] == "root":
        grown = Range()
        grown.extend(leaf_hash(bytes.fromhex(leaf)) for leaf in vector["leaves"])
        return "ok" if grown.root().hex() == vector["root"] else "another root"
    proof = [bytes.fromhex(h) for h in vector["proof"]]
    root = bytes.fromhex(vector["root"])
    if vector["check"] == "inclusion":
        holds = inclusion_holds(bytes.fromhex(vector["leaf_hash"]), vector["index"], vector["size"], proof, root)
    else:
        holds = consistency_holds(vector["old_size"], bytes.fromhex(vector["old_root"]), vector["size"], root, proof)
    return "ok" if holds else "proof_invalid"


def _note(vector: Vector) -> str:
    try:
        key = Key.parse(vector["vkey"])
        if vector["kind"] == "note":
            open_note(vector["note"], key)
        elif vector["kind"] == "checkpoint":
            open_checkpoint(vector["note"], key)
        else:
            open_statement(vector["note"], key, vector["kind"])
    except KeyInvalid:
        return "verifier_key_invalid"
    except NoteInvalid:
        return "note_invalid"
    return "ok"


def _tile(vector: Vector) -> str:
    if vector["check"] == "partial":
        there = [list(tile) for tile in partial_tiles(vector["size"])]
        return "ok" if there == vector["tiles"] else "other tiles"
    place = place_of(vector["path"])
    if place is None:
        return "tile_not_found"
    return "ok" if list(place) == vector.get("place") else "another place"


def _journal(vector: Vector) -> str:
    """What the service does: an invalid end is dropped, anything else is damage. For a log this program says more."""
    journal = read_journal(bytes.fromhex(vector["journal"]))
    whole = [frame for frame in journal.frames if frame.intact]
    if journal.damage or journal.frames[: len(whole)] != whole or any(a.end != b.first for a, b in pairwise(whole)):
        return "log_damaged"
    return "ok" if (whole[-1].end if whole else 0) == vector.get("entries") else "other entries"


def _event(vector: Vector) -> str:
    entry = bytes.fromhex(vector["entry"])
    if leaf_hash(entry).hex() != vector["leaf_hash"]:
        return "another leaf hash"
    try:
        read_entry(entry)
    except EntryInvalid:
        return "entry_invalid"
    return "ok"


def _keys(vector: Vector) -> str:
    """A whole small log: entries, its checkpoint, and the keys that are known from outside."""
    chain, grown, story = Chain([Key.parse(vkey) for vkey in vector["vkeys"]]), Range(), Story()
    try:
        for index, entry in enumerate(bytes.fromhex(entry) for entry in vector["entries"]):
            story.tell(index, entry)
            if [said for at, said in story.pointers if at == index] not in ([], [chain.newest_at]):
                return "log_key_mismatch"
            if story.handovers and story.handovers[-1][0] == index:
                chain.take(index, story.handovers[-1][1], grown.root())
            grown.extend([leaf_hash(entry)])
        if chain.missing():
            return "log_key_mismatch"
        said = chain.open_checkpoint(vector["checkpoint"])
    except HandOverInvalid:
        return "log_key_mismatch"
    except NoteInvalid:
        return "note_invalid"
    if (said.size, said.root) != (grown.size, grown.root()):
        return "another root"
    return "ok" if [[str(s.key), s.first, s.end] for s in chain.spans] == vector.get("keys") else "other keys"


_CHECKS: dict[str, Callable[[Vector], str]] = {
    "merkle": _merkle,
    "notes": _note,
    "tiles": _tile,
    "journal": _journal,
    "events": _event,
    "keys": _keys,
}


def check_vectors(folder: Path) -> tuple[list[str], int]:
    """What came out otherwise than expected, and how many vectors there were."""
    faults, count = [], 0
    for path in sorted(folder.glob("log-*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        check = _CHECKS[document["kind"]]
        for vector in document["vectors"]:
            count += 1
            outcome = check(vector)
            if outcome != vector["expect"]:
                faults.append(f"{path.name}: {vector['name']}: {outcome} instead of {vector['expect']}")
    return faults, count
