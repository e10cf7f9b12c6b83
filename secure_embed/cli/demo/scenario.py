"""The demo's ten steps, in order. Each says what it does, does it on the real service, and judges what came of it."""

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from secure_embed.cli.client import Client, Reply
from secure_embed.cli.demo import corpus, evaluation, scan
from secure_embed.cli.demo.cast import Cast
from secure_embed.cli.demo.service import Service, free_port
from secure_embed.errors import Unavailable
from secure_embed.types import Vectors

__all__ = ["Scenario"]

COLLECTIONS = ("clinical-notes", "complaints")
ATTRIBUTES = {"department": "string", "sensitivity": "long", "country": "string"}
batch_records = 100
queries_each_analyst = 8  # the standard profile lets a principal see 100 records of such a collection a day
metric_difference_max = 0.01
crash_batches = 40
crash_batch_records = 25
Row = tuple[str, str, bool]


class Scenario:
    def __init__(self, root: Path, console: Console) -> None:
        self._root = root
        self._console = console
        self._port = free_port()
        self._service = Service(root, self._port)
        self._corpora = {name: corpus.load(name) for name in COLLECTIONS}
        self._cast: Cast
        self._vectors: dict[str, Vectors] = {}
        self._erased: set[str] = set()
        self._rows: list[Row] = []

    def run(self) -> list[Row]:
        began = time.monotonic()
        for number, (title, step) in enumerate(self._steps(), start=1):
            self._console.rule(f"[bold]{number}. {title}", align="left")
            step_began = time.monotonic()
            what, ok = step()
            self._rows.append((title, what, ok))
            took = f" [dim]({time.monotonic() - step_began:.1f} s)[/]"
            self._say(("[green]ok[/]  " if ok else "[red]NOT AS IT SHOULD BE[/]  ") + what + took)
        self._summary(time.monotonic() - began)
        return self._rows

    def _steps(self) -> list[tuple[str, Callable[[], tuple[str, bool]]]]:
        return [
            ("Make a deployment", self._initialise),
            ("Start the service over TLS", self._start),
            ("Ingest two collections over HTTP", self._ingest),
            ("Search, and compare with plain exact search", self._search),
            ("See what is refused", self._refusals),
            ("Erase one data subject", self._erase),
            ("Kill the service in the middle of an ingest", self._crash),
            ("Look for plaintext in every byte at rest", self._at_rest),
            ("Verify the audit log, then tamper with a copy", self._audit),
        ]

    def end(self) -> None:
        self._service.stop()

    def _say(self, text: str) -> None:
        self._console.print(f"   {text}")

    # --- 1, 2, 3 -----------------------------------------------------------------------------------------------------

    def _initialise(self) -> tuple[str, bool]:
        from secure_embed.founding import create

        self._say(
            f"root key from a passphrase file (Argon2id), keys database, sealed store, log key, policies in {self._root}"
        )
        create(self._root, dev=True, model="all-minilm-l6-v2", port=self._port)
        self._cast = Cast(self._root, f"https://localhost:{self._port}")
        return f"{sum(1 for p in self._root.rglob('*') if p.is_file())} files, readable by their owner only", True

    def _start(self) -> tuple[str, bool]:
        seconds = self._service.start()
        return (
            f"ready after {seconds:.1f} s on https://localhost:{self._port}, model loaded and its files verified",
            True,
        )

    def _ingest(self) -> tuple[str, bool]:
        writer = self._cast.ingest_service()
        began = time.monotonic()
        total = 0
        for name in COLLECTIONS:
            writer.call("POST", "/v1/collections", {"name": name, "attributes": ATTRIBUTES}).value()
            records = self._corpora[name].records
            starts = range(0, len(records), batch_records)
            for start in track(starts, f"   {name}", console=self._console, transient=True):
                batch = [_sent(record) for record in records[start : start + batch_records]]
                total += self._post(writer, name, batch, f"demo-{name}-{start}").value()["records"]
        rate = total / (time.monotonic() - began)
        return f"{total} records, {rate:.0f} records/s, embedding included", total == 2_400

    @staticmethod
    def _post(writer: Client, name: str, batch: list[Any], key: str) -> Reply:
        return writer.call("POST", f"/v1/collections/{name}/records", {"records": batch}, {"Idempotency-Key": key})

    # --- 4 -----------------------------------------------------------------------------------------------------------

    def _search(self) -> tuple[str, bool]:
        self._say("each analyst may see 100 records of a collection a day, so several share the 60 queries")
        table = Table("collection", "queries", "recall@10", "nDCG@10", "plain exact: recall@10", "nDCG@10", "p50 ms")
        worst = 0.0
        for name in COLLECTIONS:
            sealed, milliseconds = self._ask_all(name)
            plain = self._plain(name)
            qrels = self._corpora[name].qrels
            figures = [
                f(run, qrels, 10) for run in (sealed, plain) for f in (evaluation.recall_at_k, evaluation.ndcg_at_k)
            ]
            worst = max(worst, abs(figures[0] - figures[2]), abs(figures[1] - figures[3]))
            table.add_row(name, str(len(sealed)), *(f"{f:.4f}" for f in figures), f"{np.median(milliseconds):.0f}")
        self._console.print(table)
        return f"sealed search and plain exact search differ by at most {worst:.4f}", worst < metric_difference_max

    def _ask_all(self, name: str) -> tuple[dict[str, list[str]], list[float]]:
        run: dict[str, list[str]] = {}
        milliseconds = []
        for number, (query_id, text) in enumerate(self._corpora[name].queries.items()):
            analyst = self._cast.analyst(number // queries_each_analyst)
            began = time.perf_counter()
            found = analyst.call("POST", f"/v1/collections/{name}/query", {"text": text, "k": 10}).value()
            milliseconds.append(1_000 * (time.perf_counter() - began))
            analyst.close()
            run[query_id] = [hit["id"] for hit in found["hits"]]
        return run, milliseconds

    def _plain(self, name: str) -> dict[str, list[str]]:
        """The same model and fp32 vectors without any protection, searched exactly."""
        encoder = self._encoder()
        records = self._corpora[name].records
        vectors = encoder.encode_documents([record.text for record in records])
        self._vectors[name] = vectors
        ids = [record.id for record in records]
        return {
            query_id: [ids[at] for at in evaluation.exact_search(vectors, encoder.encode_query(text)[0], 10)]
            for query_id, text in self._corpora[name].queries.items()
        }

    def _encoder(self) -> Any:
        if not hasattr(self, "_loaded"):
            from secure_embed.deployment import load_from
            from secure_embed.settings import Settings

            self._loaded = load_from(Settings.load(self._root, dev=True))
        return self._loaded

    # --- 5 -----------------------------------------------------------------------------------------------------------

    def _refusals(self) -> tuple[str, bool]:
        cast = self._cast
        ask = {"text": "fever after surgery", "k": 10}
        notes, complaints = (f"/v1/collections/{name}/query" for name in COLLECTIONS)
        clinician = cast.clinician("cardiology", 2)
        hidden = next(
            r
            for r in self._corpora["clinical-notes"].records
            if r.attributes["department"] != "cardiology" and r.attributes["sensitivity"] == 2
        )
        cases = [
            ("no token", "token_missing", cast.nobody().call("POST", notes, ask)),
            ("expired token", "token_expired", cast.client("x", ["query"], lifetime_s=-60).call("POST", notes, ask)),
            (
                "token for another service",
                "token_audience",
                cast.client("x", ["query"], audience="https://other.example").call("POST", notes, ask),
            ),
            (
                "token without the scope",
                "insufficient_scope",
                cast.client("x", ["audit:read"]).call("POST", notes, ask),
            ),
            ("collection that policy denies", "policy_denied", clinician.call("POST", complaints, ask)),
            (
                "record that the row filter hides",
                "record_not_found",
                clinician.call("GET", f"/v1/collections/clinical-notes/records/{quote(hidden.id, safe='')}"),
            ),
            (
                "vectors without their scope",
                "insufficient_scope",
                clinician.call("POST", "/v1/collections/clinical-notes/export", {"ids": [hidden.id]}),
            ),
            ("budget used up", "budget_exhausted", self._exhaust(complaints)),
        ]
        table = Table("case", "status", "code", "what the caller reads")
        for what, _, reply in cases:
            table.add_row(what, str(reply.status), reply.body.get("code"), reply.body.get("detail"))
        self._console.print(table)
        right = sum(reply.status >= 400 and reply.body.get("code") == code for _, code, reply in cases)
        return f"{right} of {len(cases)} refused as they should be, each with its entry in the log", right == len(cases)

    def _exhaust(self, path: str) -> Reply:
        """One curious handler asks until the day's distinct records are used up."""
        curious = self._cast.complaint_handler()
        for text in self._corpora["complaints"].queries.values():
            reply = curious.call("POST", path, {"text": text, "k": 10})
            if reply.status == 429:
                return reply
        return reply

    # --- 6 -----------------------------------------------------------------------------------------------------------

    def _erase(self) -> tuple[str, bool]:
        records = self._corpora["complaints"].records
        by_subject: dict[str, list[Any]] = {}
        for record in records:
            by_subject.setdefault(record.subject, []).append(record)
        subject, theirs = max(by_subject.items(), key=lambda pair: (len(pair[1]), pair[0]))
        reader = self._cast.complaint_handler()
        paths = [f"/v1/collections/complaints/records/{quote(record.id, safe='')}" for record in theirs]
        before = sum(reader.call("GET", path).status == 200 for path in paths)
        receipt = (
            self._cast.privacy_officer()
            .call("POST", "/v1/erasures", {"subject": subject, "reason": "gdpr-art-17"})
            .value()
        )
        after = sum(reader.call("GET", path).status == 200 for path in paths)
        self._erased = {record.id for record in theirs}
        still = self._still_found(theirs)
        self._console.print(receipt["note"], style="dim", markup=False)
        (self._root.parent / "erasure-receipt.txt").write_text(receipt["note"])
        ok = before == len(theirs) == receipt["records"] and after == 0 and not still
        return f"{before} records of one subject answered before, {after} answer now, {still} still found by search", ok

    def _still_found(self, theirs: list[Any]) -> int:
        """Search with the erased texts themselves: the strongest query for them."""
        found: set[str] = set()
        asking = self._cast.client("erasure-check", ["query"], department="quality", clearance=3, purpose="quality")
        for record in theirs[:5]:
            hits = asking.call("POST", "/v1/collections/complaints/query", {"text": record.text, "k": 10}).value()[
                "hits"
            ]
            found |= {hit["id"] for hit in hits}
        return len(found & self._erased)

    # --- 7 -----------------------------------------------------------------------------------------------------------

    def _crash(self) -> tuple[str, bool]:
        acknowledged: list[list[str]] = []
        sent: list[list[str]] = []
        thread = threading.Thread(target=self._ingest_until_it_breaks, args=(sent, acknowledged))
        thread.start()
        while len(acknowledged) < 3 and thread.is_alive():
            time.sleep(0.01)
        time.sleep(random.Random().uniform(0.0, 0.3))  # noqa: S311 - a moment, not a secret
        self._service.kill()
        thread.join()
        seconds = self._service.start()
        reader = self._cast.complaint_handler()
        lost = sum(self._there(reader, ids) != len(ids) for ids in acknowledged)
        halves = sum(0 < self._there(reader, ids) < len(ids) for ids in sent[len(acknowledged) :])
        what = (
            f"killed after {len(acknowledged)} of {len(sent)} sent batches were acknowledged; started again in {seconds:.1f} s; "
            f"acknowledged batches lost: {lost}, batches half there: {halves}"
        )
        return what, lost == 0 and halves == 0 and len(acknowledged) >= 3

    def _ingest_until_it_breaks(self, sent: list[list[str]], acknowledged: list[list[str]]) -> None:
        writer = self._cast.ingest_service()
        for batch in _more_records(self._corpora["complaints"].records):
            ids = [record["id"] for record in batch]
            sent.append(ids)
            try:
                self._post(writer, "complaints", batch, f"crash-{len(sent)}").value()
            except Unavailable:
                return
            acknowledged.append(ids)

    @staticmethod
    def _there(reader: Client, ids: list[str]) -> int:
        return sum(reader.call("GET", f"/v1/collections/complaints/records/{i}").status == 200 for i in ids)

    # --- 8, 9 --------------------------------------------------------------------------------------------------------

    def _at_rest(self) -> tuple[str, bool]:
        self._service.stop()
        needles = scan.Needles(self._plaintexts())
        control = self._root.parent / "control"
        control.mkdir()
        record = self._corpora["complaints"].records[0]
        (control / "plain.bin").write_bytes(
            b"\x00" * 3 + record.text.encode() + self._vectors["complaints"][0].tobytes()
        )
        seen = {found.kind for found in scan.scan(control, needles)[2]}
        shutil.rmtree(control)
        files, total, found = scan.scan(self._root, needles)
        for one in found[:5]:
            self._say(f"[red]{one.kind} at byte {one.offset} of {one.file}")
        what = (
            f"{len(needles)} texts, names, identifiers and vectors (fp32, fp16) looked for in {files} files, {total / 1e6:.1f} MB: "
            f"{len(found)} found (a planted record was found: {'yes' if {'text', 'fp32 vector'} <= seen else 'NO'})"
        )
        return what, not found and {"text", "fp32 vector"} <= seen

    def _plaintexts(self) -> Iterator[tuple[str, bytes]]:
        for name in COLLECTIONS:
            for record, vector in zip(self._corpora[name].records, self._vectors[name], strict=True):
                text = record.text.encode()
                yield "text", text[:48]
                yield "text", text[len(text) // 2 :][:48]
                yield "identifier", record.id.encode()
                yield "identifier", record.subject.encode()
                yield "name", record.person.encode()
                half = vector.astype("<f2")
                for start in (0, len(vector) // 2):
                    yield "fp32 vector", vector[start : start + 8].tobytes()
                    yield "fp16 vector", half[start : start + 8].tobytes()

    def _audit(self) -> tuple[str, bool]:
        log = self._root / "log"
        clean = self._verify(log, "--erasure-receipt", str(self._root.parent / "erasure-receipt.txt"))
        self._console.print(clean.stdout, style="dim", markup=False)
        copy = self._root.parent / "tampered-log"
        shutil.copytree(log, copy)
        victim = max((copy / "tile" / "entries").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 0x01
        victim.write_bytes(content)
        tampered = self._verify(copy)
        self._console.print(tampered.stdout, style="dim", markup=False)
        shutil.rmtree(copy)
        named = next((" ".join(line.split()) for line in tampered.stdout.splitlines() if "entry" in line), "")
        ok = clean.returncode == 0 and tampered.returncode == 1 and bool(named)
        return f"the log verifies; with one bit of a copy flipped the verifier says: {named}", ok

    def _verify(self, log: Path, *more: str) -> subprocess.CompletedProcess[str]:
        from secure_embed.deployment import verifier
        from secure_embed.layout import VERIFIER_KEY

        command = [sys.executable, str(verifier()), str(log), "--key", str(self._root / VERIFIER_KEY), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program

    # --- 10 ----------------------------------------------------------------------------------------------------------

    def _summary(self, seconds: float) -> None:
        self._console.rule("[bold]What happened", align="left")
        table = Table("", "step", "what came of it")
        for title, what, ok in self._rows:
            table.add_row("[green]ok[/]" if ok else "[red]no[/]", title, what)
        self._console.print(table)
        self._say(f"{seconds:.0f} s in all. The deployment stays in {self._root}. To leave the service running:")
        self._console.print(
            f"\n   {Path(sys.executable).parent}/secure-embed serve --root {self._root} --dev\n", style="bold"
        )


def _sent(record: Any) -> dict[str, Any]:
    return {"id": record.id, "text": record.text, "subject": record.subject, "attributes": dict(record.attributes)}


def _more_records(records: Any) -> Iterator[list[dict[str, Any]]]:
    """New records out of old ones, so that there is always one more batch to send."""
    for number in range(crash_batches):
        start = number * crash_batch_records
        yield [
            {**_sent(record), "id": f"crash-{number}-{at}"}
            for at, record in enumerate(records[start : start + crash_batch_records])
        ]
