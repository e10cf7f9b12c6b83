"""What a tuning chooses, on vectors that are hard to tell apart: recall@10, openings and codes looked at, by effort.

    python benchmarks/tuning.py [--records 20000] [--dimension 64] [--noise 1.0] [--bits 1] [--filtered] [--target 0.99]

Vectors: normal centres, normal noise of the given width a dimension, unit length, about 50 records a centre; opened by
a copy, since nothing here is timed but the whole. The way of search and the choice are the service's own. Prints JSON.
"""

import argparse
import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from secure_embed.collection.measuring import Measuring
from secure_embed.collection.tuned import Asked
from secure_embed.collection.tuning import choose, cost
from secure_embed.index import Codebook, Effort, RabitqShard, sample_for
from secure_embed.types import Action, Position, Ticket

BLOCK = 10_000
UNTUNED = Effort()


def vectors_of(records: int, dimension: int, noise: float) -> np.ndarray:
    """(records, dimension) float16, of about unit length."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((max(1, records // 50), dimension), dtype=np.float32)
    made = np.empty((records, dimension), np.float16)
    for start in range(0, records, BLOCK):
        block = centres[rng.integers(0, len(centres), min(BLOCK, records - start))]
        block += noise * rng.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        made[start : start + len(block)] = block
    return made


def shard_of(vectors: np.ndarray, bits: int) -> RabitqShard:
    records = len(vectors)

    def open_vectors(at: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[:] = vectors[at]
        return np.ones(len(at), np.bool_)

    sample = vectors[:: max(1, records // sample_for(records))].astype(np.float32)
    shard = RabitqShard(
        codebook=Codebook.train(sample, version=1, records=records, bits=bits),
        schema={},
        tag_attribute=lambda *_: b"",
        open_vectors=open_vectors,
    )
    for start in range(0, records, BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        shard.load(np.arange(start, start + len(block), dtype=np.int64), block, [{}] * len(block))
    return shard


def measured(args: argparse.Namespace) -> dict[str, Any]:
    vectors = vectors_of(args.records, args.dimension, args.noise)
    shard = shard_of(vectors, args.bits)

    def opener(at: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[:] = vectors[at]
        return np.ones(len(at), np.bool_)

    began = time.perf_counter()
    measuring = Measuring(
        shard,
        opener,
        asked=Asked(target=args.target, filtered=args.filtered),
        end=Position(args.records),
        texts=np.zeros((0, args.dimension), np.float32),
        rng=np.random.default_rng(1),
        ticket=Ticket(
            intent_index=0, action=Action.COLLECTION_TUNE, openings_max=args.records, expires_monotonic=began + 1e6
        ),
    )
    measuring.search_exactly(lambda: None)
    exact_s = time.perf_counter() - began
    before = measuring.with_filter(measuring.at(UNTUNED))
    chosen = choose(measuring.at, lists=shard.codebook.lists, k=10)
    return {
        **{name: getattr(args, name) for name in ("records", "dimension", "noise", "bits", "filtered", "target")},
        "lists": shard.codebook.lists,
        "code_bytes": shard.footprint().code_bytes,
        "exact_s": round(exact_s, 1),
        "all_s": round(time.perf_counter() - began, 1),
        "untuned": asdict(before) | {"cost": cost(before)},
        "chosen": chosen and asdict(measuring.with_filter(chosen)) | {"cost": cost(chosen)},
        "measured": [asdict(each) | {"cost": cost(each)} for each in measuring.measured],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--bits", type=int, default=1)
    parser.add_argument("--filtered", action="store_true")
    parser.add_argument("--target", type=float, default=0.99)
    print(json.dumps(measured(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
