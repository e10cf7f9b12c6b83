"""One suite for every driver of the Ledger protocol: a new driver is one more entry in ``drivers``."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from secure_embed.errors import Conflict, Exhausted, IntegrityFailure, NotFound, SecureEmbedError
from secure_embed.risk import Admission, Allowance, Charged, Ledger, LedgerKey, Showing, SqlcipherLedger

day_s = 24 * 60 * 60
Open = Callable[[Path, bytes, Callable[[], float]], Ledger]
drivers: dict[str, Open] = {"sqlcipher": SqlcipherLedger}

free = Allowance(
    queries_day=None,
    distinct_records_day=None,
    distinct_records_30_days=None,
    client_factor=2,
    exposures_scored=None,
    exposures_total=None,
)
tight = Allowance(
    queries_day=5,
    distinct_records_day=6,
    distinct_records_30_days=9,
    client_factor=2,
    exposures_scored=2,
    exposures_total=3,
)

distinct_only = Allowance(
    queries_day=None,
    distinct_records_day=6,
    distinct_records_30_days=None,
    client_factor=2,
    exposures_scored=None,
    exposures_total=None,
)


def tag(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Bench:
    """A ledger, its clock, and short ways to ask."""

    def __init__(self, open_ledger: Open, folder: Path) -> None:
        self._open = lambda: open_ledger(folder / "risk.db", tag("database key"), lambda: self.now)
        self.now = 1_790_000_000.0
        self.collection = uuid4()
        self.ledger = self._open()

    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self._open()

    def key(self, who: str = "ada", client: str = "app") -> LedgerKey:
        return LedgerKey(collection=self.collection, principal_tag=tag(who), client_tag=tag(client))

    def admit(
        self, query: str, allowance: Allowance = tight, *, key: LedgerKey | None = None, request: UUID | None = None
    ) -> Admission:
        return self.ledger.admit(
            key or self.key(), request=request or uuid4(), query_tag=tag(query), allowance=allowance
        )

    def ask(
        self,
        query: str,
        records: str,
        allowance: Allowance = tight,
        *,
        key: LedgerKey | None = None,
        scored: bool = True,
    ) -> Charged:
        admission = self.admit(query, allowance, key=key)
        return self.ledger.charge(admission, [Showing(record_tag=tag(r), scored=scored) for r in records.split()])


@pytest.fixture(params=drivers.values(), ids=drivers.keys())
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    made.ledger.close()


def refusal(ask: Callable[[], object]) -> tuple[object, object]:
    with pytest.raises(Exhausted) as refused:
        ask()
    assert refused.value.code == "budget_exhausted"
    assert set(refused.value.members) == {"budget", "retry_after_s"}
    return refused.value.members["budget"], refused.value.members["retry_after_s"]


def test_queries_end_with_the_day_rolling(bench: Bench) -> None:
    for n in range(5):
        bench.admit(f"q{n}")
        bench.now += 3600
    assert refusal(lambda: bench.admit("more")) == ("queries_day", day_s - 5 * 3600)
    bench.now += day_s - 5 * 3600 - 1
    refusal(lambda: bench.admit("more"))
    bench.now += 1
    bench.admit("more")
    refusal(lambda: bench.admit("one more"))


def test_the_wait_is_told_in_whole_minutes(bench: Bench) -> None:
    for n in range(5):
        bench.admit(f"q{n}")
    bench.now += 61.5
    assert refusal(lambda: bench.admit("more")) == ("queries_day", day_s - 60)


def test_a_refusal_counts_nothing(bench: Bench) -> None:
    for n in range(5):
        bench.admit(f"q{n}")
        bench.now += 1
    for _ in range(20):
        refusal(lambda: bench.admit("more", key=bench.key("ada")))
    bench.now += day_s
    for n in range(5):
        bench.admit(f"again{n}")


def test_one_request_is_counted_once(bench: Bench) -> None:
    request = uuid4()
    for _ in range(20):
        bench.admit("q", request=request)
    assert bench.ledger.charge(bench.admit("q", request=request), []).queries_left == 4


def test_an_admitted_request_is_admitted_again_when_nothing_is_left(bench: Bench) -> None:
    request = uuid4()
    for n in range(4):
        bench.admit(f"q{n}")
    bench.admit("last", request=request)
    bench.admit("last", request=request)
    refusal(lambda: bench.admit("more"))


def test_a_request_id_belongs_to_one_query(bench: Bench) -> None:
    request = uuid4()
    admission = bench.admit("q", request=request)
    for query, key in (
        ("other", bench.key()),
        ("q", bench.key("eve")),
        ("q", bench.key(client="other")),
        ("q", LedgerKey(collection=uuid4(), principal_tag=tag("ada"), client_tag=tag("app"))),
    ):
        with pytest.raises(Conflict) as refused:
            bench.admit(query, key=key, request=request)
        assert refused.value.code == "request_mismatch"
    assert bench.ledger.charge(admission, []).queries_left == 4


def test_nothing_is_charged_that_was_not_admitted(bench: Bench) -> None:
    forged = Admission(key=bench.key(), request=uuid4(), query_tag=tag("q"), allowance=free)
    with pytest.raises(Conflict) as refused:
        bench.ledger.charge(forged, [Showing(record_tag=tag("a"), scored=True)])
    assert refused.value.code == "admission_unknown"


def test_charging_twice_counts_once_and_answers_the_same(bench: Bench) -> None:
    admission = bench.admit("q")
    shown = [Showing(record_tag=tag(r), scored=True) for r in "abcdefgh"]
    first = bench.ledger.charge(admission, shown)
    assert first.verdicts == ("scored",) * 6 + ("withheld",) * 2
    assert bench.ledger.charge(admission, shown) == first
    bench.reopen()
    assert bench.ledger.charge(admission, shown) == first


def test_distinct_records_end_within_an_answer_then_at_the_door(bench: Bench) -> None:
    assert bench.ask("one", "a b c d").distinct_left_day == 2
    second = bench.ask("two", "a e f g")
    assert second.verdicts == ("scored", "scored", "scored", "withheld")
    assert second.limited
    assert (second.distinct_left_day, second.distinct_left_30_days) == (0, 3)
    assert refusal(lambda: bench.admit("three"))[0] == "distinct_records_day"


def test_a_new_day_gives_no_new_month(bench: Bench) -> None:
    bench.ask("one", "a b c d e f")
    bench.now += day_s
    assert bench.ask("two", "g h i j").verdicts == ("scored", "scored", "scored", "withheld")
    bench.now += day_s
    assert refusal(lambda: bench.admit("three")) == ("distinct_records_30_days", 28 * day_s)
    bench.now += 28 * day_s - 1
    refusal(lambda: bench.admit("three"))
    bench.now += 1
    assert bench.ask("three", "j k l m").distinct_left_30_days == 2


def test_a_record_shown_again_stays_counted_from_then(bench: Bench) -> None:
    bench.ask("one", "a b")
    bench.now += 0.9 * day_s
    assert bench.ask("two", "a").distinct_left_day == 4
    bench.now += 0.2 * day_s
    assert bench.ask("three", "c").distinct_left_day == 4


def test_the_longest_wait_is_told(bench: Bench) -> None:
    for n in range(5):
        bench.ask(f"q{n}", "a b" if n == 0 else "a")
    wide = Allowance(
        queries_day=5,
        distinct_records_day=6,
        distinct_records_30_days=2,
        client_factor=10,
        exposures_scored=None,
        exposures_total=None,
    )
    assert refusal(lambda: bench.admit("more", wide)) == ("distinct_records_30_days", 30 * day_s)


def test_exposures_scored_then_order_then_left_out(bench: Bench) -> None:
    verdicts = [bench.ask(f"q{n}", "a").verdicts[0] for n in range(5)]
    assert verdicts == ["scored", "scored", "order", "withheld", "withheld"]


def test_a_repeated_query_is_no_new_exposure(bench: Bench) -> None:
    for _ in range(4):
        assert bench.ask("same", "a").verdicts == ("scored",)
    assert bench.ask("other", "a").verdicts == ("scored",)


def test_an_exposure_ends_after_30_days(bench: Bench) -> None:
    for n in range(3):
        bench.ask(f"q{n}", "a")
        bench.now += day_s
    assert bench.ask("q3", "a").verdicts == ("withheld",)
    bench.now += 27 * day_s - 1
    assert bench.ask("q3", "a").verdicts == ("withheld",)
    bench.now += 1
    assert bench.ask("q3", "a").verdicts == ("scored",)
    assert bench.ask("q4", "a").verdicts == ("withheld",)


def test_order_only_answers_leave_the_scored_ones_unused(bench: Bench) -> None:
    assert bench.ask("q0", "a", scored=False).verdicts == ("order",)
    assert not bench.ask("q1", "a", scored=False).limited
    assert bench.ask("q2", "a").verdicts == ("scored",)
    assert bench.ask("q0", "a").verdicts == ("scored",)
    assert bench.ask("q1", "a").verdicts == ("order",)


def test_what_is_withheld_is_not_counted(bench: Bench) -> None:
    for n in range(3):
        bench.ask(f"q{n}", "a")
    assert bench.ask("q3", "a b").distinct_left_day == 4
    bench.reopen()
    assert bench.ask("q0", "a").verdicts == ("scored",)


def test_principals_collections_and_clients_have_their_own_counters(bench: Bench) -> None:
    for n in range(5):
        bench.ask(f"q{n}", "a")
    refusal(lambda: bench.admit("more"))
    assert bench.ask("q0", "a", key=bench.key("bob", "other")).verdicts == ("scored",)
    elsewhere = LedgerKey(collection=uuid4(), principal_tag=tag("ada"), client_tag=tag("app"))
    answer = bench.ask("q0", "a", key=elsewhere)
    assert (answer.queries_left, answer.distinct_left_day) == (4, 5)


def test_a_principal_takes_its_counters_along_to_another_client(bench: Bench) -> None:
    for n in range(5):
        bench.admit(f"q{n}", key=bench.key("ada", f"client{n}"))
    refusal(lambda: bench.admit("more", key=bench.key("ada", "client9")))


def test_a_client_ends_all_its_principals(bench: Bench) -> None:
    for n in range(10):
        bench.admit(f"q{n}", key=bench.key(f"user{n}"))
    assert refusal(lambda: bench.admit("more", key=bench.key("user99")))[0] == "queries_day"
    bench.admit("more", key=bench.key("user99", "other"))


def test_without_limits_all_is_shown_and_counted(bench: Bench) -> None:
    for n in range(12):
        answer = bench.ask(f"q{n}", "a b c d e f g h i j", free)
        assert answer.verdicts == ("scored",) * 10
        assert (answer.queries_left, answer.distinct_left_day, answer.distinct_left_30_days) == (None, None, None)
    assert refusal(lambda: bench.admit("q"))[0] == "distinct_records_30_days"


def test_a_smaller_allowance_takes_effect_at_once(bench: Bench) -> None:
    bench.ask("one", "a b c d e f g h", free)
    assert refusal(lambda: bench.admit("two")) == ("distinct_records_day", day_s)


def test_a_restart_forgets_nothing(bench: Bench) -> None:
    for n in range(4):
        bench.ask(f"q{n}", "a")
        bench.reopen()
    assert bench.ask("q9", "a b").verdicts == ("withheld", "scored")
    bench.reopen()
    refusal(lambda: bench.admit("more"))


def test_forgetting_a_record_gives_no_budget_back(bench: Bench) -> None:
    bench.ask("one", "a b c d e f")
    bench.ledger.forget(bench.collection, [tag("a"), tag("b"), tag("never shown")])
    refusal(lambda: bench.admit("two"))
    bench.ledger.forget(bench.collection, [tag("a")])
    bench.now += day_s
    assert bench.ask("two", "g").distinct_left_30_days == 2


def test_forgetting_a_record_drops_which_queries_showed_it(bench: Bench) -> None:
    for n in range(4):
        bench.ask(f"q{n}", "a b")
    bench.ledger.forget(bench.collection, [tag("a")])
    bench.reopen()  # until then it withholds the record, whatever was counted
    assert bench.ask("q9", "a b").verdicts == ("scored", "withheld")


def test_an_answer_that_was_on_its_way_writes_no_erased_record_down_again(bench: Bench) -> None:
    """It found the record before the erasure and is charged after it: withheld, not counted, and no budget's doing."""
    bench.ask("before", "a b")
    bench.ledger.forget(bench.collection, [tag("a")])
    late = bench.ask("on its way", "a b")
    assert (late.verdicts, late.limited) == (("withheld", "scored"), False)
    assert bench.ledger._db.rows("SELECT count(*) FROM records WHERE tag = ?", (tag("a"),)) == [(0,)]
    assert bench.ask("another", "a").distinct_left_day == late.distinct_left_day


