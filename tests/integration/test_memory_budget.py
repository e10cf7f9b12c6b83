"""More collections than memory holds: they take turns, nobody loses one that is in use, and nothing is refused quietly.

All through the service's own doors. The budgets are tiny, so that a few hundred records do.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from secure_embed.collection import codes as codes_module
from secure_embed.collection.opening import Opening
from secure_embed.errors import ConfigurationError
from secure_embed.settings import Settings
from tests.conftest import House

if TYPE_CHECKING:
    from secure_embed.embed import Encoder

SUBJECT = "patient-7"
EVERY_COLLECTION = """@id("tests") @owner("tests") @rationale("The default policies know two collections by name.")
permit (
  principal,
  action in [Action::"query", Action::"record.ingest", Action::"record.read", Action::"collection.read"],
  resource
);
"""
Made = Callable[..., House]


@pytest.fixture
def make(tmp_path: Path, encoder: "Encoder") -> Iterator[Made]:
    """A deployment whose settings have ``[index]`` as given; opened again with other ones by :func:`reopened`."""
    from secure_embed.founding import create

    houses = []

    def made(**index: Any) -> House:
        root = tmp_path / "deployment"
        create(root, dev=True, model="all-minilm-l6-v2")
        file = root / "secure-embed.toml"
        text = file.read_text().replace('risk_profile = "standard"', 'risk_profile = "open"')
        file.write_text(text + f"\n[backup]\nfolders = ['{tmp_path / 'backups'}']\n")
        policy = root / "policies" / "tests.cedar"
        policy.write_text(EVERY_COLLECTION)
        policy.chmod(0o600)
        houses.append(House(with_index(root, **index), encoder))
        return houses[0]

    yield made
    for house in houses:
        house.close()


def with_index(root: Path, **index: Any) -> Path:
    file = root / "secure-embed.toml"
    text = file.read_text().split("\n[index]")[0]
    lines = [f"{name} = {list(v) if isinstance(v, tuple) else v}" for name, v in index.items()]
    file.write_text("\n".join([text, "[index]", *lines, ""]))
    return root


def reopened(house: House, **index: Any) -> None:
    house.close()
    house.settings = Settings.load(with_index(house.root, **index), dev=True)
    house.open()


def record(name: str, number: int, *, subject: str | None = None) -> dict[str, Any]:
    return {
        "id": f"{name}-{number:04}",
        "text": f"{name}: the complaint of ward {number}, written on day {number % 7}",
        "subject": subject,
        "attributes": {"department": "complaints", "sensitivity": 1, "country": "DE"},
    }


def fill(house: House, name: str, count: int, *, first: int = 0) -> None:
    if name not in house.deployment.holdings.names():
        house.create_collection(name)
    batch = [record(name, n, subject=SUBJECT if n == 3 else None) for n in range(first, first + count)]
    answer = house.ingest(name, batch)
    assert answer.status_code == 201, answer.text


def hits(house: House, name: str, number: int = 1) -> list[str]:
    answer = house.query(name, record(name, number)["text"], asker(house), k=3)
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def asker(house: House) -> dict[str, str]:
    return house.analyst()


def readyz(house: House) -> dict[str, Any]:
    from secure_embed.api.server import health_app

    return TestClient(health_app(house.deployment.readiness)).get("/readyz").json()  # type: ignore[no-any-return]


def open_now(house: House) -> set[str]:
    return {holding.collection.name for holding in house.deployment.holdings.each_open()}


def test_more_collections_than_fit_take_turns_and_each_answers(make: Made) -> None:
    """Budget for two of four. One that comes back is read from its file, not built anew."""
    house = make(memory_mib_max=2)
    names = [f"c-{n}" for n in range(4)]
    for name in names:
        fill(house, name, 30)
    for _ in range(2):
        for name in names:
            assert hits(house, name)[0] == f"{name}-0001"
            assert house.deployment.holdings.memory().used <= 2 << 20
    assert open_now(house) == {"c-2", "c-3"}
    assert house.deployment.holdings.named("c-0").shard().size == 30
    assert house.deployment.holdings.named("c-0").codes_origin == "saved"
    memory = readyz(house)["memory"]
    assert (memory["budget_mib"], memory["open"]) == (2, 2)
    assert memory["used_mib"] <= 2
    assert memory["needed_mib"] >= 4


def test_a_collection_that_would_outgrow_the_budget_refuses_the_batch_whole_and_says_the_figure(make: Made) -> None:
    house = make(memory_mib_max=1)
    fill(house, "complaints", 100)
    before = house.deployment.holdings.named("complaints")
    standing = (before.records, before.data_version, before.next_position)
    answer = house.ingest("complaints", [record("complaints", n) for n in range(100, 900)])
    assert answer.status_code == 507
    said = answer.json()
    assert (said["code"], said["needed_mib"], said["budget_mib"]) == ("collection_over_budget", 2, 1)
    assert "index.memory_mib_max" in said["detail"]
    assert "Retry-After" not in answer.headers
    after = house.deployment.holdings.named("complaints")
    assert (after.records, after.data_version, after.next_position) == standing
    assert hits(house, "complaints", 7)[0] == "complaints-0007"
    last = [event for event in house.events() if event.get("action") == "record.ingest"][-1]
    assert last["error"] == "collection_over_budget"


def test_what_needs_keys_alone_goes_on_in_a_collection_that_is_over_the_budget(make: Made) -> None:
    """The operator lowered it, or the machine is a smaller one: no query, but records are read, erased and rotated."""
    house = make()
    fill(house, "complaints", 900)
    reopened(house, memory_mib_max=1)
    answer = house.query("complaints", "ward", asker(house))
    assert (answer.status_code, answer.json()["code"]) == (507, "collection_over_budget")
    read = house.http.get("/v1/collections/complaints/records/complaints-0005", headers=house.handler())
    assert read.status_code == 200
    erased = house.http.request(
        "POST", "/v1/erasures", json={"subject": SUBJECT, "reason": "consent_withdrawn"}, headers=house.privacy()
    )
    assert erased.status_code < 300, erased.text
    assert erased.json()["records"] == 1
    assert house.rotate("collection", collection="complaints", reseal=True)["state"] == "done"
    reopened(house, memory_mib_max=64)
    assert "complaints-0003" not in hits(house, "complaints", 3)


def test_erasing_a_subject_everywhere_a_sweep_and_a_list_do_not_need_all_of_them_open(make: Made) -> None:
    house = make(memory_mib_max=2)
    names = [f"c-{n}" for n in range(6)]
    for name in names:
        fill(house, name, 10)
    for name in names:  # an end of theirs comes soon
        soon = record(name, 500) | {"expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))}
        assert house.ingest(name, [soon]).status_code == 201
    before = open_now(house)
    assert len(before) == 2
    listed = house.http.get("/v1/collections", headers=house.token("r", ["collections:read"]))
    shown = house.http.get("/v1/collections/c-0", headers=house.token("r", ["collections:read"]))
    assert {listed.status_code, shown.status_code} <= {200, 403}
    assert open_now(house) == before
    erased = house.http.post(
        "/v1/erasures", json={"subject": SUBJECT, "reason": "consent_withdrawn"}, headers=house.privacy()
    )
    assert erased.json()["records"] == 6
    assert house.deployment.holdings.memory().used <= 2 << 20
    time.sleep(2.1)
    assert house.deployment.vault.erasures._erasing.sweep(int(time.time())) == 6
    assert house.deployment.holdings.memory().used <= 2 << 20
    before = open_now(house)
    assert house.deployment.vault.erasures._erasing.sweep(int(time.time())) == 0
    assert open_now(house) == before
    assert [house.deployment.holdings.records(name) for name in names] == [9] * 6


def test_a_backup_of_more_than_fits(make: Made, tmp_path: Path) -> None:
    house = make(memory_mib_max=2)
    for n in range(4):
        fill(house, f"c-{n}", 10)
    (tmp_path / "backups").mkdir(mode=0o700)
    taken = house.http.post(
        "/v1/backups",
        json={"to": str(tmp_path / "backups"), "keys_to": str(tmp_path / "backups")},
        headers=house.security(),
    )
    assert taken.status_code < 300, taken.text
    assert taken.json()["records"] == 40


class Caller:
    """One of several at once: asks, writes and erases in each collection in turn, and notes what is not as it should be."""

    def __init__(self, house: House, names: list[str], number: int) -> None:
        self.house, self.names, self.number = house, names, number
        self.faults: list[str] = []
        self.answered = 0
        self.asks, self.writes, self.erases = asker(house), house.writer(), house.privacy()

    def run(self) -> None:
        for turn in range(14):
            name = self.names[(self.number + turn) % len(self.names)]
            if turn % 3 < 2:
                self.ask(name, 10 + turn % 10)
            elif self.number % 2:
                new = record(name, 1_000 + 100 * self.number + turn)
                path = f"/v1/collections/{name}/records"
                self.note(self.house.http.post(path, json={"records": [new]}, headers=self.writes))
            else:
                path = f"/v1/collections/{name}/records/{name}-{(self.number + turn) % 10:04}"
                self.note(self.house.http.delete(path, params={"reason": "mistake"}, headers=self.erases))

    def ask(self, name: str, number: int) -> None:
        answer = self.house.query(name, record(name, number)["text"], self.asks, k=3)
        self.note(answer)
        if answer.status_code == 200:
            self.answered += 1
            if answer.json()["hits"][0]["id"] != f"{name}-{number:04}":
                self.faults.append(f"{name} {number}: another record first")

    def note(self, answer: Any) -> None:
        if answer.status_code >= 400 and answer.json()["code"] not in {"memory_in_use", "record_not_found"}:
            self.faults.append(f"{answer.status_code} {answer.json()['code']}")


def test_everything_at_once_and_nobody_meets_a_closed_collection(make: Made) -> None:
    """Queries, ingests and erasures in five collections of which two fit: each answer is right, or says to come again."""
    house = make(memory_mib_max=2)
    names = [f"c-{n}" for n in range(5)]
    for name in names:
        fill(house, name, 20)
    callers = [Caller(house, names, number) for number in range(6)]
    threads = [Thread(target=caller.run) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [fault for caller in callers for fault in caller.faults] == []
    assert sum(caller.answered for caller in callers) > 20
    assert house.deployment.holdings.memory().used <= 2 << 20
    for name in names:
        with house.deployment.holdings.using(name) as holding:
            assert holding.shard().size == holding.records
            assert holding.shard().version == holding.data_version


# --- on their way into memory ----------------------------------------------------------------------------------------


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Codes are built in a thread, however few, and not before the event is set."""
    go_on = Event()
    monkeypatch.setattr(codes_module, "save_records_min", -1)
    monkeypatch.setattr(Opening, "say", lambda *_: threading.main_thread().is_alive() and go_on.wait(60))
    yield go_on
    go_on.set()


