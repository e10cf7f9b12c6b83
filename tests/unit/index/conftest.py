"""Small real shards over vectors that the test holds itself; the opener stands where the vault joins store and keys."""

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from secure_embed.index import Added, Codebook, Effort, RabitqShard
from secure_embed.types import Action, Attributes, AttributeType, RowFilter, Ticket, TruthValue

EVERYTHING = RowFilter(permits=(TruthValue(True),))


def tag(name: str, value: str) -> bytes:
    return hmac.digest(b"a key for tests", f"{name}\x00{value}".encode(), "sha256")


def ticket(action: Action = Action.QUERY, openings: int = 10_000) -> Ticket:
    return Ticket(intent_index=0, action=action, openings_max=openings, expires_monotonic=time.monotonic() + 3_600)


def clustered(seed: int, n: int, d: int, *, clusters: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) stored and (50, d) asked vectors, float32, unit length, around the same normal centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    both = centres[rng.integers(0, clusters, n + 50)] + noise * rng.standard_normal((n + 50, d))
    both = (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float32)
    return both[:n], both[n:]


@dataclass
class World:
    """A shard and what a plain program would know: fp16 vectors by position, and which are there."""

    vectors: np.ndarray
    schema: dict[str, AttributeType]
    codebook: Codebook
    attributes: Sequence[Attributes]
    gone: set[int] = field(default_factory=set)
    opened: list[int] = field(default_factory=list)
    buffers: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.halves = self.vectors.astype(np.float16)
        self.shard = RabitqShard(
            codebook=self.codebook, schema=self.schema, tag_attribute=tag, open_vectors=self.open_vectors
        )

    def open_vectors(self, at: np.ndarray, out: np.ndarray) -> np.ndarray:
        self.opened += at.tolist()
        self.buffers.append(out)
        there = np.array([int(p) not in self.gone for p in at])
        out[there] = self.halves[at[there]]
        return there

    def added(self, sequence: int, start: int, stop: int) -> Added:
        return Added(
            sequence=sequence,
            positions=np.arange(start, stop, dtype=np.int64),
            vectors=self.vectors[start:stop],
            attributes=self.attributes[start:stop],
        )

    def exact(self, query: np.ndarray, allowed: Sequence[int]) -> list[int]:
        """Allowed positions by (-cosine of the fp16 vectors, position), by a plain loop's arithmetic."""
        at = np.array(sorted(allowed), np.int64)
        rows = self.halves[at].astype(np.float64)
        scores = rows @ query[0].astype(np.float64) / np.linalg.norm(rows, axis=1)
        return at[np.lexsort((at, -scores))].tolist()

    def best(self, query: np.ndarray, rows: RowFilter = EVERYTHING, *, k: int = 10, rerank_k: int = 200) -> list[int]:
        selection = self.shard.select(rows, None)
        effort = Effort(candidates=rerank_k)
        candidates = self.shard.scan(query, selection, k=k, effort=effort)
        return self.shard.nearest(candidates, query, k=k, effort=effort, ticket=ticket()).positions[:k].tolist()


@pytest.fixture
def world() -> Callable[..., World]:
    def make(
        n: int = 60,
        d: int = 16,
        *,
        schema: dict[str, AttributeType] | None = None,
        attributes: Sequence[Attributes] | None = None,
        codebook: Codebook | None = None,
        seed: int = 1,
        fill: bool = True,
    ) -> World:
        vectors, _ = clustered(seed, n, d, clusters=max(2, n // 20), noise=0.6)
        made = World(
            vectors=vectors,
            schema=schema or {},
            codebook=codebook or Codebook.draw(d, random_bytes=np.random.default_rng(seed).bytes),
            attributes=attributes or [{}] * n,
        )
        if fill:
            made.shard.apply([made.added(1, 0, n)])
        return made

    return make


@pytest.fixture
def everything() -> RowFilter:
    return EVERYTHING


@pytest.fixture
def make_ticket() -> Callable[..., Ticket]:
    return ticket


@pytest.fixture
def make_clustered() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return clustered
