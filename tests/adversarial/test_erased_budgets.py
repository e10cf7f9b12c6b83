"""Who has the ledger's key looks in its pages for the tags of erased records, after weeks of queries, erasures and pruning."""

import hashlib
import os
import random
from pathlib import Path
from uuid import uuid4

from secure_embed.risk import Allowance, LedgerKey, Showing, SqlcipherLedger
from tests.sealed_store import pages

queries, records, shown_at_once = 400, 8_000, 10
hours = 3_600
free = Allowance(
    queries_day=None,
    distinct_records_day=None,
    distinct_records_30_days=None,
    client_factor=10,
    exposures_scored=None,
    exposures_total=None,
)


def test_tags_of_erased_records_are_in_no_page(tmp_path: Path) -> None:
    """Pages split and merge meanwhile; the tags of the records that are left show that the search would find one."""
    path, key, rng, now = tmp_path / "risk.db", os.urandom(32), random.Random(11), [1_000_000_000.0]
    ledger = SqlcipherLedger(path, key, lambda: now[0])
    collection, tags = uuid4(), {n: os.urandom(32) for n in range(records)}
    erased: list[bytes] = []
    for n in range(queries):
        now[0] += 4 * hours  # more than twice the longest window in all
        who = hashlib.sha256(str(n % 20).encode()).digest()
        asked = LedgerKey(collection=collection, principal_tag=who, client_tag=bytes(32))
        admission = ledger.admit(asked, request=uuid4(), query_tag=os.urandom(32), allowance=free)
        hits = rng.sample(sorted(tags), shown_at_once)
        ledger.charge(admission, [Showing(record_tag=tags[hit], scored=True) for hit in hits])
        if n % 7 == 0:
            gone = [tags.pop(hit) for hit in hits[:3]]
            ledger.forget(collection, gone)
            erased += gone
    content = b"".join(pages(path, key))
    assert sum(tag[:12] in content for tag in tags.values()) > 1_000
    assert [tag for tag in erased if tag[:12] in content or tag[-12:] in content] == []
    assert len(erased) == 174
    ledger.close()