def test_a_query_meanwhile_gets_503_with_retry_after_and_costs_nothing(make: Made, held_up: Event) -> None:
    """The file of codes is lost; the service answers everything else, and says how far it is without a name."""
    held_up.set()
    house = make(wait_seconds=0.1)
    fill(house, "complaints", 40)
    house.deployment.holdings.named("complaints").warm()
    house.close()
    for file in (house.root / "data/codes").iterdir():
        file.unlink()
    held_up.clear()
    house.open()
    answer = house.query("complaints", record("complaints", 1)["text"], asker(house))
    assert (answer.status_code, answer.json()["code"]) == (503, "index_building")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["Audit-Receipt"]
    assert "hits" not in answer.json()
    said = readyz(house)
    assert said["status"] == "ready"
    assert said["building"] == {"collections": 1, "records_done": 0, "records_total": 40}
    assert "complaints" not in str(said)
    # Everything that needs no codes goes on, and writers too.
    assert house.ingest("complaints", [record("complaints", 100)]).status_code == 201
    read = house.http.get("/v1/collections/complaints/records/complaints-0100", headers=house.handler())
    assert read.status_code == 200
    held_up.set()
    until = time.monotonic() + 30
    while (answer := house.query("complaints", record("complaints", 100)["text"], asker(house))).status_code != 200:
        assert answer.json()["code"] == "index_building"
        assert time.monotonic() < until
        time.sleep(0.02)
    assert answer.json()["hits"][0]["id"] == "complaints-0100"
    events = [event for event in house.events() if event.get("action") == "query" and event.get("error")]
    assert {event["error"] for event in events} == {"index_building"}