def test_an_erased_collection_leaves_nothing_and_is_counted_no_more(bench: Bench) -> None:
    kept = uuid4()
    admission = bench.admit("on its way")
    bench.ask("q", "a b")
    elsewhere = replace(admission.key, collection=kept)
    bench.ledger.admit(elsewhere, request=uuid4(), query_tag=tag("q"), allowance=admission.allowance)
    for _ in range(2):
        bench.ledger.forget_collection(bench.collection)
    assert bench.ledger._db.rows("SELECT DISTINCT collection FROM counters") == [(kept.bytes,)]
    for table, left in (("records", 0), ("seen", 0), ("exposures", 0), ("queries", 1), ("counters", 2)):
        assert bench.ledger._db.rows(f"SELECT count(*) FROM {table}") == [(left,)]
    with pytest.raises(Conflict):
        bench.ledger.charge(admission, [])
    with pytest.raises(NotFound):
        bench.admit("more")


def test_forgetting_is_of_one_collection(bench: Bench) -> None:
    for n in range(4):
        bench.ask(f"q{n}", "a")
    bench.ledger.forget(uuid4(), [tag("a")])
    assert bench.ask("q9", "a").verdicts == ("withheld",)


def test_an_empty_answer_is_an_answer(bench: Bench) -> None:
    answer = bench.ask("q", "")
    assert answer.verdicts == ()
    assert not answer.limited


