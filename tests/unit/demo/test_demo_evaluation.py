"""The measures agree with values worked out by hand, and exact search with sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_embed.cli.demo.evaluation import exact_search, ndcg_at_k, recall_at_k

QRELS = {"q1": {"a": 2, "b": 1, "c": 1}}


@pytest.mark.parametrize(
    ("ranking", "k", "recall", "ndcg"),
    [
        (["a", "b", "c"], 3, 1.0, 1.0),
        (["a", "c", "b"], 3, 1.0, 1.0),  # equal grades change places
        (["b", "x", "a"], 3, 2 / 3, 0.6387879),  # (1/1 + 2/2) / (2/1 + 1/1.5849625 + 1/2)
        (["x", "a"], 2, 1 / 3, 0.4796249),  # (2/1.5849625) / (2/1 + 1/1.5849625)
        (["a", "b", "c"], 1, 1 / 3, 1.0),  # cut off: the best first rank is reached
        (["x", "y", "z", "a"], 3, 0.0, 0.0),
        ([], 3, 0.0, 0.0),
    ],
)
def test_values_worked_out_by_hand(ranking, k, recall, ndcg):
    assert recall_at_k({"q1": ranking}, QRELS, k) == pytest.approx(recall)
    assert ndcg_at_k({"q1": ranking}, QRELS, k) == pytest.approx(ndcg, abs=1e-7)


def test_the_mean_is_over_the_judged_queries():
    qrels = {**QRELS, "q2": {"d": 1}}
    assert recall_at_k({"q1": ["a", "b", "c"]}, qrels, 3) == 0.5  # q2 has no answer: 0
    assert ndcg_at_k({"q1": ["a", "b", "c"], "unjudged": ["z"]}, qrels, 3) == 0.5


def test_a_query_without_relevant_records_is_left_out():
    qrels = {**QRELS, "q2": {"d": 0}}
    run = {"q1": ["a", "b", "c"], "q2": ["d"]}
    assert recall_at_k(run, qrels, 3) == ndcg_at_k(run, qrels, 3) == 1.0
    assert recall_at_k({}, {}, 3) == ndcg_at_k({}, {}, 3) == 0.0


@given(st.permutations(["a", "b", "c", "x", "y"]), st.integers(1, 6))
def test_both_lie_between_0_and_1(ranking, k):
    for measure in (recall_at_k, ndcg_at_k):
        assert 0.0 <= measure({"q1": ranking}, QRELS, k) <= 1.0


@given(st.permutations(["a", "b", "c", "x", "y"]))
def test_moving_the_best_answer_up_never_lowers_ndcg(ranking):
    better = ["a", *(r for r in ranking if r != "a")]
    assert ndcg_at_k({"q1": better}, QRELS, 5) >= ndcg_at_k({"q1": ranking}, QRELS, 5)


def test_exact_search_orders_by_score_then_position():
    vectors = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    query = np.array([1, 0], dtype=np.float32)
    assert exact_search(vectors, query, 3).tolist() == [1, 3, 2]
    assert exact_search(vectors, query, 9).tolist() == [1, 3, 2, 0]
