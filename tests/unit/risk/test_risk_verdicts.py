"""The judgement of one answer, by cases: two counters, each hit as far as both let it."""

import pytest

from secure_embed.risk import Allowance, Verdict
from secure_embed.risk.verdicts import Standing, Usage, judge, limits_of

allowance = Allowance(
    queries_day=10,
    distinct_records_day=4,
    distinct_records_30_days=8,
    client_factor=2,
    exposures_scored=2,
    exposures_total=3,
)
limits = limits_of(allowance)
new = Standing(seen_day=False, seen_30_days=False, exposures=0, scored=0, repeat=False, repeat_scored=False)


def seen(exposures: int, scored: int, *, repeat: bool = False, repeat_scored: bool = False) -> Standing:
    return Standing(
        seen_day=True, seen_30_days=True, exposures=exposures, scored=scored, repeat=repeat, repeat_scored=repeat_scored
    )


def used(day: int, month: int) -> Usage:
    return Usage(distinct_day=day, distinct_30_days=month)


def test_a_client_has_its_factor() -> None:
    _, client = limits
    assert (client.queries_day, client.distinct_day, client.distinct_30_days) == (20, 8, 16)
    assert (client.exposures_scored, client.exposures_total) == (4, 6)


cases: dict[str, tuple[list[tuple[bool, Standing]], Usage, list[Verdict]]] = {
    "all new": ([(True, new), (True, new)], used(0, 0), ["scored", "scored"]),
    "the day ends within the answer": ([(True, new)] * 3, used(2, 2), ["scored", "scored", "withheld"]),
    "the month ends within the answer": ([(True, new)] * 3, used(0, 7), ["scored", "withheld", "withheld"]),
    "what was seen costs nothing": ([(True, new), (True, seen(1, 1))], used(4, 4), ["withheld", "scored"]),
    "third query: order for all": ([(True, seen(2, 2)), (True, new)], used(1, 1), ["order", "order"]),
    "fourth query: left out, others keep": ([(True, seen(3, 2)), (True, new)], used(1, 1), ["withheld", "scored"]),
    "a repeat is shown as before": ([(True, seen(3, 2, repeat=True, repeat_scored=True))], used(1, 1), ["scored"]),
    "a repeat without score stays so": ([(True, seen(3, 2, repeat=True))], used(1, 1), ["order"]),
    "no score asked, none charged": ([(False, seen(2, 2)), (False, new)], used(1, 1), ["order", "order"]),
    "a score not asked for harms no other": ([(False, seen(2, 2)), (True, new)], used(1, 1), ["order", "scored"]),
}


@pytest.mark.parametrize(("showings", "usage", "verdicts"), cases.values(), ids=cases.keys())
def test_verdicts(showings: list[tuple[bool, Standing]], usage: Usage, verdicts: list[Verdict]) -> None:
    wanted = [scored for scored, _ in showings]
    standings = [(at, new) for _, at in showings]
    assert judge(wanted, standings, limits, (usage, used(0, 0))) == tuple(verdicts)
    swapped = (limits[1], limits[0])
    assert judge(wanted, [(new, at) for _, at in showings], swapped, (used(0, 0), usage)) == tuple(verdicts)
