"""Opening a collection's saved codes, beside reading as many bytes from a plain file, in alternating rounds.

    python benchmarks/codes.py [--records 200000] [--dimension 1024] [--rounds 7] [--folder DIR] [--cold]

Real keys, a real sealed file. The codes are of clustered vectors, made in blocks. Prints JSON; ``opening`` is the sealed
file read and every chunk opened, ``restoring`` is what FAISS and the columns take on top of that, ``rebuild`` is what
the start would cost without the file (opening and coding sealed vectors; measured on ``--rebuild`` records).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import cryptography
import faiss
import numpy as np

from secure_embed.collection.holding import Holding
from secure_embed.collection.saved_codes import SavedCodes, Standing
from secure_embed.index import Codebook, RabitqShard, sample_for
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, SqlcipherKeyStore
from secure_embed.store import SealedCollection, SqlcipherRecordStore
from secure_embed.types import Collection, Record, Space

BLOCK = 10_000
CHUNK_BYTES = 1 << 20
SCHEMA = {"department": "string", "sensitivity": "long"}


class KnownRoot(PassphraseProvider):
    """The real provider without Argon2id, which has nothing to do with this."""

    def __init__(self) -> None:
        super().__init__(bytearray(range(32)), "known", (65_536, 3, 4))


def blocks(records: int, dimension: int) -> Iterator[np.ndarray]:
    """(up to BLOCK, dimension) float32, unit length, about 50 records around each normal centre."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((max(1, records // 50), dimension), dtype=np.float32)
    for start in range(0, records, BLOCK):
        count = min(BLOCK, records - start)
        made = centres[rng.integers(0, len(centres), count)]
        made += 0.6 * rng.standard_normal((count, dimension), dtype=np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        yield made


def attributes(start: int, count: int) -> list[dict[str, str | int]]:
    return [{"department": f"d{at % 20}", "sensitivity": at % 4} for at in range(start, start + count)]


class Side:
    """Keys, a store and the codes' file in one folder."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self.collection = Collection(
            name="bench",
            uuid=UUID(int=1),
            space=Space(model="m", revision="1", manifest_sha256="0" * 64, pooling="mean", dimension=dimension),
            attributes=SCHEMA,
            risk_profile="standard",
            created_unix=0,
        )
        uuid = self.collection.uuid
        keyring = Keyring.create(folder / "keyring.json", KnownRoot())
        self.key_store = SqlcipherKeyStore(folder / "keys.db", os.urandom(32), rows_key=bytes(32))
        self.store = SqlcipherRecordStore(folder / "data.db", os.urandom(32), rows_key=bytes(32))
        self.keys = CollectionKeys.create(keyring, self.key_store, uuid)
        self.store.create_collection(SealedCollection(uuid=uuid, name_tag=bytes(32), descriptor=b"sealed"))
        self.path = folder / "codes" / str(uuid)
        self.buffer = bytearray(CHUNK_BYTES)
        self.saved = SavedCodes(self.path, self.keys, self.key_store)
        self.codebook: Codebook

    def parts(self) -> dict[str, object]:
        return {
            "codebook": self.codebook,
            "schema": SCHEMA,
            "tag_attribute": lambda name, value: f"{name}={value}".encode().ljust(32, b"\0"),
            "open_vectors": lambda at, _: np.ones(len(at), np.bool_),
        }

    def save(self, records: int, dimension: int) -> float:
        """Codes of all blocks, saved; gives the seconds that saving took."""
        stride = max(1, records // sample_for(records))
        sample = np.concatenate([block[::stride].copy() for block in blocks(records, dimension)])
        self.codebook = Codebook.train(sample, version=1, records=records)
        del sample
        shard = RabitqShard(**self.parts())
        for number, block in enumerate(blocks(records, dimension)):
            start = number * BLOCK
            shard.load(np.arange(start, start + len(block)), block, attributes(start, len(block)))
        began = time.perf_counter()
        self.saved.write(Standing(last=None, codebook=1), shard.chunks())
        taken = time.perf_counter() - began
        shard.close()
        return taken

    def opening(self) -> int:
        found = self.saved.read(self.store, codebook=1)
        assert found is not None
        return sum(len(chunk) for chunk in found.chunks)

    def opening_alone(self, chunks: list[bytes]) -> int:
        """Chunks that are sealed and in memory: AES-GCM, without the file."""
        out = memoryview(self.buffer)
        last = len(chunks) - 1
        return sum(self.keys.open_codes_into(n, n == last, memoryview(chunk), out) for n, chunk in enumerate(chunks))

    def sealed(self) -> list[bytes]:
        """As they lie in the file: docs/formats.md."""
        raw = self.path.read_bytes()
        first, full = 9, 9 + 62
        return [raw[first:full], *(raw[at : at + CHUNK_BYTES + 33] for at in range(full, len(raw), CHUNK_BYTES + 33))]

    def shard_from_file(self) -> int:
        found = self.saved.read(self.store, codebook=1)
        assert found is not None
        shard = RabitqShard.restored(found.chunks, **self.parts())
        size = shard.size
        shard.close()
        return size

    def restoring(self, chunks: list[bytes]) -> int:
        shard = RabitqShard.restored(chunks, **self.parts())
        size = shard.size
        shard.close()
        return size

    def rebuild_us_a_record(self, records: int, dimension: int) -> float:
        """Ingest, then what a start without saved codes does."""

        def holding() -> Holding:
            keys, key_store, store = self.keys, self.key_store, self.store
            return Holding(self.collection, keys=keys, key_store=key_store, store=store)

        first, done = holding(), 0
        for block in blocks(records, dimension):
            for start in range(0, len(block), 500):
                part = block[start : start + 500]
                made = [
                    Record(id=f"r{done + i}", text="text", attributes=each)
                    for i, each in enumerate(attributes(done, len(part)))
                ]
                first.append(made, part, request=None)
                done += len(part)
        while first.busy:  # a new codebook on its way
            time.sleep(0.01)
        began = time.perf_counter()
        holding().shard()
        return 1e6 * (time.perf_counter() - began) / records


def plain_chunked(path: Path) -> int:
    """The cheapest way to have looked at every byte: one buffer, which stays in the cache."""
    buffer, total = bytearray(CHUNK_BYTES), 0
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # as the other side does
        while got := file.readinto(buffer):
            total += got
    return total


def plain_whole(path: Path) -> int:
    """What a program does that wants the bytes: one block of memory."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return len(file.read())


def drop(path: Path) -> None:
    """Out of the page cache, as far as the kernel follows the advice."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def in_ms(taken: list[float]) -> dict[str, float]:
    low, _, high = statistics.quantiles(taken, n=4)
    return {
        "median_ms": round(1e3 * statistics.median(taken), 2),
        "quartiles_ms": [round(1e3 * low, 2), round(1e3 * high, 2)],
        "least_ms": round(1e3 * min(taken), 2),
    }


def measured(side: Side, plain: Path, rounds: int, *, cold: bool) -> dict[str, object]:
    chunks = [bytes(chunk) for chunk in side.saved.read(side.store, codebook=1).chunks]
    sealed = side.sealed()
    jobs: dict[str, Callable[[], int]] = {
        "plain_chunked": lambda: plain_chunked(plain),
        "plain_whole": lambda: plain_whole(plain),
        "opening": side.opening,
        "opening_alone": lambda: side.opening_alone(sealed),
        "restoring": lambda: side.restoring(chunks),
        "shard_from_file": side.shard_from_file,
    }
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    cpu: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):  # the first warms up
        order = list(jobs) if number % 2 else list(reversed(jobs))
        for name in order:
            if cold:
                drop(plain)
                drop(side.path)
            began, began_cpu = time.perf_counter(), time.process_time()
            jobs[name]()
            if number:
                taken[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - began_cpu)
    ratios = {
        f"{name}_over_{base}": sorted(a / b for a, b in zip(taken[name], taken[base], strict=True))
        for name in ("opening", "shard_from_file")
        for base in ("plain_chunked", "plain_whole")
    }
    return {
        name: in_ms(each) | {"cpu_median_ms": round(1e3 * statistics.median(cpu[name]), 2)}
        for name, each in taken.items()
    } | {
        name: {
            "median": round(statistics.median(each), 2),
            "least_and_most": [round(each[0], 2), round(each[-1], 2)],
        }
        for name, each in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=1_024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rebuild", type=int, default=10_000, help="records ingested and built; 0: none")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        folder = Path(made)
        side = Side(folder, asked.dimension)
        saving = side.save(asked.records, asked.dimension)
        size = side.path.stat().st_size
        plain = folder / "plain"
        plain.write_bytes(os.urandom(size))
        result = {
            "command": f"benchmarks/codes.py --records {asked.records} --dimension {asked.dimension} "
            f"--rounds {asked.rounds} --rebuild {asked.rebuild}",
            "machine": {
                "system": platform.platform(),
                "processor": processor(),
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "faiss": faiss.__version__,
                "cryptography": cryptography.__version__,
                "commit": commit(),
                "load_before": os.getloadavg()[0],
            },
            "records": asked.records,
            "dimension": asked.dimension,
            "lists": side.codebook.lists,
            "file_bytes": size,
            "bytes_a_record": round(size / asked.records, 1),
            "saving_s": round(saving, 3),
            "warm": measured(side, plain, asked.rounds, cold=False),
            "cold": measured(side, plain, asked.rounds, cold=True),
        }
    if asked.rebuild:
        with tempfile.TemporaryDirectory(dir=asked.folder) as made:
            each = Side(Path(made), asked.dimension).rebuild_us_a_record(asked.rebuild, asked.dimension)
        result["rebuild"] = {
            "records": asked.rebuild,
            "us_a_record": round(each, 1),
            "s_for_all_at_that_rate": round(each * asked.records / 1e6, 2),
        }
    result["resident_max_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    text = json.dumps(result, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    main()
