"""What leaves of an answer."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from secure_embed.risk import Verdict, load_profiles, parse_profile, release
from secure_embed.types import Position

folder = Path(__file__).parents[3] / "policies" / "risk"
profiles = load_profiles(folder, development=True)
standard, strict, unprotected = profiles["standard"], profiles["strict"], profiles["open"]

hits = [(Position(7), 0.98765), (Position(3), 0.7149), (Position(9), 0.7051), (Position(1), -0.004)]
all_scored: Sequence[Verdict] = ["scored"] * 4


def shown(found: list) -> list[tuple[int, int, float | None]]:  # type: ignore[type-arg]  # local shorthand
    return [(hit.position, hit.rank, hit.score) for hit in found]


def test_standard_rounds_and_caps() -> None:
    assert shown(release(standard, hits, all_scored, 100)) == [(7, 1, 0.9), (3, 2, 0.71), (9, 3, 0.71), (1, 4, 0.0)]


def test_a_rounded_zero_has_no_sign() -> None:
    assert str(release(standard, hits, all_scored, 100)[-1].score) == "0.0"


def test_strict_gives_the_order_only() -> None:
    assert shown(release(strict, hits, ["order"] * 4, 10_000)) == [
        (7, 1, None),
        (3, 2, None),
        (9, 3, None),
        (1, 4, None),
    ]


def test_strict_gives_no_score_whatever_the_verdict() -> None:
    assert {hit.score for hit in release(strict, hits, all_scored, 10_000)} == {None}


def test_open_gives_the_exact_scores() -> None:
    assert [hit.score for hit in release(unprotected, hits, all_scored, 1)] == [score for _, score in hits]


@pytest.mark.parametrize(("matching", "scored"), [(1, False), (99, False), (100, True)])
def test_a_narrow_filter_takes_the_scores(matching: int, scored: bool) -> None:
    assert all((hit.score is not None) is scored for hit in release(standard, hits, all_scored, matching))


def test_what_is_withheld_leaves_no_gap() -> None:
    verdicts: Sequence[Verdict] = ["withheld", "scored", "withheld", "scored"]
    assert shown(release(standard, hits, verdicts, 100)) == [(3, 1, 0.71), (1, 2, 0.0)]


def test_equal_scores_go_by_position() -> None:
    equal = [(Position(5), 0.5), (Position(2), 0.5)]
    assert [hit.position for hit in release(standard, equal, ["scored", "scored"], 100)] == [2, 5]


def test_a_verdict_for_each_hit_or_nothing() -> None:
    with pytest.raises(ValueError, match="zip"):
        release(standard, hits, all_scored[:3], 100)


def test_a_cap_between_two_steps_is_what_is_shown() -> None:
    text = (folder / "standard.toml").read_text(encoding="utf-8")
    odd = parse_profile("odd", text.replace("cap = 0.90", "cap = 0.875"))
    assert release(odd, hits, all_scored, 100)[0].score == 0.875
