"""Durable, signed events a second of the audit log at 1, 16 and 64 threads, beside raw fdatasync of the same folder.

    python benchmarks/audit_log.py [FOLDER] [SECONDS]

Each thread does what a query does to the log: an INTENT, waits for the ticket, an OUTCOME, waits for the receipt. The
folder decides what the figures mean: a fdatasync of tmpfs costs nothing and keeps nothing.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from secure_embed.audit import AuditEvent, AuditLog, Caller, NoteSigner, Phase, PosixLogStorage
from secure_embed.types import Action

FRAME_BYTES = 1_024
TAG = "ab" * 32
CALLER = Caller(issuer="https://issuer.example/", subject="alice", client_id="app", token_sha256=TAG, scopes=("query",))


def raw_fdatasync(folder: Path, seconds: float) -> list[float]:
    """Milliseconds for each append of 1 KiB and its fdatasync, one after the other."""
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        os.write(fd, bytes(FRAME_BYTES))
        os.fdatasync(fd)
        taken.append(1_000 * (time.perf_counter() - began))
    os.close(fd)
    return taken


def one_call(log: AuditLog, request: str) -> None:
    common = {"action": Action.QUERY, "request": request, "caller": CALLER, "collection": "clinical-notes", "k": 10}
    intent = AuditEvent(phase=Phase.INTENT, query_hmac=TAG, openings_max=200, **common)
    ticket = log.wait(log.submit_intent(intent, action=Action.QUERY, openings_max=200, lifetime_s=30))
    at = ticket.intent_index
    log.outcome(AuditEvent(phase=Phase.OUTCOME, intent=at, decision="allowed", result_commitment=TAG, **common))


def events_at(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    log = AuditLog(PosixLogStorage(folder / f"log-{threads}", create=True), NoteSigner("bench.local/log", bytes(32)))
    taken: list[float] = []
    end = time.perf_counter() + seconds

    def work(name: int) -> None:
        mine, i = [], 0
        while time.perf_counter() < end:
            began = time.perf_counter()
            one_call(log, f"{name}-{i}")
            mine.append(1_000 * (time.perf_counter() - began))
            i += 1
        taken.extend(mine)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    began, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    events = 2 * len(taken)
    log.close()
    return {
        "threads": threads,
        "events_per_s": round(events / wall),
        "call_p50_ms": round(statistics.median(taken), 3),
        "call_p99_ms": round(sorted(taken)[int(len(taken) * 0.99)], 3),
        "cpu_us_per_event": round(1e6 * cpu / events, 1),
    }


def main() -> None:
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    with tempfile.TemporaryDirectory(dir=base) as made:
        folder = Path(made)
        before = raw_fdatasync(folder, seconds)
        runs = [events_at(folder, threads, seconds) for threads in (1, 16, 64)]
        after = raw_fdatasync(folder, seconds)
    raw = {
        name: {
            "per_s": round(1_000 / statistics.mean(taken)),
            "p50_ms": round(statistics.median(taken), 3),
            "p99_ms": round(sorted(taken)[int(len(taken) * 0.99)], 3),
        }
        for name, taken in (("before", before), ("after", after))
    }
    machine = {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()}
    print(json.dumps({"machine": machine, "raw_fdatasync": raw, "log": runs}, indent=1))


if __name__ == "__main__":
    main()