@pytest.mark.parametrize("wrong", [b"", b"ada", b"x" * 31, b"x" * 33])
def test_what_is_no_keyed_hash_does_not_come_in(bench: Bench, wrong: bytes) -> None:
    admission = bench.admit("q")
    asks: list[Callable[[], object]] = [
        lambda: bench.ledger.admit(bench.key(), request=uuid4(), query_tag=wrong, allowance=tight),
        lambda: bench.admit("q", key=LedgerKey(collection=uuid4(), principal_tag=wrong, client_tag=tag("c"))),
        lambda: bench.admit("q", key=LedgerKey(collection=uuid4(), principal_tag=tag("p"), client_tag=wrong)),
        lambda: bench.ledger.charge(admission, [Showing(record_tag=wrong, scored=True)]),
        lambda: bench.ledger.forget(bench.collection, [wrong]),
    ]
    for ask in asks:
        with pytest.raises(SecureEmbedError) as refused:
            ask()
        assert refused.value.code == "tag_invalid"


def test_a_record_stands_once_in_an_answer(bench: Bench) -> None:
    with pytest.raises(SecureEmbedError) as refused:
        bench.ask("q", "a b a")
    assert refused.value.code == "showing_repeated"


def test_threads_get_no_more_than_the_budget(bench: Bench) -> None:
    start = threading.Barrier(8)

    def ask(n: int) -> int:
        start.wait()
        try:
            return bench.ask(f"q{n}", " ".join(f"r{n}-{i}" for i in range(4))).verdicts.count("scored")
        except Exhausted:
            return -1

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(ask, range(8)))
    assert sum(n for n in outcomes if n > 0) == 6
    assert sum(n >= 0 for n in outcomes) <= 5
    refusal(lambda: bench.admit("more"))


