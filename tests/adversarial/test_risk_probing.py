"""Each test is an attacker with the standard profile before him; what he gets is what docs/inversion-risk.md says.

The search is a real one over random unit vectors, small enough to be exact; the ledger and the rules are the real ones.
"""

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from secure_embed.errors import Exhausted, Forbidden, InvalidRequest, SecureEmbedError, Unavailable
from secure_embed.risk import (
    Answer,
    LedgerKey,
    RiskControl,
    SqlcipherLedger,
    check_query,
    load_profiles,
    normalise_query,
    query_identity,
)
from secure_embed.types import Position

day_s = 24 * 60 * 60
records, dimension = 2_000, 32
target = 1234
policies = Path(__file__).parents[2] / "policies" / "risk"


def tag(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def unit(seed: int, rows: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


class Service:
    """The steps of a query as the vault takes them, with a hash for an encoder: one text, one vector."""

    def __init__(self, folder: Path, profile: str = "standard") -> None:
        profiles = load_profiles(policies, development=False)
        self.now = 1_790_000_000.0
        self.path = folder / "risk.db"
        self.ledger = SqlcipherLedger(self.path, tag("database key"), lambda: self.now)
        self.control = RiskControl(profiles, self.ledger)
        self.profile = self.control.profile(profile)
        self.collection = uuid4()
        self.vectors = unit(1, records)

    def vector(self, text: str) -> np.ndarray:
        return unit(int.from_bytes(tag(text)[:4], "big"), 1)[0]

    def ask(
        self,
        text: str,
        *,
        who: str = "eve",
        client: str = "app",
        only: list[int] | None = None,
        near: int | None = None,
        k: int = 10,
        writes: bool = False,
        data_version: int = 1,
    ) -> Answer:
        """``only``: a filter down to these records; ``near``: the attacker knows how to word a query near this one."""
        check_query(self.profile, k=k, has_vector=False, collection_records=records, reads_all=False)
        normal = normalise_query(text)
        identity = query_identity(normal, own_filter=str(only or ""), data_version=data_version if writes else None)
        admission = self.control.admit(
            self.profile,
            LedgerKey(collection=self.collection, principal_tag=tag(who), client_tag=tag(client)),
            request=uuid4(),
            query_tag=tag(identity.hex()),
            collection_records=records,
            holds_write=writes,
        )
        query = self.vector(normal) + (2 * self.vectors[near] if near is not None else 0)
        scores = self.vectors @ (query / np.linalg.norm(query))
        allowed = np.array(only if only is not None else range(records))
        best = allowed[np.argsort(-scores[allowed], kind="stable")][:k]
        hits = [(Position(int(at)), float(scores[at])) for at in best]
        tags = [tag(f"record {at}") for at in best]
        return self.control.release(self.profile, admission, hits, tags, matching=len(allowed))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.ledger.close()


def readings(answer: Answer, at: int = target) -> list[float | None]:
    return [hit.score for hit in answer.hits if hit.position == at]


def test_there_is_no_way_past_k(service: Service) -> None:
    for k in (11, 100, 10**9):
        with pytest.raises(InvalidRequest) as refused:
            service.ask("everything", k=k)
        assert refused.value.code == "k_too_large"
    assert len(service.ask("everything").hits) == 10


def test_a_query_vector_is_refused_even_for_who_reads_all(service: Service) -> None:
    with pytest.raises(Forbidden) as refused:
        check_query(service.profile, k=10, has_vector=True, collection_records=10**6, reads_all=True)
    assert refused.value.code == "query_by_vector_refused"


def test_score_oracle_gets_ten_readings_of_a_record_and_thirty_orders(service: Service) -> None:
    answers = [service.ask(f"probe {n}", near=target) for n in range(60)]
    got = [reading for answer in answers for reading in readings(answer)]
    assert len([reading for reading in got if reading is not None]) == 10
    assert len(got) == 30
    assert not any(readings(answer) for answer in answers[30:])


def test_neighbours_do_not_bracket_a_score_that_is_withheld(service: Service) -> None:
    """Scores above and below an order-only hit would give its own to about 0.01: the whole answer goes without."""
    for n in range(30):
        answer = service.ask(f"probe {n}", near=target)
        if readings(answer) == [None]:
            assert {hit.score for hit in answer.hits} == {None}
            assert answer.limited
    assert n == 29


def test_waiting_a_day_buys_no_new_reading(service: Service) -> None:
    for n in range(30):
        service.ask(f"probe {n}", near=target)
        service.now += 0.9 * day_s
    assert readings(service.ask("probe 31", near=target)) == []
    service.now += 3.1 * day_s  # the first probe is 30 days old
    assert len(readings(service.ask("probe 32", near=target))) == 1


def test_waiting_a_day_buys_no_new_month(service: Service) -> None:
    shown: set[int] = set()
    for n in itertools.count():
        try:
            shown |= {hit.position for hit in service.ask(f"crawl {n}").hits}
        except Exhausted as refused:
            if refused.members["budget"] == "distinct_records_30_days":
                break
            service.now += day_s
    assert len(shown) == 400


def test_a_crawler_gets_the_days_share_and_no_more(service: Service) -> None:
    shown: set[int] = set()
    for n in range(20):
        try:
            shown |= {hit.position for hit in service.ask(f"crawl {n}").hits}
        except Exhausted:
            break
    assert len(shown) == 100
    with pytest.raises(Exhausted) as refused:
        service.ask("one more")
    assert refused.value.members["budget"] == "distinct_records_day"


def test_a_slow_query_storm_over_known_records_ends_too(service: Service) -> None:
    """Membership probing shows the same records again and again: the number of queries is what ends it."""
    for _ in range(1000):
        service.ask("the same")
    with pytest.raises(Exhausted) as refused:
        service.ask("the same")
    assert refused.value.members["budget"] == "queries_day"


def test_white_space_and_compatibility_forms_give_no_new_vector_and_no_new_reading(service: Service) -> None:
    first = service.ask("knee pain", near=target)
    for text in (" knee  pain", "knee\u00a0pain\n", "ｋｎｅｅ pain", "knee\u2003pain"):
        assert service.ask(text, near=target).hits == first.hits
    for n in range(9):
        assert readings(service.ask(f"probe {n}", near=target)) != [None]
    assert readings(service.ask("probe 10", near=target)) == [None]


def test_spelling_by_case_is_counted_because_a_cased_encoder_sees_it(service: Service) -> None:
    spellings = ["".join(letters) for letters in itertools.product(*zip("knee", "KNEE", strict=True))]
    got = [reading for text in spellings for reading in readings(service.ask(text, near=target))]
    assert len([reading for reading in got if reading is not None]) == 10


def test_the_same_query_again_is_free_and_new_wording_is_not(service: Service) -> None:
    first = service.ask("a", near=target)
    for _ in range(50):
        assert service.ask("a", near=target).hits == first.hits
    for n in range(9):
        assert readings(service.ask(f"new wording {n}", near=target)) != [None]
    assert readings(service.ask("new wording 9", near=target)) == [None]


@pytest.mark.parametrize("left", [1, 2, 99])
def test_a_filter_that_forces_a_record_in_gets_no_score(service: Service, left: int) -> None:
    only = list(range(target, target + left))
    for n in range(5):
        answer = service.ask(f"probe {n}", only=only)
        assert answer.hits
        assert {hit.score for hit in answer.hits} == {None}


def test_a_filter_that_forces_a_record_in_gets_thirty_orders(service: Service) -> None:
    got = [readings(service.ask(f"probe {n}", only=[target, 0])) for n in range(40)]
    assert got == [[None]] * 30 + [[]] * 10


def test_changing_the_filter_buys_no_reading(service: Service) -> None:
    """The same words under another filter are another query: the target among ever different company."""
    got = [readings(service.ask("same words", only=[target, *range(n, n + 200)], near=target)) for n in range(40)]
    assert sum(reading != [None] and reading != [] for reading in got) == 10
    assert got[30:] == [[]] * 10


def test_planted_records_buy_a_writer_fewer_orders_and_repeats_count(service: Service) -> None:
    for version in range(10):
        answer = service.ask("the same", near=target, writes=True, data_version=version)
        assert len(readings(answer)) == (1 if version < 5 else 0)


def test_colluding_principals_stop_at_their_clients_limit(service: Service) -> None:
    shown: set[int] = set()
    refused = 0
    for person in range(14):
        for n in range(30):
            try:
                answer = service.ask(f"crawl {person} {n}", who=f"eve{person}")
            except Exhausted:
                refused += 1
                break
            shown |= {hit.position for hit in answer.hits}
    assert refused == 14
    assert len(shown) == 1000


def test_colluding_principals_share_readings_of_one_record(service: Service) -> None:
    got: list[float | None] = []
    for person, n in itertools.product(range(14), range(12)):
        got += readings(service.ask(f"probe {person} {n}", who=f"eve{person}", near=target))
    assert len([reading for reading in got if reading is not None]) == 100


def test_every_refusal_has_one_shape(service: Service) -> None:
    """Own counter or the client's, this budget or that: the same code, sentence and members."""
    refusals: list[SecureEmbedError] = []
    for person in range(14):
        try:
            for n in range(1001):
                service.ask(f"{person} {n}", who=f"eve{person}")
        except Exhausted as refusal:
            refusals.append(refusal)
    assert len(refusals) == 14
    assert len({(r.code, r.detail, r.status, tuple(r.members)) for r in refusals}) == 1


def test_the_cap_hides_whether_a_text_is_stored_word_for_word(service: Service) -> None:
    service.vectors[1] = service.vector("stored word for word")
    nearly = service.vector("stored word for word") + 0.2 * service.vectors[2]
    service.vectors[3] = nearly / np.linalg.norm(nearly)
    exact, near = service.ask("stored word for word").hits[:2]
    assert (exact.position, near.position) == (1, 3)
    assert exact.score == near.score == 0.9


def test_what_is_left_out_leaves_no_gap_in_the_ranks(service: Service) -> None:
    for n in range(31):
        answer = service.ask(f"probe {n}", near=target)
    assert readings(answer) == []
    assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))


