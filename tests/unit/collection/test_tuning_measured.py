"""Recall as a tuning reports it is that of a brute-force computation, and the effort that it chooses holds for it."""

from pathlib import Path

import numpy as np
import pytest

from secure_embed.collection.measuring import Measuring, sample_for_k
from secure_embed.collection.tuned import Asked, Measured
from secure_embed.collection.tuning import choose, cost, grid_of, steps_max
from secure_embed.index import Codebook, Effort, every_list
from secure_embed.types import Action, Position
from tests.one_holding import EVERYTHING, OneHolding, settled, ticket

dimension, records, centres = 32, 3_000, 60


def hard_vectors(seed: int, n: int) -> np.ndarray:
    """(n, dimension) float32, unit length, about fifty to a centre and as far apart as from it."""
    made = np.random.default_rng(seed)
    middle = made.standard_normal((centres, dimension))
    vectors = middle[made.integers(0, centres, n)] + made.standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> OneHolding:
    """Under one drawn rotation, always the same: what is measured hangs on it, and a chosen effort holds for 19 of 20."""
    made, train = OneHolding(tmp_path_factory.mktemp("one"), dimension=dimension), Codebook.train
    drawn = np.random.default_rng(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codebook, "train", lambda vectors, **named: train(vectors, random_bytes=drawn.bytes, **named))
        made.add_vectors(hard_vectors(1, records))
        made.holding.shard()
        settled(made)
    return made


def measuring(one: OneHolding, asked: Asked, *, texts: np.ndarray | None = None, seed: int = 5) -> Measuring:
    holding = one.holding
    made = Measuring(
        holding.shard(),
        lambda at, out: holding.open_vectors(at, out, ticket=ticket(Action.COLLECTION_TUNE)),
        asked=asked,
        end=holding.next_position,
        texts=np.zeros((0, dimension), np.float32) if texts is None else texts,
        rng=np.random.default_rng(seed),
        ticket=ticket(Action.COLLECTION_TUNE),
    )
    made.search_exactly(lambda: None)
    return made


def stored(one: OneHolding) -> tuple[np.ndarray, np.ndarray]:
    """Positions and vectors as they are stored: fp16, then of unit length."""
    at = np.arange(one.holding.next_position, dtype=np.int64)
    half = np.zeros((len(at), dimension), np.float16)
    there = one.holding.open_vectors(at, half, ticket=ticket(Action.COLLECTION_TUNE))
    vectors = half[there].astype(np.float32)
    return at[there], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(one: OneHolding, own: np.ndarray, effort: Effort, k: int) -> float:
    """Recall by ids: what the service's search finds among all others, against sorting everything."""
    at, vectors = stored(one)
    shard = one.holding.shard()
    everything = shard.select(EVERYTHING, None)
    shares = []
    for position in own.tolist():
        query = vectors[at == position]
        scores = (vectors @ query[0]).astype(np.float64)
        scores[at == position] = -2
        exact = set(at[np.argsort(-scores, kind="stable")[:k]].tolist())
        wider = Effort(candidates=effort.candidates + 1, lists=effort.lists, margin=effort.margin)
        found = shard.scan(query, everything, k=k + 1, effort=wider)
        scored = shard.nearest(found, query, k=k + 1, effort=wider, ticket=ticket(Action.QUERY))
        answer = [p for p in scored.positions.tolist() if p != position][:k]
        shares.append(len(exact & set(answer)) / k)
    return float(np.mean(shares))


@pytest.mark.parametrize(
    "effort",
    [
        Effort(candidates=50, lists=every_list, margin=1.5),
        Effort(candidates=50, lists=every_list, margin=4.0),
        Effort(candidates=400, lists=4, margin=2.5),
        Effort(candidates=800, lists=every_list, margin=4.0),
    ],
)
@pytest.mark.parametrize("k", [1, 10])
def test_the_reported_recall_is_that_of_brute_force(one: OneHolding, effort: Effort, k: int) -> None:
    made = measuring(one, Asked(k=k))
    assert made.sample == sample_for_k(k)
    found = made.at(effort)
    assert found.recall == pytest.approx(brute_force(one, made._own.own, effort, k), abs=1e-3)
    assert found.recall_low < found.recall
    assert 0 < found.openings <= effort.candidates
    assert 0 < found.codes <= records


