"""Which showings may leave: pure judgement over what the counters say. No IO, no clock.

Two counters judge each answer, the principal's and its client's; a record leaves as far as both let it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from secure_embed.risk.protocol import Allowance, Verdict

__all__ = ["Limits", "Standing", "Usage", "judge", "limits_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """An allowance as one counter applies it; None: no limit."""

    queries_day: int | None
    distinct_day: int | None
    distinct_30_days: int | None
    exposures_scored: int | None
    exposures_total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Distinct records that one counter has shown, each window rolling."""

    distinct_day: int
    distinct_30_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one counter knows of one record and the query at hand."""

    seen_day: bool
    seen_30_days: bool
    exposures: int  # distinct queries that showed the record, 30 days rolling
    scored: int  # of these, with its score
    repeat: bool  # this query is one of ``exposures``
    repeat_scored: bool  # this query is one of ``scored``


def limits_of(allowance: Allowance) -> tuple[Limits, Limits]:
    """The principal's limits and its client's."""

    def times(factor: int) -> Limits:
        def scaled(limit: int | None) -> int | None:
            return None if limit is None else limit * factor

        return Limits(
            queries_day=scaled(allowance.queries_day),
            distinct_day=scaled(allowance.distinct_records_day),
            distinct_30_days=scaled(allowance.distinct_records_30_days),
            exposures_scored=scaled(allowance.exposures_scored),
            exposures_total=scaled(allowance.exposures_total),
        )

    return times(1), times(allowance.client_factor)


class _Counter:
    """One counter while an answer is judged: new distinct records are taken from it as they are let through."""

    def __init__(self, limits: Limits, usage: Usage) -> None:
        self._limits = limits
        self._day = usage.distinct_day
        self._30_days = usage.distinct_30_days

    def shows(self, at: Standing) -> bool:
        limits = self._limits
        return (
            (at.seen_day or _below(self._day, limits.distinct_day))
            and (at.seen_30_days or _below(self._30_days, limits.distinct_30_days))
            and (at.repeat or _below(at.exposures, limits.exposures_total))
        )

    def shows_score(self, at: Standing) -> bool:
        return at.repeat_scored or _below(at.scored, self._limits.exposures_scored)

    def take(self, at: Standing) -> None:
        self._day += not at.seen_day
        self._30_days += not at.seen_30_days


def _below(count: int, limit: int | None) -> bool:
    return limit is None or count < limit


def judge(
    scored: Sequence[bool],
    standings: Sequence[Sequence[Standing]],
    limits: Sequence[Limits],
    usage: Sequence[Usage],
) -> tuple[Verdict, ...]:
    """One verdict for each showing, in their order. ``scored[i]``: whether showing i would carry its score;
    ``standings[i][c]``, ``limits[c]``, ``usage[c]``: of showing i and counter c.

    When one record has used up its scored exposures, no hit of the answer keeps its score: the scores of its
    neighbours above and below would give its own to within a rounding step.
    """
    counters = [_Counter(one, used) for one, used in zip(limits, usage, strict=True)]
    verdicts: list[Verdict] = []
    used_up = False
    for wanted, at in zip(scored, standings, strict=True):
        pairs = list(zip(counters, at, strict=True))
        if not all(counter.shows(standing) for counter, standing in pairs):
            verdicts.append("withheld")
            continue
        for counter, standing in pairs:
            counter.take(standing)
        keeps = all(counter.shows_score(standing) for counter, standing in pairs)
        used_up = used_up or (wanted and not keeps)
        verdicts.append("scored" if wanted and keeps else "order")
    if used_up:
        return tuple("withheld" if verdict == "withheld" else "order" for verdict in verdicts)
    return tuple(verdicts)
