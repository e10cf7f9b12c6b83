"""Systems beside which search.py puts ours that are libraries in one process; also ours and exact search themselves."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from search_peer import Blocks, Floats, Found, System

__all__ = ["Chroma", "Flat", "Lance", "LanceRabitq", "Qdrant", "SecureEmbed", "Usearch"]


class SecureEmbed(System):
    packages = ("secure-embed",)
    sealed = True
    note = "codes in memory, sealed float16 vectors on disk; the effort is what `collection tune` chooses for 0.99"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from search_ours import Ours

        from secure_embed.index import Effort

        self._make, self._effort_of = Ours, Effort
        self._ours: Any = None
        self._effort = folder / "effort.json"

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:
        self._ours = self._make(self.folder, dimension)
        self._ours.ingest((rows for _, rows in blocks), np.zeros(records, np.int64))
        self._ours.tune(filtered=False)
        self._effort.write_text(json.dumps(asdict(self._ours.effort)), encoding="utf-8")

    def open(self, dimension: int) -> None:
        self._ours = self._make(self.folder, dimension)
        self._ours.effort = self._effort_of(**json.loads(self._effort.read_text(encoding="utf-8")))

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:  # noqa: ARG002
        found: npt.NDArray[np.int64] = self._ours.search(query, k)
        return found

    def close(self) -> None:
        self._ours.close()


class Flat(System):
    packages = ("faiss-cpu",)
    note = "exact search over float32 in memory, loaded from a plain file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import faiss

        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self._index: Any = None

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:
        rows = np.lib.format.open_memmap(self.folder / "plain.npy", "w+", np.float32, (records, dimension))
        for start, block in blocks:
            rows[start : start + len(block)] = block
        rows.flush()

    def open(self, dimension: int) -> None:
        self._index = self._faiss.IndexFlatIP(dimension)
        self._index.add(np.load(self.folder / "plain.npy"))

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:  # noqa: ARG002
        found: npt.NDArray[np.int64] = self._index.search(query[np.newaxis], k)[1][0]
        return found


class Usearch(System):
    packages = ("usearch",)
    note = "HNSW over float16 in memory, nothing sealed; a reference"
    efforts = ((10,), (16,), (24,), (32,), (48,), (64,), (128,), (256,), (512,))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from usearch.index import Index

        self._make = Index
        self._index: Any = None

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:  # noqa: ARG002
        index = self._make(ndim=dimension, metric="cos", dtype="f16", connectivity=16, expansion_add=128)
        for start, rows in blocks:
            index.add(np.arange(start, start + len(rows)), rows, threads=1)
        index.save(str(self.folder / "index.usearch"))

    def open(self, dimension: int) -> None:
        self._index = self._make(ndim=dimension, metric="cos", dtype="f16", connectivity=16)
        self._index.load(str(self.folder / "index.usearch"))

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        (self._index.expansion_search,) = effort
        found: npt.NDArray[np.int64] = self._index.search(query, k, threads=1).keys.astype(np.int64)
        return found


class Chroma(System):
    packages = ("chromadb",)
    note = "PersistentClient, HNSW over float32 in memory"
    efforts = ((100,), (200,), (400,), (800,))  # what is set first stays, in 1.5.9: a lower one finds 0.94

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import chromadb
        from chromadb.config import Settings

        self._client = lambda: chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
        self._collection: Any = None
        self._effort: tuple[Any, ...] = ()

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:  # noqa: ARG002
        client = self._client()
        hnsw: Any = {"space": "cosine", "ef_construction": 128, "max_neighbors": 16, "num_threads": 1}
        made = client.create_collection("bench", configuration={"hnsw": hnsw}, embedding_function=None)
        step = min(5_000, client.get_max_batch_size())
        for start, rows in blocks:
            for at in range(0, len(rows), step):
                part = rows[at : at + step]
                made.add(ids=[str(start + at + n) for n in range(len(part))], embeddings=part)

    def open(self, dimension: int) -> None:  # noqa: ARG002
        self._collection = self._client().get_collection("bench", embedding_function=None)

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        if effort != self._effort:
            self._collection.modify(configuration={"hnsw": {"ef_search": effort[0]}})
            self._effort = effort
        found = self._collection.query(query_embeddings=query[np.newaxis], n_results=k, include=[])
        return [int(one) for one in found["ids"][0]]


class Lance(System):
    packages = ("lancedb",)
    note = "IVF_PQ on disk, 16 dimensions a byte, the best read again in float32"
    kind: ClassVar[str] = "IVF_PQ"
    efforts = (
        (1, 1),
        (2, 3),
        (4, 5),
        (10, 10),
        (20, 20),
        (40, 50),
        (80, 100),
        (200, 200),
    )  # lists looked into, times k read again

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import lancedb
        import pyarrow

        self._lance, self._arrow = lancedb, pyarrow
        self._table: Any = None

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:
        pa = self._arrow

        def batches() -> Iterator[Any]:
            for start, rows in blocks:
                flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dimension)
                yield pa.record_batch([pa.array(np.arange(start, start + len(rows))), flat], ["id", "vector"])

        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dimension))])
        table = self._lance.connect(str(self.folder)).create_table("bench", batches(), schema=schema)
        lists = max(1, round(records**0.5))
        more = {"num_sub_vectors": max(1, dimension // 16)} if self.kind == "IVF_PQ" else {}
        table.create_index(metric="cosine", index_type=self.kind, num_partitions=lists, **more)

    def open(self, dimension: int) -> None:  # noqa: ARG002
        self._table = self._lance.connect(str(self.folder)).open_table("bench")

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        lists, again = effort
        asked = self._table.search(query).distance_type("cosine").nprobes(lists).refine_factor(again)
        found: list[int] = asked.limit(k).select(["id"]).to_arrow()["id"].to_pylist()
        return found


class LanceRabitq(Lance):
    note = "IVF_RQ on disk, one bit a dimension, the best read again in float32"
    kind = "IVF_RQ"


class Qdrant(System):
    packages = ("qdrant-client",)
    note = "local mode of the client: NumPy over all vectors, meant for tests"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import qdrant_client

        self._qdrant = qdrant_client
        self._client: Any = None

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:  # noqa: ARG002
        models = self._qdrant.models
        self._client = self._qdrant.QdrantClient(path=str(self.folder))
        how = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        self._client.create_collection("bench", vectors_config=how)
        for start, rows in blocks:
            self._client.upload_collection("bench", vectors=rows, ids=range(start, start + len(rows)), batch_size=1_000)

    def open(self, dimension: int) -> None:  # noqa: ARG002
        self._client = self._qdrant.QdrantClient(path=str(self.folder))

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:  # noqa: ARG002
        found = self._client.query_points("bench", query=query, limit=k, with_payload=False).points
        return [int(point.id) for point in found]

    def close(self) -> None:
        self._client.close()
