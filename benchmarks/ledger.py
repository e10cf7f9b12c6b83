"""What counting costs a query: admit and charge beside a bare fsync, on a fresh ledger and on one of a busy month.

    OMP_NUM_THREADS=1 python benchmarks/ledger.py [--folder DIR] [--out benchmarks/results/ledger.json]

The two are durable on return, so the medium's fsync is the floor: each ratio is against a 4 KiB append and fsync in
the same folder, timed between the rounds of the same run.
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import sqlcipher3.dbapi2 as sqlcipher

from secure_embed.risk import LedgerKey, RiskControl, SqlcipherLedger, load_profiles
from secure_embed.types import Position

day_s = 24 * 60 * 60
rounds = 400
month_records = 18_000
people = 10  # of one client; each asks 40 queries a day for 30 days in the busy month
queries_day = 40
topic_records = 1_000  # of each person
collection = UUID(int=9)


def fsync_once(handle: int) -> None:
    os.write(handle, b"\x5a" * 4096)
    os.fsync(handle)


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50_ms": round(cuts[49], 3), "p95_ms": round(cuts[94], 3), "p99_ms": round(cuts[98], 3)}


class Asking:
    """Principals of one client; each person's hits come mostly from a topic of his own, as in ordinary use."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_790_000_000.0
        self.random = random.Random(7)
        profiles = load_profiles(Path(__file__).parents[1] / "policies" / "risk", development=False)
        self.ledger = SqlcipherLedger(folder / "risk.db", b"k" * 32, lambda: self.now)
        self.control = RiskControl(profiles, self.ledger)
        self.profile = self.control.profile("standard")
        self.tags = [self.random.randbytes(32) for _ in range(month_records)]

    def query(self, person: int) -> tuple[float, float, int]:
        """Milliseconds of admit, of charge and release, and hits that left."""
        key = LedgerKey(
            collection=collection, principal_tag=person.to_bytes(32, "big"), client_tag=(99).to_bytes(32, "big")
        )
        hits = [(Position(p), 0.5) for p in self.hits(person)]
        request, query_tag = UUID(bytes=self.random.randbytes(16)), self.random.randbytes(32)
        begin = time.perf_counter()
        admission = self.control.admit(
            self.profile,
            key,
            request=request,
            query_tag=query_tag,
            collection_records=month_records,
            holds_write=False,
        )
        middle = time.perf_counter()
        answer = self.control.release(
            self.profile, admission, hits, [self.tags[p] for p, _ in hits], matching=month_records
        )
        end = time.perf_counter()
        return (middle - begin) * 1000, (end - middle) * 1000, len(answer.hits)

    def hits(self, person: int) -> list[int]:
        first = person * topic_records
        found = set(self.random.sample(range(first, first + topic_records), 10))
        if self.random.random() < 0.1:
            found.pop()
            found.add(self.random.randrange(month_records))
        return sorted(found)


def measure(asking: Asking, folder: Path) -> dict[str, object]:
    admits, charges, syncs, left = [], [], [], []
    handle = os.open(folder / "fsync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for n in range(rounds):
        syncs.append(timed(lambda: fsync_once(handle)))
        admit, charge, hits = asking.query(n % people)
        admits.append(admit)
        charges.append(charge)
        left.append(hits)
        asking.now += 1
    os.close(handle)
    sync, admit, charge = spread(syncs), spread(admits), spread(charges)
    return {
        "fsync": sync,
        "admit": admit,
        "charge_and_release": charge,
        "admit_p50_over_fsync_ms": round(admit["p50_ms"] - sync["p50_ms"], 3),
        "charge_p50_over_fsync_ms": round(charge["p50_ms"] - sync["p50_ms"], 3),
        "hits_shown_mean": round(statistics.mean(left), 2),
    }


def fill_a_month(asking: Asking) -> None:
    """Thirty days of queries, without waiting for the medium: durability is not what is measured here."""
    asking.now += day_s
    asking.ledger._db._connection.execute("PRAGMA synchronous = OFF")
    for _ in range(30):
        for n in range(people * queries_day):
            asking.query(n % people)
            asking.now += day_s / (people * queries_day)
    asking.now += day_s
    asking.ledger._db._connection.execute("PRAGMA synchronous = FULL")
    asking.ledger._db.empty_write_ahead_log()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the medium to measure")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        folder = Path(made)
        asking = Asking(folder)
        fresh = measure(asking, folder)
        fill_a_month(asking)
        busy = measure(asking, folder)
        rows = {t: asking.ledger._db.rows(f"SELECT count(*) FROM {t}")[0][0] for t in ("queries", "seen", "exposures")}
        result = {
            "command": "OMP_NUM_THREADS=1 python benchmarks/ledger.py",
            "machine": {"system": platform.platform(), "cores": os.cpu_count()},
            "versions": {"python": platform.python_version(), "sqlite": sqlcipher.sqlite_version},
            "rounds": rounds,
            "setting": f"k = 10, {people} principals of one client, {month_records} records",
            "fresh": fresh,
            "after_a_busy_month": {**busy, "rows": rows, "file_bytes": (folder / "risk.db").stat().st_size},
        }
        asking.ledger.close()
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
