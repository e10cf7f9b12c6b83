"""What of the stored vectors and texts lies in the plain in the memory of the running service.

    python benchmarks/residency.py [--records 20000] [--sample 2000] [--queries 200] [--out FILE.json]
    python benchmarks/residency.py --quick

The real service (`secure-embed serve --dev`, MiniLM) takes in the records; a fresh process of it loads them with its
first query and answers 200 distinct questions, then 200 with the texts of the hits. At each of these moments every
readable page of the process is searched for 16-byte slices of the sampled original vectors: float32 as the encoder
gave them, float16 as they are sealed, float32 as widened from that; and of the sampled texts, slices that stand in no
other record and in no question. One slice is enough for a vector or text to count as found.

The same is asked of the unprotected twin (plain_baseline.py: FAISS IndexFlatIP and SQLite), after its queries. It shows
that the search finds what is there.

Run as root: the service is not dumpable, so nobody else may look into it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from main_job_machine import machine, medium_of, rounded, versions
from main_job_sides import COLLECTION, Plain, SecureEmbed
from residency_picture import draw
from residency_scan import Found, Needles, scan, slices_of, unique_windows

from secure_embed.cli.client import Client
from secure_embed.cli.demo import corpus
from secure_embed.cli.demo.corpus import DemoRecord
from secure_embed.deployment import Deployment
from secure_embed.settings import Settings

REPOSITORY = Path(__file__).parents[1]
seed_of_questions = 7
words_in_question = 12
corpus_records_min = 1_200
slices_a_vector = 8
slices_a_text = 8
hits_max = 10
FORMS = ("float32", "float16", "float32 of float16")


class Watched(SecureEmbed):
    """The service's side of the main job, with a look into its process and questions whose answers show texts."""

    _handler: Client | None = None
    _handlers = 0
    _shown = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def query_with_texts(self, text: str) -> dict[str, str]:
        """The hits' texts by id."""
        if self._handler is None or self._shown % self._queries_each == 0:
            self._handler = self._complaint_handler()
        self._shown += 1
        body = {"text": text, "k": hits_max, "include_text": True}
        found = self._handler.call("POST", f"/v1/collections/{COLLECTION}/query", body).value()
        return {hit["id"]: hit["text"] for hit in found["hits"] if hit["text"] is not None}

    def _complaint_handler(self) -> Client:
        if self._handler is not None:
            self._handler.close()
        self._handlers += 1
        name = f"handler-{self._handlers}"
        token = self._issuer.mint(
            subject=name,
            client_id=f"benchmark-{name}",
            scopes=["query", "records:read"],
            audience=self._url,
            lifetime_s=3_600,
            claims={"department": "complaints", "clearance": 3, "purposes": ["complaint-handling"]},
        )
        ca = self._root / "tls" / "certificate.pem"
        return Client(self._url, token=token, ca=ca, purpose="complaint-handling")

    def stop(self) -> None:
        if self._handler is not None:
            self._handler.close()
            self._handler = None
        super().stop()


