"""The same job without protection: sentence-transformers, faiss.IndexFlatIP and plain SQLite. The twin to compare with.

    python -m secure_embed.cli.demo.corpus --records 20000 --out CORPUS
    python benchmarks/plain_baseline.py ingest CORPUS/complaints/corpus.jsonl --folder STORE
    python benchmarks/plain_baseline.py query CORPUS/complaints/queries.jsonl --folder STORE

Each command is a process of its own and prints one JSON object: seconds, milliseconds a query, peak resident memory,
bytes on disk. ``query`` starts cold: its first answer counts from the start of the process. What it leaves out, against
the service: TLS and HTTP, tokens and policies, sealing, the log, deletes, filters. SQLite is as durable as the service's
files (WAL, synchronous FULL, one transaction a batch). The model is the same; the library forms its batches itself, as
whoever writes such a program would let it.
"""

import argparse
import json
import os
import resource
import sqlite3
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

began_unix = psutil.Process().create_time()
encode_batch = 32  # the library's default
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL, vector BLOB NOT NULL
)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["ingest", "query"])
    parser.add_argument("file", type=Path, help="corpus.jsonl or queries.jsonl, as BEIR has them")
    parser.add_argument("--folder", type=Path, required=True, help="where the store lies")
    parser.add_argument("--batch", type=int, default=100, help="records in one transaction")
    parser.add_argument("--threads", type=int, default=2, help="of the encoder; FAISS takes one")
    parser.add_argument("--repeat", type=int, default=5, help="times that the queries are asked")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in given.file.read_text(encoding="utf-8").splitlines()]
    with closing(_open(given.folder / "plain.db")) as database:
        encode = _encoder(given.threads)
        if given.command == "ingest":
            figures = _ingest(database, encode, lines, given.batch)
        else:
            figures = _query(database, encode, [line["text"] for line in lines] * given.repeat)
    on_disk = sum(path.stat().st_size for path in given.folder.rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"job": given.command, **figures, "rss_peak_bytes": peak, "disk_bytes": on_disk}))


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(SCHEMA)
    return database


def _encoder(threads: int) -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the service has it
    import torch
    from sentence_transformers import SentenceTransformer

    from secure_embed.embed import embedded_model_folder

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(embedded_model_folder()), device="cpu")

    def encode(texts: Sequence[str]) -> Any:
        return model.encode(
            list(texts), batch_size=encode_batch, normalize_embeddings=True, show_progress_bar=False
        )  # (n, d) float32

    return encode


def _ingest(database: sqlite3.Connection, encode: Any, records: Sequence[Any], batch: int) -> dict[str, float]:
    began = time.perf_counter()
    for start in range(0, len(records), batch):
        part = records[start : start + batch]
        vectors = encode([record["text"] for record in part])
        rows = [
            (start + at, record["_id"], record["text"], json.dumps(record["metadata"]), vector.tobytes())
            for at, (record, vector) in enumerate(zip(part, vectors, strict=True))
        ]
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
    seconds = time.perf_counter() - began
    return {"records": len(records), "seconds": seconds, "records_per_s": len(records) / seconds}


def _query(database: sqlite3.Connection, encode: Any, texts: Sequence[str]) -> dict[str, float]:
    index = _index(database)
    answers = _answers(database, encode, index, texts)
    next(answers)
    cold_start_s = time.time() - began_unix
    milliseconds = sorted(answers)
    return {
        "records": index.ntotal,
        "cold_start_to_first_answer_s": cold_start_s,
        "queries": len(milliseconds),
        "p50_ms": statistics.median(milliseconds),
        "p95_ms": milliseconds[int(0.95 * (len(milliseconds) - 1))],
        "rss_after_bytes": psutil.Process().memory_info().rss,
    }


def _index(database: sqlite3.Connection) -> Any:
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(1)
    blobs = [blob for (blob,) in database.execute("SELECT vector FROM records ORDER BY position")]
    vectors = np.frombuffer(b"".join(blobs), dtype=np.float32).reshape(len(blobs), -1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _answers(database: sqlite3.Connection, encode: Any, index: Any, texts: Sequence[str]) -> Iterator[float]:
    """Ten hits with their texts for each query; yields how many milliseconds each took."""
    for text in texts:
        began = time.perf_counter()
        _, positions = index.search(encode([text]), 10)
        for position in positions[0].tolist():
            found = database.execute("SELECT id, text, metadata FROM records WHERE position = ?", (position,))
            assert found.fetchone() is not None
        yield 1_000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
