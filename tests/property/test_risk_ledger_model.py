"""The ledger against a plain model that keeps every showing and counts from scratch; days pass, restarts happen."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secure_embed.errors import Exhausted
from secure_embed.risk import Admission, Allowance, LedgerKey, Showing, SqlcipherLedger

day = 24 * 60 * 60
month = 30 * day

people = st.sampled_from([("ada", "app"), ("bob", "app"), ("cyd", "app"), ("ada", "other")])
queries = st.sampled_from([f"q{n}" for n in range(6)])
answers = st.lists(st.sampled_from([f"r{n}" for n in range(9)]), max_size=5, unique=True)
limits = st.one_of(st.none(), st.integers(1, 6))


def tag(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@dataclass
class Showed:
    at: float
    record: str
    query: str
    scored: bool


class Counter:
    """A principal's or a client's whole history."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.showed: list[Showed] = []

    def queries(self, now: float) -> int:
        return sum(at > now - day for at in self.asked)

    def distinct(self, now: float, window: int) -> set[str]:
        return {s.record for s in self.showed if s.at > now - window}

    def exposed(self, now: float, record: str, *, scored: bool) -> set[str]:
        young = (s for s in self.showed if s.at > now - month and s.record == record)
        return {s.query for s in young if s.scored or not scored}


def full(count: int, limit: int | None, factor: int) -> bool:
    return limit is not None and count >= limit * factor


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_790_000_000.0
        self.collection = uuid4()
        self.counters: dict[tuple[str, str], Counter] = {}
        self.charged: list[tuple[Admission, list[Showing], tuple[str, ...]]] = []
        self.ledger = self.open()

    def open(self) -> SqlcipherLedger:
        return SqlcipherLedger(Path(self.folder.name) / "risk.db", tag("k"), lambda: self.now)

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    @initialize(queries_day=limits, a_day=limits, a_month=limits, scored=st.integers(1, 3), more=st.integers(0, 2))
    def choose(self, queries_day: int | None, a_day: int | None, a_month: int | None, scored: int, more: int) -> None:
        self.allowance = Allowance(
            queries_day=queries_day,
            distinct_records_day=a_day,
            distinct_records_30_days=a_month,
            client_factor=2,
            exposures_scored=scored,
            exposures_total=scored + more,
        )

    def both(self, who: tuple[str, str]) -> list[tuple[Counter, int]]:
        roles = (("principal", who[0]), ("client", who[1]))
        return [(self.counters.setdefault(role, Counter()), factor) for role, factor in zip(roles, (1, 2), strict=True)]

    def exhausted(self, who: tuple[str, str]) -> bool:
        a = self.allowance
        return any(
            full(c.queries(self.now), a.queries_day, f)
            or full(len(c.distinct(self.now, day)), a.distinct_records_day, f)
            or full(len(c.distinct(self.now, month)), a.distinct_records_30_days, f)
            for c, f in self.both(who)
        )

    def expected(self, who: tuple[str, str], query: str, records: list[str], *, scored: bool) -> list[str]:
        """Judge and count one record after the other, then take the scores if one record's are used up."""
        a, verdicts, used_up = self.allowance, [], False
        for record in records:
            shows, keeps = True, True
            for c, f in self.both(who):
                for window, limit in ((day, a.distinct_records_day), (month, a.distinct_records_30_days)):
                    seen = c.distinct(self.now, window)
                    shows &= record in seen or not full(len(seen), limit, f)
                exposed = c.exposed(self.now, record, scored=False)
                shows &= query in exposed or not full(len(exposed), a.exposures_total, f)
                with_score = c.exposed(self.now, record, scored=True)
                keeps &= query in with_score or not full(len(with_score), a.exposures_scored, f)
            verdicts.append("withheld" if not shows else "scored" if scored and keeps else "order")
            used_up |= shows and scored and not keeps
            if shows:
                for c, _ in self.both(who):
                    c.showed.append(Showed(self.now, record, query, verdicts[-1] == "scored"))
        if used_up:
            for c, _ in self.both(who):
                for n, verdict in enumerate(v for v in reversed(verdicts) if v != "withheld"):
                    assert c.showed[-1 - n].scored == (verdict == "scored")
                    c.showed[-1 - n].scored = False
            verdicts = ["withheld" if v == "withheld" else "order" for v in verdicts]
        return verdicts

    @rule(who=people, query=queries, records=answers, scored=st.booleans())
    def ask(self, who: tuple[str, str], query: str, records: list[str], scored: bool) -> None:
        key = LedgerKey(collection=self.collection, principal_tag=tag(who[0]), client_tag=tag(who[1]))
        request: UUID = uuid4()
        if self.exhausted(who):
            with pytest.raises(Exhausted):
                self.ledger.admit(key, request=request, query_tag=tag(query), allowance=self.allowance)
            return
        admission = self.ledger.admit(key, request=request, query_tag=tag(query), allowance=self.allowance)
        for counter, _ in self.both(who):
            counter.asked.append(self.now)
        showings = [Showing(record_tag=tag(record), scored=scored) for record in records]
        answer = self.ledger.charge(admission, showings)
        assert list(answer.verdicts) == self.expected(who, query, records, scored=scored)
        assert answer.limited == any(v != ("scored" if scored else "order") for v in answer.verdicts)
        own = self.both(who)[0][0]
        for left, limit, used in (
            (answer.queries_left, self.allowance.queries_day, own.queries(self.now)),
            (answer.distinct_left_day, self.allowance.distinct_records_day, len(own.distinct(self.now, day))),
            (answer.distinct_left_30_days, self.allowance.distinct_records_30_days, len(own.distinct(self.now, month))),
        ):
            assert left == (None if limit is None else limit - used)
        self.charged = [(admission, showings, answer.verdicts)]

    @precondition(lambda self: self.charged)
    @rule()
    def charge_again(self) -> None:
        admission, showings, verdicts = self.charged[-1]
        assert self.ledger.charge(admission, showings).verdicts == verdicts

    @rule(seconds=st.sampled_from([0.25, 60, 3600, 0.5 * day, day, 9 * day, month - day, month]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.charged = []

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = self.open()

    @rule(record=st.sampled_from([f"r{n}" for n in range(9)]))
    def forget(self, record: str) -> None:
        """In the model: the old record gets a name of its own and loses its queries. The restart ends the time in
        which the ledger withholds it, so that the tag can stand for a new record here."""
        self.ledger.forget(self.collection, [tag(record)])
        self.restart()
        self.charged = []
        erased = f"erased {uuid4()}"
        for counter in self.counters.values():
            for showed in counter.showed:
                if showed.record == record:
                    showed.record = erased

    @invariant()
    def nobody_was_shown_more_than_allowed(self) -> None:
        for (role, _), counter in self.counters.items():
            factor = 1 if role == "principal" else 2
            for window, limit in (
                (day, self.allowance.distinct_records_day),
                (month, self.allowance.distinct_records_30_days),
            ):
                assert limit is None or len(counter.distinct(self.now, window)) <= limit * factor
            for record in counter.distinct(self.now, month):
                total = self.allowance.exposures_total
                assert total is not None
                assert len(counter.exposed(self.now, record, scored=False)) <= total * factor


TestLedgerAgainstModel = LedgerMachine.TestCase
TestLedgerAgainstModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
