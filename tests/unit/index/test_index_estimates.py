"""Estimates by compiled code beside FAISS' own, of the codes that FAISS made."""

import numpy as np
import pytest

from secure_embed import bulk
from secure_embed.index import Added, Codebook, Effort, RabitqShard, every_list
from secure_embed.types import Compare, RowFilter, TruthValue

EVERYTHING = RowFilter(permits=(TruthValue(True),))
RECORDS = 3_000


def clustered(dimension: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    made = np.repeat(rng.standard_normal((60, dimension)), RECORDS // 60, axis=0)
    made += 0.7 * rng.standard_normal((RECORDS, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def shard_of(vectors: np.ndarray, codebook: Codebook) -> RabitqShard:
    made = RabitqShard(
        codebook=codebook,
        schema={"n": "long"},
        tag_attribute=lambda *_: b"",
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )
    attributes = [{"n": n} for n in range(RECORDS)]
    made.apply([Added(sequence=1, positions=np.arange(RECORDS), vectors=vectors, attributes=attributes)])
    return made


@pytest.mark.skipif(bulk.compiled() is None, reason="it is not compiled here")
@pytest.mark.parametrize("dimension", [128, 129, 200, 384, 1_024])
@pytest.mark.parametrize("lists", [1, 24])
@pytest.mark.parametrize("rows", [EVERYTHING, RowFilter(permits=(Compare("n", "<", 2_500),))], ids=["all", "filtered"])
def test_estimates_are_as_near_as_faiss_own(
    dimension: int, lists: int, rows: RowFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(dimension)
    random_bytes = np.random.default_rng(4).bytes
    codebook = Codebook.train(vectors, version=2, lists=lists, bits=1, random_bytes=random_bytes)
    ours = shard_of(vectors, codebook)
    monkeypatch.setattr("secure_embed.bulk._calls.native", None)
    theirs = shard_of(vectors, codebook)
    effort = Effort(candidates=2_400, lists=every_list)
    off: dict[str, list[np.ndarray]] = {"ours": [], "theirs": [], "between": []}
    for query in np.concatenate([vectors[::300], clustered(dimension)[7::500] @ codebook.rotation]):
        estimates = {}
        for name, shard in (("ours", ours), ("theirs", theirs)):
            found = shard.scan(query[None], shard.select(rows, None), k=10, effort=effort)
            assert len(found.positions) == (2_400 if rows is EVERYTHING else 2_500)
            assert (np.diff(found.estimates) <= 0).all()
            estimates[name] = np.full(RECORDS, np.nan)
            estimates[name][found.positions] = found.estimates
            off[name].append((estimates[name] - vectors @ query)[found.positions])
        between = estimates["ours"] - estimates["theirs"]
        off["between"].append(between[np.isfinite(between)])
    deviation = {name: float(np.concatenate(each).std()) for name, each in off.items()}
    assert deviation["ours"] <= 1.01 * deviation["theirs"]
    assert deviation["ours"] < 1 / dimension**0.5  # RaBitQ, theorem 3.2: about 0.75 residual lengths / sqrt(d)
    assert deviation["between"] < deviation["theirs"]
    if lists > 1:  # what a query has along a centroid is known, not estimated
        assert deviation["ours"] < 0.97 * deviation["theirs"]