def test_what_was_opened_is_counted(one: OneHolding) -> None:
    """The sample (drawn twice as large), everything once, and each search."""
    made = measuring(one, Asked())
    assert made.opened == 2 * 200 + records
    found = made.at(Effort(candidates=100, lists=every_list, margin=2.0))
    assert made.opened == 2 * 200 + records + round(200 * (found.openings + 1))


def test_texts_count_as_queries_of_their_own(one: OneHolding) -> None:
    texts = hard_vectors(2, 40)
    made = measuring(one, Asked(target=0.9), texts=texts)
    effort = Effort(candidates=50, lists=every_list, margin=4.0)
    at, vectors = stored(one)
    shard = one.holding.shard()
    shares = []
    for query in texts:
        exact = set(at[np.argsort(-(vectors @ query))[:10]].tolist())
        found = shard.scan(query[None], shard.select(EVERYTHING, None), k=10, effort=effort)
        scored = shard.nearest(found, query[None], k=10, effort=effort, ticket=ticket(Action.QUERY))
        shares.append(len(exact & set(scored.positions[:10].tolist())) / 10)
    assert made.at(effort).recall_texts == pytest.approx(np.mean(shares), abs=1e-3)
    made.wipe()
    assert not texts.any()


def test_the_effort_that_is_chosen_meets_the_target_on_other_queries(one: OneHolding) -> None:
    """Chosen by one sample, judged by all records: what a sample leaves open is covered by the allowance."""
    made = measuring(one, Asked(target=0.95))
    chosen = choose(made.at, lists=one.holding.shard().codebook.lists, k=10)
    assert chosen is not None
    assert chosen.meets
    everyone = np.arange(0, records, 3, dtype=np.int64)
    assert brute_force(one, everyone, chosen.effort, 10) >= 0.95
    cheaper = [each for each in made.measured if each.meets and cost(each) < cost(chosen)]
    assert all(each.effort.lists != chosen.effort.lists for each in cheaper)


def test_nothing_is_chosen_where_nothing_meets_the_target() -> None:
    measured: list[Effort] = []

    def measure(effort: Effort) -> Measured:
        measured.append(effort)
        return fake(effort, meets=False)

    assert choose(measure, lists=64, k=10) is None
    assert measured == [Effort(candidates=800, lists=every_list, margin=4.0)]


def fake(effort: Effort, *, meets: bool) -> Measured:
    return Measured(
        effort=effort,
        recall=1.0,
        recall_low=1.0,
        recall_texts=None,
        recall_filtered=None,
        openings=float(effort.candidates * effort.margin),
        openings_filtered=None,
        codes=100.0 * (effort.lists or 0),
        meets=meets,
    )


@pytest.mark.parametrize("lists", [1, 4, 5, 64, 512, every_list])
def test_the_search_is_bounded_and_takes_the_cheapest(lists: int) -> None:
    """The needed effort is found where there is one, in no more steps than were promised."""
    asked: list[Effort] = []

    def measure(effort: Effort) -> Measured:
        asked.append(effort)
        enough = effort.candidates >= 200 and effort.margin >= 2.5 and (effort.lists or 0) >= 16
        return fake(effort, meets=enough or (effort.lists == every_list and effort.candidates >= 100))

    chosen = choose(measure, lists=lists, k=10)
    assert chosen is not None
    assert len(asked) <= steps_max(lists)
    assert grid_of(lists)[-1] == every_list
    assert chosen.effort.candidates in (100, 200)


def test_a_measuring_opens_nothing_without_a_ticket_for_it(one: OneHolding) -> None:
    from secure_embed.errors import SecureEmbedError

    half = np.zeros((1, dimension), np.float16)
    with pytest.raises(SecureEmbedError) as refused:
        one.holding.open_vectors(np.zeros(1, np.int64), half, ticket=ticket(Action.QUERY))
    assert refused.value.code == "ticket_refused"


def test_what_comes_and_goes_meanwhile_only_lowers_what_is_measured(tmp_path: Path) -> None:
    """An erased record counts as missed, a new one as nothing: the effort errs on the careful side."""
    made = OneHolding(tmp_path, dimension=dimension)
    made.add_vectors(hard_vectors(3, 2_000))
    made.holding.shard()
    settled(made)
    effort = Effort(candidates=800, lists=every_list, margin=4.0)
    before = measuring(made, Asked()).at(effort)
    during = measuring(made, Asked())
    made.erase([Position(p) for p in range(0, 2_000, 10)])
    made.add_vectors(hard_vectors(3, 500))
    after = during.at(effort)
    assert before.recall > 0.95
    assert after.recall < before.recall
    made.close()
