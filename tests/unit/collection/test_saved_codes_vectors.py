"""What was written down once is read the same for ever: tests/vectors/saved-codes.json."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from secure_embed.collection.saved_codes import Standing
from secure_embed.errors import Conflict, IntegrityFailure
from secure_embed.index import Effort, RabitqShard
from secure_embed.types import Equals, RowFilter, TruthValue

VECTORS = Path(__file__).parents[2] / "vectors"
GENERATOR = runpy.run_path(str(VECTORS / "generate_saved_codes.py"))
SAVED = json.loads((VECTORS / "saved-codes.json").read_text())


@pytest.mark.parametrize("vector", SAVED["standings"])
def test_what_codes_stand_for(vector: dict) -> None:
    raw = bytes.fromhex(vector["raw"])
    if vector["expect"] != "ok":
        with pytest.raises(IntegrityFailure) as refused:
            Standing.from_bytes(raw)
        assert refused.value.code == vector["expect"]
        return
    read = Standing.from_bytes(raw)
    last = None if read.last is None else [read.last.sequence, read.last.kind, read.last.first, read.last.count]
    assert (read.codebook, last) == (vector["codebook"], vector["last"])
    assert read.to_bytes() == raw


def restored(version: int) -> RabitqShard:
    return RabitqShard.restored(
        [bytes.fromhex(SAVED["state"]["raw"])],
        codebook=GENERATOR["codebook"](version),
        schema=GENERATOR["SCHEMA"],
        tag_attribute=GENERATOR["tag"],
        open_vectors=lambda at, _: at >= 0,
    )


def test_a_shards_state() -> None:
    shard = restored(3)
    query = np.eye(8, dtype=np.float32)[:1]

    def found(rows: RowFilter) -> list[int]:
        return sorted(shard.scan(query, shard.select(rows, None), k=5, effort=Effort(candidates=5)).positions.tolist())

    assert (shard.version, shard.size) == (SAVED["state"]["version"], len(SAVED["state"]["positions"]))
    assert found(RowFilter(permits=(TruthValue(True),))) == SAVED["state"]["positions"]
    assert found(RowFilter(permits=(Equals("dep", "a"),))) == SAVED["state"]["positions_of_dep_a"]
    assert b"".join(bytes(chunk) for chunk in shard.chunks()).hex() == SAVED["state"]["raw"]


def test_codes_of_another_codebook_are_told_apart() -> None:
    with pytest.raises(Conflict) as refused:
        restored(4)
    assert refused.value.code == "codebook_version"
