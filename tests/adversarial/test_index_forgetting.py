"""An attacker reads the process' memory after an erasure: the codes must not be there, wherever FAISS had them."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from secure_embed.errors import IntegrityFailure
from secure_embed.index import Added, Codebook, Erased, RabitqShard
from secure_embed.index._codes import CodeLists
from secure_embed.types import Action, Ticket

DIMENSION = 384
PIECE_BYTES = 1 << 22
# What the test keeps of a code is masked, so that it does not find itself. Of the arrays' own type: for a plain int
# numpy copies through a buffer, which it does not wipe.
MASK = np.uint8(0xA5)


def erase_ticket() -> Ticket:
    return Ticket(intent_index=0, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 600)


def writable_memory() -> Iterator[tuple[int, int]]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        if found and "[v" not in line:
            yield int(found[1], 16), int(found[2], 16)


def occurrences(masked: np.ndarray) -> int:
    """How often the code lies in this process' writable memory, apart from this function's own two buffers."""
    needle = masked ^ MASK
    piece = np.zeros(PIECE_BYTES, np.uint8)
    own = [(buffer.ctypes.data, buffer.ctypes.data + buffer.nbytes) for buffer in (needle, piece)]
    count = 0
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for start, stop in writable_memory():
            for at in range(start, stop, PIECE_BYTES - len(needle) + 1):
                memory.seek(at)
                try:
                    size = memory.readinto(memoryview(piece)[: min(PIECE_BYTES, stop - at)])
                except OSError:
                    break
                count += sum(
                    not any(low <= at + hit < high for low, high in own) for hit in matches(piece[:size], needle)
                )
    needle.fill(0)
    piece.fill(0)
    return count


def matches(piece: np.ndarray, needle: np.ndarray) -> list[int]:
    if len(piece) < len(needle):
        return []
    starts = len(piece) - len(needle) + 1
    hits = np.flatnonzero(piece[:starts] == needle[0])
    for offset in range(1, len(needle)):
        hits = hits[piece[hits + offset] == needle[offset]]
    return hits.tolist()


def masked_codes(codebook: Codebook, vectors: np.ndarray) -> np.ndarray:
    batch = CodeLists(codebook).encode(codebook.turn_records(vectors))
    # The signs, a bit a dimension, without the two factors after them.
    signs = np.ascontiguousarray(batch.codes[:, : DIMENSION // 8])
    batch.wipe()
    masked = signs ^ MASK
    signs.fill(0)
    return masked


def unit_vectors(seed: int, n: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(codebook: Codebook, vectors: np.ndarray, batch: int) -> RabitqShard:
    """In many small batches, so that the lists grow and move many times."""
    shard = RabitqShard(
        codebook=codebook,
        schema={},
        tag_attribute=lambda *_: b"",
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )
    for sequence, start in enumerate(range(0, len(vectors), batch), start=1):
        part = vectors[start : start + batch]
        positions = np.arange(start, start + len(part))
        shard.apply([Added(sequence=sequence, positions=positions, vectors=part, attributes=[{}] * len(part))])
    return shard


def as_it_is(shard: RabitqShard) -> RabitqShard:
    return shard


def restored(shard: RabitqShard) -> RabitqShard:
    """Saved, closed and read again; the chunks' plaintext is the caller's, who hands over buffers that can be wiped."""
    chunks = [bytearray(chunk) for chunk in shard.chunks()]
    shard.close()
    return RabitqShard.restored(
        chunks,
        codebook=shard.codebook,
        schema={},
        tag_attribute=lambda *_: b"",
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )


@pytest.mark.parametrize("come", [as_it_is, restored], ids=["built", "restored"])
@pytest.mark.parametrize("lists", [1, 8])
def test_a_forgotten_code_is_nowhere_in_memory(lists: int, come: Callable[[RabitqShard], RabitqShard]) -> None:
    vectors = unit_vectors(1, 600)
    codebook = Codebook.train(vectors, version=2, lists=lists)
    shard = come(filled(codebook, vectors, batch=37))
    gone = [0, 5, 300, 598, 599]  # the first, the last, one whose place the last one takes
    masked = masked_codes(codebook, vectors)
    # Exactly one each: growing left no copy behind. This also shows that the search finds what is there.
    assert [occurrences(masked[at]) for at in gone] == [1] * len(gone)
    shard.forget(gone[:3], version=shard.version + 3, ticket=erase_ticket())
    shard.apply([Erased(sequence=shard.version + 1 + i, position=at) for i, at in enumerate(gone[3:])])
    assert [occurrences(masked[at]) for at in gone] == [0] * len(gone)
    assert [occurrences(masked[at]) for at in (1, 301, 597)] == [1, 1, 1]


def close(shards: list[RabitqShard]) -> None:
    shards.pop().close()


@pytest.mark.parametrize("come", [as_it_is, restored], ids=["built", "restored"])
@pytest.mark.parametrize("end", [close, list.clear], ids=["closed", "dropped"])
def test_a_shard_that_ends_leaves_no_code(
    end: Callable[[list[RabitqShard]], None], come: Callable[[RabitqShard], RabitqShard]
) -> None:
    """Dropped as when a collection is built again with a new codebook."""
    vectors = unit_vectors(2, 50)
    codebook = Codebook.draw(DIMENSION)
    shards = [come(filled(codebook, vectors, batch=50))]
    masked = masked_codes(codebook, vectors)
    assert occurrences(masked[7]) == 1
    end(shards)
    assert [occurrences(masked[at]) for at in (0, 7, 49)] == [0, 0, 0]


@pytest.mark.parametrize("left", [1, 200])
def test_saved_codes_that_break_off_leave_no_code(left: int) -> None:
    """Damaged behind the first codes: what was put in until then is overwritten."""
    vectors = unit_vectors(4, 200)
    codebook = Codebook.draw(DIMENSION)
    shard = filled(codebook, vectors, batch=200)
    masked = masked_codes(codebook, vectors)
    (chunk,) = (bytearray(chunk) for chunk in shard.chunks())
    shard.close()
    cut = chunk[:-left]  # a bytearray; a copy of a copy would be freed as it is
    chunk[:] = bytes(len(chunk))
    with pytest.raises(IntegrityFailure):
        RabitqShard.restored(
            [cut], codebook=codebook, schema={}, tag_attribute=lambda *_: b"", open_vectors=lambda at, out: at >= 0
        )
    assert [occurrences(masked[at]) for at in (0, 100, 199)] == [0, 0, 0]


def test_turned_vectors_are_wiped_when_their_codes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is lossy; the vector it was made from is not. The batch it came in is the caller's to wipe."""
    turned: list[np.ndarray] = []
    turn = Codebook.turn_records

    def watched(self: Codebook, vectors: np.ndarray) -> np.ndarray:
        turned.append(turn(self, vectors))
        assert turned[-1].any()
        return turned[-1]

    monkeypatch.setattr(Codebook, "turn_records", watched)
    vectors = unit_vectors(3, 80)
    shard = filled(Codebook.draw(DIMENSION), vectors, batch=40)
    assert shard.size == 80
    assert len(turned) == 2
    assert not any(array.any() for array in turned)
    assert vectors.all()


