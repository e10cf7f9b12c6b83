"""Nothing older than the longest window stays in the file."""

import hashlib
from pathlib import Path
from uuid import uuid4

import pytest

from secure_embed.keys.database import SealedDatabase
from secure_embed.risk import Allowance, LedgerKey, Showing, SqlcipherLedger
from secure_embed.risk.schema import migrations

day_s = 24 * 60 * 60
tables = ("counters", "records", "queries", "seen", "exposures")
allowance = Allowance(
    queries_day=None,
    distinct_records_day=1000,
    distinct_records_30_days=1001,
    client_factor=1,
    exposures_scored=1,
    exposures_total=1,
)


collection = uuid4()


def tag(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def counts(path: Path) -> dict[str, object]:
    database = SealedDatabase(path, tag("k"), migrations=migrations)
    try:
        return {table: database.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
    finally:
        database.close()


def ask(ledger: SqlcipherLedger, who: str, query: str, records: range) -> int:
    """How many of the records were shown."""
    key = LedgerKey(collection=collection, principal_tag=tag(who), client_tag=tag(f"app of {who}"))
    admission = ledger.admit(key, request=uuid4(), query_tag=tag(query), allowance=allowance)
    charged = ledger.charge(admission, [Showing(record_tag=tag(f"r{n}"), scored=True) for n in records])
    return sum(verdict != "withheld" for verdict in charged.verdicts)


def test_old_rows_go_and_young_ones_stay(tmp_path: Path) -> None:
    path, now = tmp_path / "risk.db", 1_790_000_000.0
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    for n in range(3):
        assert ask(ledger, f"user{n}", "first", range(10)) == 10
    now += 5 * day_s
    assert ask(ledger, "user0", "later", range(5, 15)) == 5
    ledger.close()
    assert counts(path) == {"counters": 6, "records": 15, "queries": 4, "seen": 70, "exposures": 70}

    now += 25 * day_s
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    assert ask(ledger, "user9", "last", range(100, 110)) == 10
    ledger.close()
    assert counts(path) == {"counters": 4, "records": 15, "queries": 1, "seen": 30, "exposures": 30}


def test_pruning_keeps_up_in_a_long_run(tmp_path: Path) -> None:
    path, now = tmp_path / "risk.db", 1_790_000_000.0
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    for n in range(600):
        ask(ledger, f"user{n}", "q", range(n, n + 3))
        now += 0.5 * day_s
    ledger.close()
    # 60 queries lie in 30 days, and 64 admissions at most lie between two prunings.
    after = counts(path)
    assert int(str(after["exposures"])) <= (60 + 64) * 3 * 2
    assert int(str(after["records"])) <= 60 + 64 + 3
    assert int(str(after["queries"])) <= 2 + 64


def test_what_one_pruning_leaves_the_next_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded pruning may delete the last row of one table while another still refers to the same record."""
    monkeypatch.setattr("secure_embed.risk.pruning.rows_max", 3)
    path, now = tmp_path / "risk.db", 1_790_000_000.0
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    ask(ledger, "user0", "first", range(10))
    now += day_s
    ask(ledger, "user0", "first", range(10))
    ask(ledger, "user1", "second", range(3))
    now += 40 * day_s
    for n in range(12):  # each opening prunes once
        ledger.close()
        ledger = SqlcipherLedger(path, tag("k"), lambda: now)
        ask(ledger, "user9", f"new {n}", range(100, 101))
    ledger.close()
    assert counts(path) == {"counters": 2, "records": 1, "queries": 12, "seen": 2, "exposures": 2}


def test_what_is_left_of_erased_records_goes_with_its_age(tmp_path: Path) -> None:
    path, now = tmp_path / "risk.db", 1_790_000_000.0
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    ask(ledger, "ada", "first", range(10))
    ledger.forget(collection, [tag(f"r{n}") for n in range(10)])
    now += 30 * day_s - 1
    ledger.close()
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    ask(ledger, "ada", "second", range(10, 11))
    ledger.close()
    assert counts(path)["seen"] == 22
    now += 1
    ledger = SqlcipherLedger(path, tag("k"), lambda: now)
    ask(ledger, "ada", "third", range(11, 12))
    ledger.close()
    assert counts(path) == {"counters": 2, "records": 2, "queries": 2, "seen": 4, "exposures": 4}


def test_withheld_records_leave_no_row(tmp_path: Path) -> None:
    path = tmp_path / "risk.db"
    ledger = SqlcipherLedger(path, tag("k"), lambda: 1_790_000_000.0)
    assert ask(ledger, "ada", "one", range(1, 1001)) == 1000
    ledger.close()
    # One more in 30 days: nine of these ten are left out.
    ledger = SqlcipherLedger(path, tag("k"), lambda: 1_790_000_000.0 + day_s)
    assert ask(ledger, "ada", "two", range(1001, 1011)) == 1
    ledger.close()
    assert counts(path)["records"] == 1001
