"""Durable ingest without embedding: sealed, and beside it in the same process plain SQLite with the same content.

    OMP_NUM_THREADS=1 python benchmarks/store.py [--folder DIR] [--rounds 5] [--out benchmarks/results/store.json]

One round writes ``round_records`` records in batches to each of three sides that keep growing; which one begins changes
from round to round. ``sealed`` is what an ingest does after embedding: seal under new record keys, put the keys, append.
``store`` is the append alone, of values sealed before. ``plain`` is one SQLite table with the vector as a BLOB, an index
of ids, the same durability (WAL, synchronous FULL) and the same content, unsealed. Every batch is durable before the
next begins. Rates are of the wall clock, and so are the ratios, round by round.
"""

import argparse
import gc
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from main_job_machine import OthersShare, machine, medium_of, rounded, spread, versions
from store_picture import draw

from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, SqlcipherKeyStore, TagKind
from secure_embed.store import SealedCollection, SealedRow, SqlcipherRecordStore
from secure_embed.types import Field, Position

dimension = 1_024
text_bytes = 400
batch_records = 1_000
goal_records_per_s = 15_000
goal_times_plain = 2.5
database_key = bytes(range(32))

Record = tuple[str, str, bytes, bytes, bytes]  # id, subject, vector, text, metadata


