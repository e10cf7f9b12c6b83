"""How good a ranking is, and the plain exact search that the demo's service is compared with. Pure functions.

Formulas as in trec_eval 9: ``recall`` counts every judged grade of 1 or more as relevant; ``ndcg_cut`` takes the grade
itself as gain and log2(rank + 1) as discount (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002, in trec_eval's form).
trec_eval orders by score and breaks ties by identifier; here the order is taken as it is given, because the service
hands out rounded scores and its order says more than they do.
"""

from collections.abc import Mapping, Sequence
from math import log2

import numpy as np

from secure_embed.types import Positions, Vectors

__all__ = ["exact_search", "ndcg_at_k", "recall_at_k"]

Run = Mapping[str, Sequence[str]]  # query id -> record ids, best first
Qrels = Mapping[str, Mapping[str, int]]  # query id -> record id -> grade


def recall_at_k(run: Run, qrels: Qrels, k: int) -> float:
    """Mean over the judged queries of the share of relevant records that are among the first ``k``.

    A query that the run lacks counts as 0, as with trec_eval's -c; one without a relevant record is left out.
    """
    shares = []
    for query, grades in qrels.items():
        relevant = {record for record, grade in grades.items() if grade > 0}
        if relevant:
            shares.append(len(relevant.intersection(run.get(query, ())[:k])) / len(relevant))
    return _mean(shares)


def ndcg_at_k(run: Run, qrels: Qrels, k: int) -> float:
    """Mean over the judged queries of DCG at ``k`` divided by that of the best order there is.

    What is not judged has grade 0. Missing queries and queries without a relevant record: as in :func:`recall_at_k`.
    """
    values = []
    for query, grades in qrels.items():
        best = _dcg(sorted(grades.values(), reverse=True)[:k])
        if best > 0:
            values.append(_dcg([grades.get(record, 0) for record in run.get(query, ())[:k]]) / best)
    return _mean(values)


def exact_search(vectors: Vectors, query: Vectors, k: int) -> Positions:
    """The ``k`` rows of ``vectors`` (n, d) with the largest inner product with ``query`` (d,), best first.

    Equal scores: the smaller row number first, as in the service. Fewer than ``k`` rows: all of them.
    """
    scores = vectors @ query
    return np.argsort(-scores, kind="stable")[:k].astype(np.int64)


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