def main() -> None:
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="residency-") as made:
        result = run(given, Path(made))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(rounded(result), indent=2) + "\n", encoding="utf-8")
    draw(result, given.out.with_suffix(".png"))
    for moment, found in result["moments"].items():
        print(f"{moment:32} " + "  ".join(f"{kind} {share:.2%}" for kind, share in found["share"].items()))
    print(f"{given.out}\n{given.out.with_suffix('.png')}", file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000, help="at least 1,200")
    parser.add_argument("--batch", type=int, default=200, help="records in one ingest call")
    parser.add_argument("--sample", type=int, default=2_000, help="vectors and texts looked for, in whole batches")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--without-plain", action="store_true", help="leave the unprotected twin out")
    parser.add_argument("--quick", action="store_true", help="3,000 records and 50 queries; goes to build/")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/residency.json, the picture beside it")
    given = parser.parse_args()
    if given.quick:
        given.records, given.queries = 3_000, 50
    if given.records < corpus_records_min:
        parser.error("at least 1,200 records")
    if given.out is None:
        given.out = REPOSITORY / ("build/residency_quick.json" if given.quick else "benchmarks/results/residency.json")
    return given


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    began = time.time()
    medium = medium_of(folder)
    records, questions = texts(folder, given.records, 2 * given.queries + 1)
    asked = list(questions)
    batches = [records[start : start + given.batch] for start in range(0, len(records), given.batch)]
    step = max(1, len(batches) * given.batch // given.sample)
    sampled = range(step // 2, len(batches), step)
    ours = Watched(folder / "deployment", records=len(records), threads=given.threads, dtype="float32")
    moments: dict[str, Any] = {}
    needles, agreed = Needles(), 0.0
    allocator: dict[str, str] = {}

    def look(moment: str, pid: int, of: Needles) -> None:
        since = time.perf_counter()
        found = scan(pid, of)
        moments[moment] = found.as_json() | {"seconds": time.perf_counter() - since}
        say(f"{moment}: {summary(found)}")

    try:
        ours.start()
        ours.create_collection()
        for number, batch in enumerate(batches):
            ours.ingest(number, batch)
        say("taken in")
        # The originals: the same texts in the same batches through the same encoder.
        encoder = ours.encoder()
        originals = {number: encoder.encode_documents([r.text for r in batches[number]]) for number in sampled}
        needles = needles_of(originals, batches, records, asked)
        look("ingesting process", ours.pid, needles)
        ours.stop()
        agreed = agreement(folder / "deployment", encoder, originals, given.batch)
        ours.start()
        look("started", ours.pid, needles)
        allocator = settings_of_allocator(ours.pid)
        ours.query(asked[0])
        look("loaded, first query", ours.pid, needles)
        for question in asked[1 : given.queries + 1]:
            ours.query(question)
        look(f"after {given.queries} queries", ours.pid, needles)
        opened: dict[str, str] = {}
        for question in asked[given.queries + 1 :]:
            opened |= ours.query_with_texts(question)
        look(f"after {given.queries} more, with texts", ours.pid, needles)
        moments[f"after {given.queries} more, with texts"]["texts_shown"] = len(opened) / len(records)
    finally:
        ours.stop()
    if not given.without_plain:
        plain_moments(given, folder, batches, asked[: given.queries + 1], sampled, records, look)
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(medium),
        "versions": versions(),
        "allocator_of_the_service": allocator,
        "seconds": time.time() - began,
        "parameters": {n: getattr(given, n) for n in ("records", "batch", "sample", "queries", "threads", "quick")},
        "sampled": {kind: len(owners) for kind, owners in needles.owners.items()},
        "slices_left_out_as_shared": needles.shared,
        "originals_equal_to_what_is_stored": agreed,
        "moments": moments,
    }


def plain_moments(
    given: argparse.Namespace,
    folder: Path,
    batches: Sequence[Sequence[DemoRecord]],
    asked: Sequence[str],
    sampled: Sequence[int],
    records: Sequence[DemoRecord],
    look: Any,
) -> None:
    plain = Plain(folder / "plain", threads=given.threads, dtype="float32", waits_passively=True)
    try:
        plain.start()
        for number, batch in enumerate(batches):
            plain.ingest(number, batch)
        plain.stop()
        plain.start()
        for question in asked:
            plain.query(question)
        stored = stored_by(folder / "plain" / "plain.db", given.batch, sampled)
        look("plain FAISS, after its queries", plain._process.pid, needles_of(stored, batches, records, asked))  # type: ignore[union-attr]
    finally:
        plain.stop()


def settings_of_allocator(pid: int) -> dict[str, str]:
    """What the service runs with, which it may have set itself: host.overwrite_freed_memory."""
    # glibc ends each tunable with a zero byte when it reads them, so that one variable lies there in several parts.
    raw = Path(f"/proc/{pid}/environ").read_bytes().replace(b"\0glibc.", b":glibc.").decode()
    pairs = (variable.partition("=") for variable in raw.split("\0"))
    return {name: value for name, _, value in pairs if name in {"GLIBC_TUNABLES", "PYTHONMALLOC"}}


def stored_by(database: Path, batch: int, sampled: Sequence[int]) -> dict[int, Any]:
    """The twin's own float32 vectors: its encoder forms other batches, so that its last bits differ from ours."""
    import sqlite3

    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = [
            [
                np.frombuffer(blob, np.float32)
                for (blob,) in connection.execute(
                    "SELECT vector FROM records WHERE position >= ? AND position < ? ORDER BY position",
                    (number * batch, (number + 1) * batch),
                )
            ]
            for number in sampled
        ]
    connection.close()
    return {number: np.stack(vectors) for number, vectors in zip(sampled, rows, strict=True)}


def texts(folder: Path, count: int, asked: int) -> tuple[list[DemoRecord], Iterator[str]]:
    """Records to store, and distinct questions: twelve words from the middle of a record that is not stored."""
    corpus.write(folder / "corpus", records=count)
    corpus.write(folder / "others", records=max(asked * 2, corpus_records_min), seed=seed_of_questions)
    stored = corpus.load(COLLECTION, root=folder / "corpus").records
    questions = {}
    for record in corpus.load(COLLECTION, root=folder / "others").records:
        words = record.text.split()
        start = max(0, (len(words) - words_in_question) // 2)
        questions[" ".join(words[start : start + words_in_question])] = None
    assert len(questions) >= asked
    return list(stored), islice(iter(questions), asked)


def needles_of(
    originals: dict[int, Any],
    batches: Sequence[Sequence[DemoRecord]],
    records: Sequence[DemoRecord],
    asked: Sequence[str],
) -> Needles:
    needles = Needles()
    for number, vectors in originals.items():
        for at, vector in enumerate(vectors):
            half = vector.astype("<f2")
            forms = (vector, half, half.astype(np.float32))
            for form, values in zip(FORMS, forms, strict=True):
                needles.add(form, number * len(batches[0]) + at, slices_of(values, slices_a_vector))
    of_batches = {
        number * len(batches[0]) + at: record.text.encode()
        for number in originals
        for at, record in enumerate(batches[number])
    }
    everything = b"\0".join([*(record.text.encode() for record in records), *(q.encode() for q in asked)])
    for owner, windows in unique_windows(of_batches, everything, slices_a_text).items():
        needles.add("text", owner, windows)
    return needles


def agreement(root: Path, encoder: Any, originals: dict[int, Any], batch: int) -> float:
    """Which share of the vectors that are looked for is, as float16, bit for bit what the deployment stored."""
    equal = total = 0
    with Deployment(Settings.load(root, dev=True), encoder) as deployment:
        holding = deployment.holdings.named(COLLECTION)
        for number, vectors in originals.items():
            out = np.zeros(vectors.shape, np.float16)
            holding._rows.open_vectors(np.arange(number * batch, number * batch + len(vectors)), out)
            equal += int((out.view(np.uint16) == vectors.astype("<f2").view(np.uint16)).all(axis=1).sum())
            total += len(vectors)
    return equal / total


def summary(found: Found) -> str:
    shares = ", ".join(f"{kind} {found.share(kind):.2%} ({found.slices[kind]})" for kind in found.needles.owners)
    places = {kind: dict(where.most_common(3)) for kind, where in found.places.items()}
    return f"{shares} of {found.bytes_read / 2**20:.0f} MiB; {places}"


if __name__ == "__main__":
    main()
