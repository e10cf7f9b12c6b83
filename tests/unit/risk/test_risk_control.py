"""The facade: what is counted as scored is what is shown with a score."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from secure_embed.errors import ConfigurationError, NotFound
from secure_embed.risk import Answer, LedgerKey, RiskControl, SqlcipherLedger, load_profiles
from secure_embed.types import Position

folder = Path(__file__).parents[3] / "policies" / "risk"
collection = uuid4()
hits = [(Position(n), 0.8 - n / 100) for n in range(3)]


def tag(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


tags = [tag(f"record {position}") for position, _ in hits]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[RiskControl]:
    ledger = SqlcipherLedger(tmp_path / "risk.db", tag("k"), lambda: 1_790_000_000.0)
    yield RiskControl(load_profiles(folder, development=False), ledger)
    ledger.close()


def ask(control: RiskControl, query: str, *, profile: str = "standard", matching: int = 5000) -> Answer:
    chosen = control.profile(profile)
    admission = control.admit(
        chosen,
        LedgerKey(collection=collection, principal_tag=tag("ada"), client_tag=tag("app")),
        request=uuid4(),
        query_tag=tag(query),
        collection_records=5000,
        holds_write=False,
    )
    return control.release(chosen, admission, hits, tags, matching=matching)


def test_a_full_answer(control: RiskControl) -> None:
    answer = ask(control, "q")
    assert [(hit.position, hit.rank, hit.score) for hit in answer.hits] == [(0, 1, 0.8), (1, 2, 0.79), (2, 3, 0.78)]
    assert not answer.limited
    assert (answer.charged.queries_left, answer.charged.distinct_left_day) == (999, 122)


def test_a_narrow_filter_uses_up_no_scored_exposure_and_is_no_limit_of_a_budget(control: RiskControl) -> None:
    for n in range(10):
        narrow = ask(control, f"narrow {n}", matching=99)
        assert {hit.score for hit in narrow.hits} == {None}
        assert not narrow.limited
    assert ask(control, "wide").hits[0].score == 0.8


def test_strict_without_scores_is_not_limited_until_a_budget_ends(control: RiskControl) -> None:
    limited = [ask(control, f"q{n}", profile="strict").limited for n in range(11)]
    assert limited == [False] * 10 + [True]


def test_a_collection_without_its_profile_answers_nothing(control: RiskControl) -> None:
    for name in ("open", "absent", ""):
        with pytest.raises(ConfigurationError) as refused:
            control.profile(name)
        assert refused.value.code == "risk_profile_unknown"


def test_forgetting_reaches_the_ledger(control: RiskControl) -> None:
    for n in range(31):
        ask(control, f"q{n}")
    used_up = ask(control, "q31")
    assert (used_up.hits, used_up.limited) == ((), True)
    control.forget(collection, tags)
    erased = ask(control, "q31")
    assert (erased.hits, erased.limited) == ((), False)


def test_forgetting_a_collection_reaches_the_ledger(control: RiskControl) -> None:
    ask(control, "q")
    control.forget_collection(collection)
    with pytest.raises(NotFound):
        ask(control, "q")
