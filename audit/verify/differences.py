"""Which entries of a bundle are wrong, and in what way, once it is known which hashes are right."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher


def differences(right: Sequence[bytes], there: Sequence[bytes], first: int) -> list[tuple[int, str]]:
    """(index, what is wrong) for each entry that is not what ``right`` says; ``first`` is the index of right[0]."""
    found: list[tuple[int, str]] = []
    here = {h: first + i for i, h in enumerate(there)}
    home = {h: first + i for i, h in enumerate(right)}
    for tag, a, b, c, d in SequenceMatcher(None, right, there, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        paired = min(b - a, d - c)
        found += [(first + a + i, _changed(right[a + i], there[c + i], here, home)) for i in range(paired)]
        for i in range(a + paired, b):
            moved = here.get(right[i])
            found.append(
                (first + i, "it is missing" if moved is None else f"it was moved to the place of entry {moved}")
            )
        for i in range(c + paired, d):
            moved = home.get(there[i])
            what = "something was put before it" if moved is None else f"entry {moved} was put before it"
            found.append((min(first + b, first + len(right) - 1), what))
    return found


def _changed(was: bytes, now: bytes, here: dict[bytes, int], home: dict[bytes, int]) -> str:
    if now in home:
        return f"entry {home[now]} was put in its place"
    if was in here:
        return f"something else is in its place; it was moved to the place of entry {here[was]}"
    return "its bytes are not those that were logged"