def test_a_clock_set_back_frees_nothing(bench: Bench) -> None:
    for n in range(5):
        bench.ask(f"q{n}", "a")
    bench.now -= 10 * day_s
    refusal(lambda: bench.admit("more"))
    assert bench.ask("q0", "a", key=bench.key("bob", "other")).verdicts == ("scored",)


def test_a_clock_set_back_for_a_while_shortens_no_window(bench: Bench) -> None:
    bench.ask("one", "a b c d e f")
    bench.now -= 40 * day_s
    bench.ask("one", "a b c d e f", free)
    bench.now += 40 * day_s
    refusal(lambda: bench.admit("two"))
    bench.now += 29 * day_s
    assert bench.ask("two", "a").distinct_left_30_days == 3


def test_the_wait_is_until_enough_has_ended(bench: Bench) -> None:
    for n in range(8):
        bench.ask(f"q{n}", f"r{n}", free)
        bench.now += 3600
    # six may be counted: the wait is until three of eight are a day old, not one
    assert refusal(lambda: bench.admit("more", distinct_only)) == ("distinct_records_day", day_s - 6 * 3600)


def test_another_key_does_not_open_it(bench: Bench, tmp_path: Path) -> None:
    bench.ask("q", "a")
    bench.ledger.close()
    for open_ledger in drivers.values():
        with pytest.raises(IntegrityFailure):
            open_ledger(tmp_path / "risk.db", tag("another key"), lambda: 0.0)
