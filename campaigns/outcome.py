"""What came of a damaged deployment. Pure: compares what it answered with what it has to answer.

An answer that differs is wrong unless it is an error that says so: a 5xx of the family "not as it was written", or a refusal of
the caller. That a record is not there, that a key was not used before, that a name is free: these are answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Kind", "Outcome", "Seen", "Touched", "judge"]


class Kind(StrEnum):
    AT_START = "refused at start"
    AT_TOUCH = "refused at first touch"
    BY_VERIFIER = "noticed by the auditors' verifier alone"
    HARMLESS = "harmless"
    TOOK_EFFECT = "the operator's own file, and it took effect"
    NOT_YET = "older state, not yet noticed"
    UNNAMED = "refused without a place"
    LEAKED = "an error carries content"
    FAULT = "fell over"
    WRONG = "wrong answer"


DEFECTS = frozenset({Kind.UNNAMED, Kind.LEAKED, Kind.FAULT, Kind.WRONG})


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: status, the problem's code or "", and a digest of what it says."""

    status: int
    code: str
    digest: str


@dataclass(frozen=True, slots=True)
class Touched:
    """What a deployment did when it was started and asked everything."""

    refused: str | None = None  # code of the error that ended the start
    fell: str | None = None  # what else ended it: an exception without a code, a signal, a time-out
    answers: Mapping[str, Seen] = field(default_factory=dict)
    findings: tuple[str, ...] = ()  # of the auditors' verifier
    leaked: bool = False
    details: tuple[str, ...] = ()  # code and sentence of each error, once


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: Kind
    what: str = ""


def judge(
    touched: Touched, right: Mapping[str, Seen], family: str, after: Mapping[str, tuple[str, ...]] | None = None
) -> Outcome:
    """``right``: the answers of the deployment as it was. ``family``: of the damage. ``after``: questions that others have
    to be answered rightly for, before an answer to them means something: a record that was refused is not there."""
    if touched.leaked:
        return Outcome(Kind.LEAKED)
    if touched.fell is not None:
        return Outcome(Kind.FAULT, touched.fell)
    if touched.refused is not None:
        return Outcome(Kind.AT_START, touched.refused)
    differing = {name: seen for name, seen in touched.answers.items() if seen != right[name]}
    differing = {n: s for n, s in differing.items() if not any(d in differing for d in (after or {}).get(n, ()))}
    wrong = sorted(name for name, seen in differing.items() if not _says_so(seen))
    if wrong:
        return _wrong(family, f"{len(wrong)} of {len(right)}, first: {wrong[0]}: {_shown(touched, wrong[0])}")
    codes = ",".join(sorted({seen.code for seen in differing.values()}))
    if any(seen.code == "internal_error" for seen in differing.values()):
        return Outcome(Kind.UNNAMED, codes)
    if differing:
        return Outcome(Kind.AT_TOUCH, codes)
    if touched.findings:
        kind = Kind.NOT_YET if family == "rollback" else Kind.BY_VERIFIER
        return Outcome(kind, touched.findings[0])
    return Outcome(Kind.NOT_YET if family == "rollback" else Kind.HARMLESS)


def _shown(touched: Touched, name: str) -> str:
    seen = touched.answers[name]
    return f"{seen.status} {seen.code}".strip()


def _wrong(family: str, what: str) -> Outcome:
    if family == "rollback":
        return Outcome(Kind.NOT_YET, what)
    return Outcome(Kind.TOOK_EFFECT if family == "settings" else Kind.WRONG, what)


def _says_so(seen: Seen) -> bool:
    return seen.status >= 500 or seen.status in {401, 403}


def seen_of(status: int, body: Any, digest: str) -> Seen:
    return Seen(status, str(body.get("code", "")) if status >= 400 and isinstance(body, dict) else "", digest)