def test_a_restart_gives_nothing_back(service: Service) -> None:
    for n in range(30):
        service.ask(f"probe {n}", near=target)
    service.ledger.close()
    service.ledger = SqlcipherLedger(service.path, tag("database key"), lambda: service.now)
    service.control = RiskControl(load_profiles(policies, development=False), service.ledger)
    assert readings(service.ask("probe 31", near=target)) == []


def test_no_count_no_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that cannot be written refuses before the search, and after it too."""
    database = service.ledger._db._connection

    def turn_read_only(*_: object) -> None:
        database.execute("PRAGMA query_only = ON")

    assert service.ask("works").hits
    turn_read_only()
    with pytest.raises(Unavailable):
        service.ask("refused before the search")
    database.execute("PRAGMA query_only = OFF")
    original = service.vector
    monkeypatch.setattr(service, "vector", lambda text: (turn_read_only(), original(text))[1])
    with pytest.raises(Unavailable):
        service.ask("refused after the search")


def test_the_file_holds_no_tag_and_no_table_in_the_clear(service: Service) -> None:
    service.ask("knee pain", near=target)
    service.ledger.forget(service.collection, [tag("record 7")])
    service.ask("knee pain again", near=target)
    files = list(service.path.parent.iterdir())
    assert len(files) >= 2  # the database and its write-ahead log
    held = b"".join(path.read_bytes() for path in files)
    hidden = [
        tag("eve"),
        tag("app"),
        tag(f"record {target}"),
        service.collection.bytes,
        b"exposures",
        b"knee",
        b"SQLite",
    ]
    assert [word for word in hidden if word in held or word.hex().encode() in held] == []
    with pytest.raises(sqlite3.DatabaseError), sqlite3.connect(service.path) as plain:
        plain.execute("SELECT * FROM sqlite_master").fetchall()


def test_an_erased_records_tag_is_gone_from_the_open_file(service: Service) -> None:
    """Also for who has the ledger's key."""
    service.ask("knee pain", near=target)
    service.ledger.forget(service.collection, [tag(f"record {target}")])
    found = service.ledger._db.rows("SELECT tag FROM records WHERE tag = ?", (tag(f"record {target}"),))
    assert found == []
    assert service.ledger._db.rows("SELECT count(*) FROM records")[0][0] == 10