def test_attribute_values_and_their_keyed_hashes_go_with_the_record() -> None:
    tags: list[bytes] = []

    def tag(name: str, value: str) -> bytes:
        tags.append(f"{name}/{value}".encode().ljust(32, b"."))
        return tags[-1]

    shard = RabitqShard(
        codebook=Codebook.draw(4),
        schema={"dep": "string", "level": "long"},
        tag_attribute=tag,
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )
    attributes = [{"dep": "rare", "level": 4_242}, {"dep": "common", "level": 1}, {"dep": "common", "level": 2}]
    vectors = np.eye(4, dtype=np.float32)[:3]
    shard.apply([Added(sequence=1, positions=np.arange(3), vectors=vectors, attributes=attributes)])
    dep, level = shard._columns.get("dep"), shard._columns.get("level")
    assert set(dep._numbers) == set(tags)
    assert len(set(tags)) == 2
    shard.forget([0, 1], version=3, ticket=erase_ticket())
    assert [tag.split(b".")[0] for tag in dep._numbers] == [b"dep/common"]
    assert 4_242 not in level._values._memory
    assert shard._slots._positions.values.tolist() == [-1, -1, 2]


def test_string_values_are_held_as_keyed_hashes_only() -> None:
    secret = "oncology" + str(time.monotonic_ns())
    shard = RabitqShard(
        codebook=Codebook.draw(4),
        schema={"dep": "string"},
        tag_attribute=lambda name, value: b"\x07" * 32,
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )
    vectors = np.eye(4, dtype=np.float32)[:1]
    shard.apply([Added(sequence=1, positions=np.arange(1), vectors=vectors, attributes=[{"dep": secret}])])
    import gc

    held = [o for o in gc.get_referrers(secret) if isinstance(o, dict) and "_numbers" in o]
    assert held == []
    assert shard._columns.get("dep")._numbers == {b"\x07" * 32: 0}