def test_collections_of_the_warm_up_list_come_first_and_a_missing_name_stops_nothing(
    make: Made, held_up: Event, caplog: pytest.LogCaptureFixture
) -> None:
    held_up.set()
    house = make()
    for name in ("c-0", "c-1", "c-2"):
        fill(house, name, 10)
    held_up.clear()
    with caplog.at_level(logging.INFO):
        reopened(house, warm_up=("c-1", "gone", "c-0"))
        said = readyz(house)
        assert said["status"] == "ready"
        assert (said["warming"]["named"], said["warming"]["left"]) == (3, 3)
        held_up.set()
        until = time.monotonic() + 30
        while house.deployment.readiness.say()[1]["warming"]["left"]:  # type: ignore[index]
            assert time.monotonic() < until
            time.sleep(0.02)
    assert house.deployment.readiness.say()[1]["warming"] == {"named": 3, "left": 0, "unknown": 1, "refused": 0}
    assert open_now(house) == {"c-0", "c-1"}
    assert "index.warm_up names gone, and there is no such collection" in caplog.messages


def test_what_does_not_fit_is_not_warmed_and_none_that_was_has_to_go(make: Made) -> None:
    house = make()
    names = ("c-0", "c-1", "c-2")
    for name in names:
        fill(house, name, 300)
    reopened(house, memory_mib_max=3, warm_up=names)
    until = time.monotonic() + 30
    while house.deployment.readiness.say()[1]["warming"]["left"]:  # type: ignore[index]
        assert time.monotonic() < until
        time.sleep(0.02)
    assert house.deployment.readiness.say()[1]["warming"]["refused"] == 1  # type: ignore[index]
    holdings = house.deployment.holdings
    assert [holding.collection.name for holding in holdings.each_open() if holding.codes_origin] == ["c-0", "c-1"]
    assert hits(house, "c-2")[0] == "c-2-0001"  # its first caller brings it in


def test_nobody_in_the_service_uses_a_collection_without_a_lease() -> None:
    """``named`` is for a look from outside."""
    package = Path(__file__).parents[2] / "secure_embed"
    users = [path for path in package.rglob("*.py") if "holdings.named(" in path.read_text()]
    assert users == []


@pytest.mark.parametrize(
    "index",
    [
        {"memory_mib_max": 0},
        {"memory_mib_max": -1},
        {"warm_up": ("Not A Name",)},
        {"warm_up": ("-c",)},
        {"wait_seconds": -1},
        {"memory": 1},
    ],
)
def test_settings_that_mean_nothing_are_refused_at_start(index: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.of({"index": index}, root=Path("nowhere"), dev=True)
    assert refused.value.code == "settings_invalid"
