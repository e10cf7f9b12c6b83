"""However narrow the filter and however many lists, k allowed records are found when k are there, and only allowed."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secure_embed.index import Added, Codebook, Effort, RabitqShard
from secure_embed.types import Compare, RowFilter

RECORDS = 6_000
DIMENSION = 24


@pytest.fixture(scope="module", params=[1, 64], ids=["one list", "64 lists"])
def shard(request: pytest.FixtureRequest) -> tuple[RabitqShard, np.ndarray]:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, DIMENSION))
    vectors = centres[rng.integers(0, 40, RECORDS)] + 0.7 * rng.standard_normal((RECORDS, DIMENSION))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    made = RabitqShard(
        codebook=Codebook.train(vectors, version=2, lists=request.param, random_bytes=rng.bytes),
        schema={"n": "long"},
        tag_attribute=lambda *_: b"",
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )
    # Numbered along one axis, so that a filter on n cuts across the lists as badly as it can.
    rank = np.argsort(np.argsort(vectors[:, 0]))
    attributes = [{"n": int(n)} for n in rank]
    made.apply([Added(sequence=1, positions=np.arange(RECORDS), vectors=vectors, attributes=attributes)])
    return made, rank


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, RECORDS - 1),
    length=st.one_of(st.integers(1, 1_200), st.integers(1, RECORDS)),
    k=st.integers(1, 50),
    rerank_k=st.integers(1, 3_000),
    asked=st.integers(0, 2**32),
)
@example(start=0, length=RECORDS, k=10, rerank_k=3_000, asked=0)  # more than the lists first looked into hold
def test_a_filter_never_leaves_an_answer_short(
    shard, start: int, length: int, k: int, rerank_k: int, asked: int
) -> None:
    made, rank = shard
    query = np.random.default_rng(asked).standard_normal((1, DIMENSION)).astype(np.float32)
    rows = RowFilter(permits=(Compare("n", ">=", start),), forbids=(Compare("n", ">=", start + length),))
    allowed = set(np.flatnonzero((rank >= start) & (rank < start + length)).tolist())
    selection = made.select(rows, None)
    assert selection.count == selection.permitted == len(allowed)
    effort = Effort(candidates=rerank_k)
    found = made.scan(query, selection, k=k, effort=effort)
    assert set(found.positions.tolist()) <= allowed
    assert len(set(found.positions.tolist())) == len(found.positions)
    if found.exhaustive:
        assert len(found.positions) == len(allowed)
    else:
        narrow = 2_000 if len(allowed) <= 2_000 else 0
        assert len(found.positions) == min(max(k, effort.candidates_filtered, narrow), len(allowed))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_filtered_answers_equal_brute_force_on_easy_data(share: float) -> None:
    """Well separated clusters, so that the true ten are among 400 candidates of every selectivity."""
    from time import monotonic

    from secure_embed.types import Action, Ticket

    rng = np.random.default_rng(8)
    centres = rng.standard_normal((80, 128))
    vectors = np.repeat(centres, 100, axis=0) + 0.4 * rng.standard_normal((8_000, 128))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    halves = vectors.astype(np.float16)

    def open_vectors(at: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[:] = halves[at]
        return np.ones(len(at), np.bool_)

    number = rng.permutation(8_000)
    made = RabitqShard(
        codebook=Codebook.train(vectors, version=2, lists=32, random_bytes=rng.bytes),
        schema={"n": "long"},
        tag_attribute=lambda *_: b"",
        open_vectors=open_vectors,
    )
    attributes = [{"n": int(n)} for n in number]
    made.apply([Added(sequence=1, positions=np.arange(8_000), vectors=vectors, attributes=attributes)])
    ticket = Ticket(intent_index=0, action=Action.QUERY, openings_max=9_000, expires_monotonic=monotonic() + 600)
    selection = made.select(RowFilter(permits=(Compare("n", "<", int(8_000 * share)),)), None)
    for at in range(0, 8_000, 150):
        query = vectors[at : at + 1]
        exact = np.where(number < 8_000 * share, halves.astype(np.float32) @ query[0], -2)
        found = made.scan(query, selection, k=10, effort=Effort(candidates=400))
        scored = made.score(found.positions, query, ticket=ticket)
        kth = np.sort(exact)[-10]
        assert scored.scores[9] >= kth - 1e-3
        assert (number[scored.positions] < 8_000 * share).all()


SELECTIVE = 20_000


@pytest.fixture(scope="module")
def selective() -> tuple[RabitqShard, np.ndarray]:
    rng = np.random.default_rng(21)
    centres = rng.standard_normal((400, 64))
    vectors = centres[rng.integers(0, 400, SELECTIVE)] + 0.6 * rng.standard_normal((SELECTIVE, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def open_vectors(at: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[:] = vectors[at]
        return np.ones(len(at), np.bool_)

    made = RabitqShard(
        codebook=Codebook.train(vectors, version=2, lists=64, random_bytes=rng.bytes),
        schema={"n": "long"},
        tag_attribute=lambda *_: b"",
        open_vectors=open_vectors,
    )
    attributes = [{"n": int(n)} for n in rng.permutation(SELECTIVE)]
    made.apply([Added(sequence=1, positions=np.arange(SELECTIVE), vectors=vectors, attributes=attributes)])
    return made, vectors


@pytest.mark.parametrize("allowed", [10_000, 2_000, 200, 20, 1, 0], ids=["50%", "10%", "1%", "0.1%", "one", "none"])
@pytest.mark.parametrize("effort", [Effort(), Effort(candidates=1, lists=1, margin=0.1)], ids=["usual", "least"])
def test_ten_are_found_where_ten_are_allowed(selective, allowed: int, effort: Effort) -> None:
    from time import monotonic

    from secure_embed.types import Action, Ticket

    made, vectors = selective
    selection = made.select(RowFilter(permits=(Compare("n", "<", allowed),)), None)
    ticket = Ticket(intent_index=0, action=Action.QUERY, openings_max=9_000, expires_monotonic=monotonic() + 600)
    for at in range(0, SELECTIVE, 1_000):
        query = vectors[at : at + 1]
        found = made.scan(query, selection, k=10, effort=effort)
        best = made.nearest(found, query, k=10, effort=effort, ticket=ticket)
        assert len(best.positions[:10]) == min(10, allowed)
        assert len(set(best.positions.tolist())) == len(best.positions)
