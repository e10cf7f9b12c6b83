"""Writes saved-codes.json: what saved codes stand for, and one small shard's state, with what a reader answers.

    python tests/vectors/generate_saved_codes.py

Codes hold floats that FAISS computed, so a new run may differ in their last bits; the reader's answers may not.
"""

import json
from pathlib import Path

import numpy as np

from secure_embed.collection.saved_codes import Standing
from secure_embed.index import Added, Codebook, Erased, RabitqShard
from secure_embed.store import Change
from secure_embed.types import Position

SCHEMA = {"dep": "string", "level": "long", "vip": "bool"}


def codebook(version: int = 3) -> Codebook:
    """The one of the vectors: nothing is turned, two lists."""
    return Codebook(
        rotation=np.eye(8, dtype=np.float32),
        centroids=np.stack([np.full(8, 0.25, np.float32), np.full(8, -0.25, np.float32)]),
        bits=1,
        version=version,
        trained_on=100,
    )


def tag(name: str, value: str) -> bytes:
    return f"{name}={value}".encode().ljust(32, b".")


def main() -> None:
    shard = RabitqShard(codebook=codebook(), schema=SCHEMA, tag_attribute=tag, open_vectors=lambda at, _: at >= 0)
    vectors = np.concatenate([np.eye(8, dtype=np.float32), -np.eye(8, dtype=np.float32)])
    records = [{"dep": "ab"[i % 2], "level": i - 8} | ({"vip": i > 9} if i % 3 else {}) for i in range(16)]
    shard.apply([Added(sequence=1, positions=np.arange(5, 21), vectors=vectors, attributes=records)])
    shard.apply([Erased(sequence=2, position=Position(20)), Erased(sequence=3, position=Position(6))])
    state = b"".join(bytes(chunk) for chunk in shard.chunks())
    standings = [
        Standing(last=None, codebook=1),
        Standing(last=Change(sequence=7, kind="added", first=Position(40), count=3), codebook=2),
        Standing(last=Change(sequence=8, kind="resealed", first=Position(0), count=43), codebook=2),
        Standing(last=Change(sequence=2**40, kind="erased", first=Position(2**33), count=1), codebook=2**32 - 1),
    ]
    wrong = {
        "short": standings[1].to_bytes()[:-1],
        "long": standings[1].to_bytes() + b"\0",
        "of no known kind": standings[1].to_bytes()[:12] + b"\x09" + standings[1].to_bytes()[13:],
        "no change, but a position": standings[0].to_bytes()[:-9] + b"\1" + standings[0].to_bytes()[-8:],
    }
    found = {
        "standings": [
            {
                "raw": each.to_bytes().hex(),
                "codebook": each.codebook,
                "last": None
                if each.last is None
                else [each.last.sequence, each.last.kind, each.last.first, each.last.count],
                "expect": "ok",
            }
            for each in standings
        ]
        + [{"name": name, "raw": raw.hex(), "expect": "codes_unreadable"} for name, raw in wrong.items()],
        "state": {
            "raw": state.hex(),
            "version": 3,
            "positions": [5, *range(7, 20)],
            "positions_of_dep_a": list(range(5, 20, 2)),
        },
    }
    Path(__file__).with_name("saved-codes.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