def records(first: int, count: int) -> list[Record]:
    """Vectors of random directions as binary16, texts of ``text_bytes`` characters, metadata as the service seals it."""
    random = np.random.default_rng(first)
    vectors = random.standard_normal((count, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halves = vectors.astype("<f2")
    made = []
    for n in range(count):
        identifier, subject = f"record-{first + n:09}", f"subject-{(first + n) // 5:08}"
        words = hashlib.sha256(identifier.encode()).hexdigest()
        text = (words * (text_bytes // len(words) + 1))[:text_bytes].encode()
        meta = {"id": identifier, "subject": subject, "attributes": {"department": "d", "level": n % 5}, "metadata": {}}
        made.append((identifier, subject, halves[n].tobytes(), text, json.dumps(meta).encode()))
    return made


class Sealing:
    """Keys of one collection, and what of the records is there before the store's part begins."""

    def __init__(self, folder: Path) -> None:
        passphrase = folder / "passphrase"
        passphrase.write_bytes(b"correct horse battery staple\n")
        passphrase.chmod(0o600)
        provider = PassphraseProvider.create(folder / "root.json", passphrase)
        self.uuid, self.space = uuid4(), bytes(32)
        self.key_store = SqlcipherKeyStore(folder / "keys.db", database_key, rows_key=bytes(32))
        self.keys = CollectionKeys.create(Keyring.create(folder / "keyring.json", provider), self.key_store, self.uuid)
        self.store = SqlcipherRecordStore(folder / "data.db", database_key, rows_key=bytes(32))
        self.store.create_collection(SealedCollection(uuid=self.uuid, name_tag=os.urandom(32), descriptor=b"sealed"))

    def seal(self, first: int, batch: Sequence[Record]) -> tuple[list[Any], list[SealedRow]]:
        tag = self.keys.tag
        wrapped, sealed = self.keys.seal_records(
            Position(first),
            [tag(TagKind.SUBJECT, subject) for _, subject, *_ in batch],
            [{Field.VECTOR: vector, Field.TEXT: text, Field.META: meta} for *_, vector, text, meta in batch],
            self.space,
        )
        rows = [
            SealedRow(position=Position(first + n), id_tag=tag(TagKind.RECORD_ID, record[0]), fields=fields)
            for n, (record, fields) in enumerate(zip(batch, sealed, strict=True))
        ]
        return wrapped, rows

    def close(self) -> None:
        self.store.close()
        self.key_store.close()


class Sealed:
    def __init__(self, folder: Path) -> None:
        self.side = Sealing(folder)

    def prepare(self, first: int, batch: Sequence[Record]) -> Callable[[], None]:
        def write() -> None:
            wrapped, rows = self.side.seal(first, batch)
            self.side.key_store.put(self.side.uuid, wrapped)
            self.side.store.append(self.side.uuid, rows, request=None)
            self.side.keys.admit(wrapped)

        return write

    def close(self) -> None:
        self.side.close()


class StoreAlone:
    def __init__(self, folder: Path) -> None:
        self.side = Sealing(folder)

    def prepare(self, first: int, batch: Sequence[Record]) -> Callable[[], None]:
        _, rows = self.side.seal(first, batch)
        return lambda: self.side.store.append(self.side.uuid, rows, request=None) and None

    def close(self) -> None:
        self.side.close()


class Plain:
    def __init__(self, folder: Path) -> None:
        self.database = sqlite3.connect(folder / "plain.db", isolation_level=None)
        for setting in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            self.database.execute(f"PRAGMA {setting}")
        self.database.execute(
            """CREATE TABLE record (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, subject TEXT,
            vector BLOB NOT NULL, text BLOB NOT NULL, meta BLOB NOT NULL) STRICT"""
        )

    def prepare(self, first: int, batch: Sequence[Record]) -> Callable[[], None]:
        def write() -> None:
            self.database.execute("BEGIN IMMEDIATE")
            self.database.executemany(
                "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)",
                [(first + n, *record) for n, record in enumerate(batch)],
            )
            self.database.execute("COMMIT")

        return write

    def close(self) -> None:
        self.database.close()


sides: dict[str, type[Sealed | StoreAlone | Plain]] = {"sealed": Sealed, "store": StoreAlone, "plain": Plain}


def measure(folder: Path, rounds: int, round_records: int) -> dict[str, Any]:
    opened = {}
    for name, side in sides.items():
        (folder / name).mkdir()
        opened[name] = side(folder / name)
    taken: dict[str, list[float]] = {name: [] for name in sides}  # seconds a round
    used: dict[str, list[float]] = {name: [] for name in sides}  # seconds of processor time a round, all threads
    slowest: dict[str, float] = dict.fromkeys(sides, 0.0)  # one batch
    for number in range(rounds + 1):  # the first warms up and is not counted
        order = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        spent, worked = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
        for at in range(0, round_records, batch_records):
            first = number * round_records + at
            batch = records(first, batch_records)
            for name in order:
                write = opened[name].prepare(first, batch)
                gc.collect()
                gc.disable()
                began, worked_before = time.perf_counter(), time.process_time()
                write()
                seconds = time.perf_counter() - began
                worked[name] += time.process_time() - worked_before
                gc.enable()
                spent[name] += seconds
                if number:
                    slowest[name] = max(slowest[name], seconds)
        if number:
            for name, seconds in spent.items():
                taken[name].append(seconds)
                used[name].append(worked[name])
    for side_open in opened.values():
        side_open.close()
    sizes = {name: sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file()) for name in sides}
    written = (rounds + 1) * round_records
    return {
        name: {
            "records_per_s": spread([round_records / seconds for seconds in taken[name]]),
            "times_plain": spread([mine / plain for mine, plain in zip(taken[name], taken["plain"], strict=True)]),
            "processor_ms_per_1000_records": spread([1e6 * seconds / round_records for seconds in used[name]]),
            "slowest_batch_ms": 1_000 * slowest[name],
            "bytes_per_record": sizes[name] / written,
        }
        for name in sides
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the medium to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-records", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=None, help="a .json; a picture of the same name goes beside it")
    arguments = parser.parse_args()
    others = OthersShare()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        medium = medium_of(Path(made))
        figures = measure(Path(made), arguments.rounds, arguments.round_records)
    result = rounded(
        {
            "command": "OMP_NUM_THREADS=1 python benchmarks/store.py",
            "machine": machine(medium),
            "versions": versions(),
            "parameters": {
                "dimension": dimension,
                "text_bytes": text_bytes,
                "batch_records": batch_records,
                "rounds": arguments.rounds,
                "records_of_each_side": arguments.rounds * arguments.round_records,
                "warm_up_records": arguments.round_records,
            },
            "goals": {"records_per_s": goal_records_per_s, "times_plain": goal_times_plain},
            "cores_taken_by_others": others.since_last(),
            **figures,
        }
    )
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")
        draw(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
