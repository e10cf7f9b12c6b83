"""Whatever the scores and verdicts: the order is the exact scores' own, and no more leaves than the profile says."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from secure_embed.risk import Verdict, load_profiles, normalise_query, query_identity, release
from secure_embed.types import Position

standard = load_profiles(Path(__file__).parents[2] / "policies" / "risk", development=False)["standard"]

verdict_of = st.sampled_from(["scored", "order", "withheld"])
answers = st.lists(
    st.tuples(
        st.integers(0, 10**6).map(Position),
        st.floats(-1, 1, width=32),
        verdict_of,
    ),
    max_size=10,
    unique_by=lambda hit: hit[0],
)


@given(answers, st.integers(0, 300))
def test_order_ranks_and_scores(answer: list[tuple[Position, float, Verdict]], matching: int) -> None:
    hits = [(position, score) for position, score, _ in answer]
    verdicts = [verdict for _, _, verdict in answer]
    released = release(standard, hits, verdicts, matching)

    exact = sorted(answer, key=lambda hit: (-hit[1], hit[0]))
    assert [hit.position for hit in released] == [p for p, _, verdict in exact if verdict != "withheld"]
    assert [hit.rank for hit in released] == list(range(1, len(released) + 1))

    by_position = {position: (score, verdict) for position, score, verdict in answer}
    for hit in released:
        score, verdict = by_position[hit.position]
        assert (hit.score is not None) == (verdict == "scored" and matching >= 100)
        if hit.score is not None:
            assert hit.score == min(round(score, 2), 0.9)
    shown = [hit.score for hit in released if hit.score is not None]
    assert shown == sorted(shown, reverse=True)


@given(answers)
def test_the_same_answer_twice_is_the_same(answer: list[tuple[Position, float, Verdict]]) -> None:
    """Fresh noise would average out over repeats: there is none."""
    hits = [(position, score) for position, score, _ in answer]
    verdicts = [verdict for _, _, verdict in answer]
    assert release(standard, hits, verdicts, 100) == release(standard, hits, verdicts, 100)


@given(st.text())
def test_normalising_is_idempotent(text: str) -> None:
    once = normalise_query(text)
    assert normalise_query(once) == once


part = st.text(max_size=6)


@given(part, part, st.none() | st.integers(0), part, part, st.none() | st.integers(0))
def test_identities_are_equal_for_equal_queries_only(
    text: str, own: str, version: int | None, other: str, others: str, its: int | None
) -> None:
    one = query_identity(text, own_filter=own, data_version=version)
    two = query_identity(other, own_filter=others, data_version=its)
    assert (one == two) == ((text, own, version) == (other, others, its))
