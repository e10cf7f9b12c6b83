"""scan and score: what they find, in which order, and what they refuse."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from secure_embed.deadline import Deadline
from secure_embed.errors import (
    Conflict,
    IntegrityFailure,
    InvalidRequest,
    SealedValueUnreadable,
    SecureEmbedError,
    Unavailable,
)
from secure_embed.index import Codebook, Effort, Selection, Shard, exhaustive_max, openings_max
from secure_embed.types import Action, Compare, RowFilter, TruthValue

pytestmark = pytest.mark.usefixtures("each_way_to_open")


def test_the_room_is_light_until_a_shard_is_built() -> None:
    code = "import sys, secure_embed.index; sys.exit(any(m in sys.modules for m in ('faiss', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_room_exports_is_sorted_and_there() -> None:
    import secure_embed.index as room

    assert room.__all__ == sorted(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)


@pytest.mark.parametrize(("lists", "bits"), [(1, 1), (16, 1), (16, 2)])
def test_recall_at_ten_after_rescoring_reaches_exact_search(world, make_clustered, lists: int, bits: int) -> None:
    """5,000 x 384, 50 clusters, noise 1.0 a dimension (hard: neighbours are barely nearer than the rest)."""
    vectors, queries = make_clustered(11, 5_000, 384, clusters=50, noise=1.0)
    random_bytes = np.random.default_rng(12).bytes
    codebook = Codebook.train(vectors, version=2, lists=lists, bits=bits, random_bytes=random_bytes)
    made = world(5_000, 384, codebook=codebook, fill=False)
    made.vectors, made.halves = vectors, vectors.astype(np.float16)
    made.shard.apply([made.added(1, 0, 5_000)])
    exact = np.argsort(-(queries @ made.halves.astype(np.float32).T), axis=1)[:, :10]
    found = [made.best(query[None]) for query in queries]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact.tolist(), strict=True)])
    assert recall >= 0.98
    assert len(made.opened) <= 120 * len(queries)  # estimates chose the candidates, and fewer than all 200 of them


def test_estimates_are_cosines_best_first(world, everything) -> None:
    made = world(1_500, 384)
    query = made.vectors[7:8]
    candidates = made.shard.scan(query, made.shard.select(everything, None), k=10, effort=Effort(candidates=100))
    assert not candidates.exhaustive
    assert len(candidates.positions) == 100
    assert (np.diff(candidates.estimates) <= 0).all()
    cosines = made.vectors[candidates.positions] @ query[0]
    assert np.abs(candidates.estimates - cosines).max() < 0.2
    assert candidates.positions[0] == 7


def test_a_small_selection_is_answered_whole_and_exactly(world, everything) -> None:
    made = world(300, 32)
    selection = made.shard.select(everything, None)
    candidates = made.shard.scan(made.vectors[:1], selection, k=5, effort=Effort(candidates=20))
    assert candidates.exhaustive
    assert candidates.positions.tolist() == list(range(300))
    assert np.isnan(candidates.estimates).all()
    assert made.opened == []  # scan opens nothing
    assert made.best(made.vectors[:1], k=300) == made.exact(made.vectors[:1], range(300))


def test_more_candidates_than_usual_are_named_when_k_asks_for_it(world, everything) -> None:
    made = world(1_400, 16)
    candidates = made.shard.scan(
        made.vectors[:1], made.shard.select(everything, None), k=1_200, effort=Effort(candidates=10)
    )
    assert len(set(candidates.positions.tolist())) == 1_200


def test_nothing_to_find_is_an_empty_answer(world, everything) -> None:
    empty = world(fill=False)
    query = empty.vectors[:1]
    none = RowFilter(permits=())
    for made, rows in ((empty, everything), (world(), none), (world(), RowFilter(permits=(TruthValue(False),)))):
        selection = made.shard.select(rows, None)
        candidates = made.shard.scan(query, selection, k=3, effort=Effort(candidates=5))
        assert (selection.count, len(candidates.positions), candidates.exhaustive) == (0, 0, True)
    assert len(empty.shard.score(np.zeros(0, np.int64), query, ticket=ticket_of(0)).positions) == 0


def ticket_of(openings: int, action: Action = Action.QUERY):
    import time

    from secure_embed.types import Ticket

    return Ticket(intent_index=0, action=action, openings_max=openings, expires_monotonic=time.monotonic() + 60)


def test_scores_are_exact_cosines_ordered_by_score_then_position(world) -> None:
    made = world(40, 16)
    made.halves[20:30] = made.halves[5]  # ten equal vectors
    made.halves[9] *= np.float16(0.5)  # a length that is not one does not matter
    scored = made.shard.score(np.arange(40)[::-1].copy(), made.vectors[5:6], ticket=ticket_of(40))
    rows = made.halves.astype(np.float64)
    wanted = rows @ made.vectors[5].astype(np.float64) / np.linalg.norm(rows, axis=1)
    assert np.allclose(scored.scores, wanted[scored.positions], atol=1e-6)
    assert scored.positions[:11].tolist() == [5, *range(20, 30)]
    assert sorted(scored.positions.tolist()) == list(range(40))
    assert scored.scores.dtype == np.float32


def test_a_score_does_not_depend_on_its_company(world) -> None:
    made = world(600, 48)
    alone = [made.shard.score(np.array([p]), made.vectors[:1], ticket=ticket_of(1)).scores[0] for p in range(600)]
    together = made.shard.score(np.arange(600), made.vectors[:1], ticket=ticket_of(600))
    assert [together.scores[together.positions == p][0] for p in range(600)] == alone


def test_positions_named_twice_are_opened_once_and_erased_ones_are_absent(world) -> None:
    made = world(30)
    made.gone = {4}
    scored = made.shard.score(np.array([4, 3, 3, 9]), made.vectors[:1], ticket=ticket_of(3))
    assert sorted(scored.positions.tolist()) == [3, 9]
    assert made.opened == [3, 4, 9]


def test_a_zero_vector_scores_zero_and_an_infinite_one_is_a_fault(world) -> None:
    made = world(10)
    made.halves[3] = 0
    scored = made.shard.score(np.arange(10), made.vectors[:1], ticket=ticket_of(10))
    assert scored.scores[scored.positions == 3] == 0
    made.halves[3] = np.inf
    with pytest.raises(IntegrityFailure) as failed:
        made.shard.score(np.arange(10), made.vectors[:1], ticket=ticket_of(10))
    assert failed.value.code == "stored_vector_invalid"


@pytest.mark.parametrize("ticket", [ticket_of(2), ticket_of(99, Action.RECORD_READ)], ids=["openings", "action"])
def test_nothing_is_opened_without_a_ticket_that_covers_it(world, ticket) -> None:
    made = world(10)
    with pytest.raises(SecureEmbedError) as refused:
        made.shard.score(np.arange(3), made.vectors[:1], ticket=ticket)
    assert refused.value.code == "ticket_refused"
    assert made.opened == []


def test_opened_vectors_are_wiped_also_when_opening_fails(world) -> None:
    made = world(600)
    made.shard.score(np.arange(600), made.vectors[:1], ticket=ticket_of(600))
    assert len(made.buffers) == 3
    assert not any(buffer.any() for buffer in made.buffers)

    def half_way(at: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[:] = made.halves[at]
        made.buffers.append(out)
        raise SealedValueUnreadable("vector")

    made.shard._rescorer._open_vectors = half_way
    with pytest.raises(SealedValueUnreadable):
        made.shard.score(np.arange(10), made.vectors[:1], ticket=ticket_of(10))
    assert not made.buffers[-1].any()


@pytest.mark.parametrize(
    "query",
    [
        np.zeros((1, 16), np.float32),
        np.full((1, 16), np.nan, np.float32),
        np.full((1, 16), np.inf, np.float32),
        np.ones((1, 15), np.float32),
        np.ones((2, 16), np.float32),
        np.ones(16, np.float32),
        np.ones((1, 16), np.float64),
    ],
    ids=["zero", "nan", "infinite", "dimension", "two", "flat", "float64"],
)
def test_a_malformed_query_is_refused_by_scan_and_score(world, everything, query: np.ndarray) -> None:
    made = world()
    selection = made.shard.select(everything, None)
    for ask in (
        lambda: made.shard.scan(query, selection, k=1, effort=Effort(candidates=1)),
        lambda: made.shard.score(np.arange(1), query, ticket=ticket_of(1)),
    ):
        with pytest.raises(InvalidRequest) as refused:
            ask()
        assert refused.value.code == "vector_invalid"


@pytest.mark.parametrize("k", [0, -1, 10_001])
def test_numbers_that_faiss_would_abort_on_are_refused(world, everything, k: int) -> None:
    made = world()
    with pytest.raises(InvalidRequest) as refused:
        made.shard.scan(made.vectors[:1], made.shard.select(everything, None), k=k, effort=Effort())
    assert refused.value.code == "k_invalid"


def test_a_strided_query_is_searched_like_any_other(world, everything) -> None:
    made = world(1_200, 16)
    strided = np.repeat(made.vectors[3:4], 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous or strided.shape == (1, 16)
    assert made.best(strided) == made.best(made.vectors[3:4])


def test_a_selection_of_another_shard_is_refused(world, everything) -> None:
    one, other = world(), world()
    selection = one.shard.select(everything, None)
    plain = Selection(bitmap=selection.bitmap, count=60, permitted=60, version=1)
    for foreign in (selection, plain):
        with pytest.raises(Conflict) as refused:
            other.shard.scan(other.vectors[:1], foreign, k=1, effort=Effort(candidates=1))
        assert refused.value.code == "selection_stale"


def test_faiss_threads_of_the_calling_thread_are_left_as_they_were(world, everything) -> None:
    import faiss

    made = world(1_200, 16)
    seen: list[int] = []

    def ask() -> None:
        faiss.omp_set_num_threads(3)
        made.best(made.vectors[:1])
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [3]


@pytest.mark.parametrize(
    ("allowed", "candidates", "exhaustive"),
    [(1_000, 1_000, True), (1_001, 1_001, False), (2_000, 2_000, False), (2_001, 1_600, False)],
)
@pytest.mark.parametrize("records", [2_100, 9_000])
def test_what_a_narrow_filter_leaves_are_all_candidates(
    world, records: int, allowed: int, candidates: int, exhaustive: bool
) -> None:
    """However many records lie beside them: those must not show in the answer."""
    made = world(records, 8, schema={"n": "long"}, attributes=[{"n": i} for i in range(records)])
    selection = made.shard.select(RowFilter(permits=(Compare("n", "<", allowed),)), None)
    found = made.shard.scan(made.vectors[:1], selection, k=10, effort=Effort(candidates=200))
    assert found.exhaustive is exhaustive
    assert len(found.positions) == candidates <= openings_max(Effort(), 10)
    assert (found.positions < allowed).all()


def test_nothing_is_found_of_a_selection_that_was_forgotten_whole(world) -> None:
    made = world(2_100, 16, schema={"n": "long"}, attributes=[{"n": n} for n in range(2_100)])
    selection = made.shard.select(RowFilter(permits=(Compare("n", "<", 1_700),)), None)
    made.shard.forget(range(1_700), version=made.shard.version + 1_700, ticket=ticket_of(0, Action.RECORD_ERASE))
    found = made.shard.scan(made.vectors[:1], selection, k=10, effort=Effort())
    assert (len(found.positions), len(found.estimates), found.looked) == (0, 0, 0)


def test_a_query_s_ticket_covers_what_scan_may_name(world, everything) -> None:
    made = world(exhaustive_max + 1, 16, schema={"n": "long"}, attributes=[{"n": i} for i in range(exhaustive_max + 1)])
    whole = made.shard.select(RowFilter(permits=(Compare("n", "<", exhaustive_max),)), None)
    for selection in (whole, made.shard.select(everything, None)):
        candidates = made.shard.scan(made.vectors[:1], selection, k=10, effort=Effort(candidates=200))
        assert len(candidates.positions) <= openings_max(Effort(), 10)
    assert openings_max(Effort(candidates=5_000), 10) == 5_000
    assert [Effort(candidates=n).candidates_filtered for n in (1, 200, 500, 3_000, 9_000)] == [
        8,
        1_600,
        4_000,
        4_000,
        9_000,
    ]


def test_the_footprint_is_what_plaintext_derived_bytes_take(world) -> None:
    made = world(4_000, 384, schema={"n": "long"}, attributes=[{"n": 1}] * 4_000)
    footprint = made.shard.footprint()
    assert footprint.records == 4_000
    assert footprint.code_bytes == 384 // 8 + 8
    assert 4_000 * 56 <= footprint.codes <= 2 * 4_000 * (56 + 8 + 4)
    assert footprint.bytes_a_record < 384 * 4 / 8
    assert 4 * 384 * 385 <= footprint.codebook <= 5 * 384 * 386  # and once more as bytes, where that is compiled


def test_the_shard_is_a_shard(world) -> None:
    shard: Shard = world().shard
    assert (shard.version, shard.size) == (1, 60)


@pytest.mark.parametrize(
    "bad",
    [
        {"candidates": 0},
        {"candidates": 10_001},
        {"lists": 0},
        {"lists": 65_537},
        {"margin": 0.0},
        {"margin": float("nan")},
        {"margin": 101.0},
    ],
    ids=str,
)
def test_an_effort_out_of_bounds_is_refused(bad) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Effort(**bad)
    assert refused.value.code == "effort_invalid"


def test_a_search_ends_at_its_deadline_and_opens_nothing_after(world, everything) -> None:
    made = world(4_000, 16)
    query, selection = made.vectors[:1], made.shard.select(everything, None)
    late, gone, effort = Deadline(-1), Deadline(60), Effort(margin=100.0)
    gone.abandon()
    found = made.shard.scan(query, selection, k=10, effort=effort)
    may = ticket_of(10_000)
    for deadline, code in ((late, "deadline_exceeded"), (gone, "caller_gone")):
        for search in (
            lambda at: made.shard.scan(query, selection, k=10, effort=effort, deadline=at),
            lambda at: made.shard.nearest(found, query, k=10, effort=effort, ticket=may, deadline=at),
            lambda at: made.shard.score(found.positions, query, ticket=may, deadline=at),
        ):
            with pytest.raises(Unavailable) as refused:
                search(deadline)
            assert refused.value.code == code
    assert not made.opened


def test_a_search_that_is_abandoned_between_two_rounds_opens_no_further(world, everything) -> None:
    made = world(4_000, 16)
    query, effort, deadline = made.vectors[:1], Effort(candidates=2_000, margin=100.0), Deadline(60)
    found = made.shard.scan(query, made.shard.select(everything, None), k=10, effort=effort)
    inner = made.shard._rescorer._open_vectors

    def opening(at, out):
        deadline.abandon()
        return inner(at, out)

    made.shard._rescorer._open_vectors = opening
    with pytest.raises(Unavailable):
        made.shard.nearest(found, query, k=10, effort=effort, ticket=ticket_of(10_000), deadline=deadline)
    assert 0 < len(made.opened) <= 256


def test_a_long_look_is_cut_into_shorter_ones_that_find_the_same(world, everything, monkeypatch) -> None:
    vectors = world(6_000, 32, fill=False).vectors
    codebook = Codebook.train(vectors, version=2, lists=32, random_bytes=np.random.default_rng(1).bytes)
    made = world(6_000, 32, codebook=codebook)
    rows = RowFilter(permits=(TruthValue(True),))
    efforts = [Effort(candidates=100, lists=lists) for lists in (4, 32)]

    def answers():
        selection = made.shard.select(rows, None)
        found = [
            made.shard.scan(made.vectors[at : at + 1], selection, k=10, effort=e) for at in range(40) for e in efforts
        ]
        return [(each.positions.tolist(), each.estimates.tolist()) for each in found]

    whole = answers()
    monkeypatch.setattr("secure_embed.index._search.look_records_max", 300)
    assert answers() == whole


# --- which candidates are opened ---------------------------------------------------------------------------------------


def test_opening_stops_where_the_rest_cannot_matter_and_answers_the_same(world, everything) -> None:
    made = world(5_000, 128)
    asked = [made.vectors[at : at + 1] for at in range(0, 5_000, 100)]
    thorough, usual = Effort(candidates=400, margin=100.0), Effort(candidates=400)
    selection = made.shard.select(everything, None)
    same, opened = 0, {}
    for query in asked:
        answers = []
        for effort in (thorough, usual):
            found = made.shard.scan(query, selection, k=10, effort=effort)
            made.opened.clear()
            best = made.shard.nearest(found, query, k=10, effort=effort, ticket=ticket_of(400))
            opened.setdefault(effort, []).append(len(made.opened))
            assert set(made.opened) <= set(found.positions.tolist())
            assert len(set(made.opened)) == len(made.opened) > 0
            answers.append((best.positions[:10].tolist(), best.scores[:10].tolist()))
        same += answers[0] == answers[1]
    assert same >= 48
    assert set(opened[thorough]) == {400}
    assert max(opened[usual]) < 400
    assert np.mean(opened[usual]) < 200


def test_scores_of_opened_candidates_are_those_of_score(world, everything) -> None:
    made = world(3_000, 64)
    found = made.shard.scan(made.vectors[:1], made.shard.select(everything, None), k=10, effort=Effort())
    best = made.shard.nearest(found, made.vectors[:1], k=10, effort=Effort(), ticket=ticket_of(400))
    exact = made.shard.score(best.positions, made.vectors[:1], ticket=ticket_of(400))
    assert (best.positions == exact.positions).all()
    assert (best.scores == exact.scores).all()


def test_erased_candidates_are_passed_over_and_others_opened_for_them(world, everything) -> None:
    made = world(3_000, 64)
    query = made.vectors[:1]
    found = made.shard.scan(query, made.shard.select(everything, None), k=10, effort=Effort())
    made.gone |= set(found.positions[:60].tolist())
    best = made.shard.nearest(found, query, k=10, effort=Effort(), ticket=ticket_of(400)).positions
    assert len(best) >= 10
    assert not set(best.tolist()) & made.gone
    made.gone |= set(found.positions[:195].tolist())
    best = made.shard.nearest(found, query, k=10, effort=Effort(), ticket=ticket_of(400)).positions
    assert sorted(best.tolist()) == sorted(found.positions[195:].tolist())


def test_a_ticket_has_to_cover_every_candidate(world, everything) -> None:
    made = world(3_000, 64)
    found = made.shard.scan(made.vectors[:1], made.shard.select(everything, None), k=10, effort=Effort())
    with pytest.raises(SecureEmbedError) as refused:
        made.shard.nearest(found, made.vectors[:1], k=10, effort=Effort(), ticket=ticket_of(199))
    assert refused.value.code == "ticket_refused"
    assert not made.opened
