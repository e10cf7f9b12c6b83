"""A collection tuned by the running service: what is found, kept, used, logged, refused; and what is told of queries."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaigns.encoder import WordEncoder
from secure_embed.collection import Tuned, Tunings
from secure_embed.collection.measuring import Measuring
from secure_embed.errors import Unavailable
from secure_embed.index import Effort, RabitqShard, every_list
from secure_embed.restoring import restore
from secure_embed.store import StateKind
from tests.conftest import House
from tests.worded import everything, worded_house

NAME, records, topics = "complaints", 2_400, 120
PATH = f"/v1/collections/{NAME}/tunings"


def wordy(number: int, made: np.random.Generator) -> dict[str, Any]:
    """A topic's three words, and four of its own: near its topic, and not much nearer to any of it."""
    topic = number % topics
    own = [f"w{made.integers(0, 4_000)}" for _ in range(4)]
    return {
        "id": f"r-{number}",
        "text": " ".join([f"t{topic}a", f"t{topic}b", f"t{topic}c", *own]),
        "attributes": {"department": "cards", "sensitivity": 0},
    }


def fill(house: House, count: int, *, first: int = 0) -> None:
    made = np.random.default_rng(first)
    for start in range(first, first + count, 800):
        batch = [wordy(n, made) for n in range(start, min(start + 800, first + count))]
        assert house.ingest(NAME, batch).status_code == 201


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with its records, closed: each test has a copy."""
    folder = tmp_path_factory.mktemp("filled")
    with worded_house(folder) as made:
        fill(made, records)
    return folder / "deployment"


@pytest.fixture
def house(tmp_path: Path, filled: Path) -> Iterator[House]:
    root = tmp_path / "deployment"
    shutil.copytree(filled, root)
    file = root / "secure-embed.toml"
    file.write_text(file.read_text() + f"\n[backup]\nfolders = ['{tmp_path / 'backups'}']\n")
    made = House(root, WordEncoder())  # type: ignore[arg-type]  # an Encoder by shape
    yield made
    made.close()


def admin(house: House) -> dict[str, str]:
    return house.token("admin", ["collections:admin"])


def tuned(house: House, **asked: Any) -> dict[str, Any]:
    """Tune and wait for the end."""
    begun = house.http.post(PATH, json={"target": 0.95, **asked}, headers=admin(house))
    assert begun.status_code == 202, begun.text
    shown: dict[str, Any] = begun.json()
    while shown["state"] == "running":
        time.sleep(0.05)
        shown = house.http.get(f"{PATH}/{shown['id']}", headers=admin(house)).json()
    return shown


def shown(house: House, headers: dict[str, str] | None = None) -> dict[str, Any]:
    by = headers or house.token("reader", ["collections:read", "records:write"])
    answer = house.http.get(f"/v1/collections/{NAME}", headers=by)
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name != "receipt"}


def holding(house: House) -> Any:
    return house.deployment.holdings.named(NAME)


def until(there: Callable[[], bool]) -> None:
    """Wait for what goes on in the background, a minute at most."""
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_chosen_meets_the_target_and_queries_use_it_behind_a_restart(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(house)["tuned"] is None
    done = tuned(house, apply=True)
    assert (done["state"], done["applied"]) == ("done", True)
    chosen = done["report"]["chosen"]
    assert chosen["meets"]
    assert chosen["recall_low"] >= 0.95
    assert chosen["openings"] < done["report"]["before"]["openings"] or chosen["codes"] < 2_400
    assert shown(house)["effort"] == chosen["effort"]
    house.reopen()
    now = shown(house)
    assert now["effort"] == chosen["effort"]
    assert (now["tuned"]["recall"], now["tuned"]["target"], now["tuned"]["k"]) == (chosen["recall"], 0.95, 10)

    used = []
    original = RabitqShard.search
    monkeypatch.setattr(
        RabitqShard, "search", lambda *a, effort, **kw: used.append(effort) or original(*a, effort=effort, **kw)
    )
    assert house.query(NAME, "t7a t7b w1", house.handler(), k=10).status_code == 200
    assert [(e.candidates, e.margin) for e in used] == [(chosen["effort"]["candidates"], chosen["effort"]["margin"])]


def test_a_dry_run_changes_nothing(house: House) -> None:
    before = shown(house)
    codebook = holding(house).shard().codebook
    for bits in (None, 1, 3):
        done = tuned(house, **({} if bits is None else {"bits": bits}))
        assert (done["state"], done["applied"]) == ("done", False)
        assert done["report"]["chosen"] is not None
    assert shown(house) == before
    assert holding(house).shard().codebook is codebook
    house.reopen()
    assert shown(house) == before
    assert (holding(house).shard().codebook.version, holding(house).shard().codebook.bits) == (codebook.version, 2)


def test_other_bits_are_measured_applied_and_there_behind_a_restart(house: House) -> None:
    """Codes are built anew with them, found again by a start, and a later training keeps to them."""
    version = holding(house).shard().codebook.version
    for n, bits in enumerate((1, 3), start=1):
        done = tuned(house, bits=bits, apply=True)
        assert (done["bits"], done["applied"]) == (bits, True), done
        codebook = holding(house).shard().codebook
        assert (codebook.bits, codebook.version) == (bits, version + n)
        assert shown(house)["bits"] == bits
        house.reopen()
        again = holding(house).shard().codebook
        assert (again.bits, again.version, str(holding(house).codes_origin)) == (bits, version + n, "saved")
        assert house.query(NAME, "t7a t7b t7c", house.handler(), k=5).json()["hits"]
    fill(house, 8_000, first=records)  # outgrown: a new codebook, in the background
    until(lambda: holding(house).shard().codebook.version > version + 2)
    assert holding(house).shard().codebook.bits == 3


def test_bits_that_a_crash_kept_from_the_codes_are_there_behind_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in force is durable first: until the codes follow, queries go as if untuned, and never wrongly."""

    def cut_off(*_: Any, **__: Any) -> None:
        raise Unavailable("the power went", code="storage_unavailable")

    with monkeypatch.context() as broken:
        broken.setattr(type(holding(house)), "recode", cut_off)
        assert tuned(house, bits=1, apply=True)["error"] == "storage_unavailable"
    shard = holding(house).shard()
    assert shard.codebook.bits == 2
    untuned = house.deployment.vault.queries._untuned
    assert holding(house).effort(untuned, shard) == untuned
    house.reopen()
    with house.deployment.holdings.using(NAME) as opened:
        assert opened.effort(untuned, opened.shard()) == untuned
        opened.keep_codes()  # as upkeep does
        until(lambda: opened.shard().codebook.bits == 1)
        kept = house.deployment.holdings.kept.tuned(opened.uuid)
        assert kept is not None
        assert opened.effort(untuned, opened.shard()) == kept.effort != untuned


def test_bits_are_chosen_when_a_collection_is_made(house: House) -> None:
    """By the caller, or by the dimension: 64 dimensions get two."""
    assert shown(house)["bits"] == 2
    for bits, status in ((3, 201), (1, 201), (0, 422), (5, 422)):
        name = f"bits-{bits}"
        made = house.http.post("/v1/collections", json={"name": name, "bits": bits}, headers=house.writer())
        assert made.status_code == status, made.text
        assert made.json().get("code" if status == 422 else "bits") == ("bits_invalid" if status == 422 else bits)
    house.reopen()
    assert house.deployment.holdings.named("bits-3").shard().codebook.bits == 3


def test_where_one_bit_does_not_do_it_says_how_many_to_try(house: House) -> None:
    before = shown(house)
    done = tuned(house, bits=1, target=0.999, k=1, apply=True)
    if done["report"]["chosen"] is None:
        assert (done["report"]["bits_recommended"], done["applied"]) == (2, False)
        assert shown(house) == before
    impossible = tuned(house, target=0.999, k=100, bits=4)
    assert impossible["report"]["bits_recommended"] is None


def test_an_effort_goes_with_its_codes(house: House) -> None:
    """On a codebook with more lists the share stays; of codes with other bits it says nothing."""
    tuned(house, apply=True)
    kept = house.deployment.holdings.kept.tuned(holding(house).uuid)
    assert isinstance(kept, Tuned)
    codebook = holding(house).shard().codebook
    few = replace(kept, lists=16, effort=replace(kept.effort, lists=4))
    more = type(codebook)(
        rotation=codebook.rotation,
        centroids=np.repeat(codebook.centroids, 64, axis=0),
        bits=2,
        version=9,
        trained_on=10,
    )
    untuned = house.deployment.vault.queries._untuned
    assert few.effort_for(untuned, more, records) == replace(few.effort, lists=16)
    assert few.effort_for(untuned, replace(more, bits=1), records) == untuned
    other = replace(kept, bits=1)
    house.deployment.holdings.kept.put_tuned(holding(house).uuid, other)
    assert holding(house).effort(untuned, holding(house).shard()) == untuned


def test_what_was_outgrown_is_searched_with_the_more_careful_effort(house: House) -> None:
    """Until it is tuned again: in each respect the larger of what was measured and what untuned collections have."""
    tuned(house, apply=True)
    kept = house.deployment.holdings.kept.tuned(holding(house).uuid)
    assert kept is not None
    codebook = holding(house).shard().codebook
    untuned = Effort(candidates=200, margin=3.0)
    for own, careful in (
        (Effort(candidates=50, lists=4, margin=4.0), Effort(candidates=200, lists=16, margin=4.0)),
        (Effort(candidates=800, lists=every_list, margin=1.5), Effort(candidates=800, lists=every_list, margin=3.0)),
    ):
        measured = replace(kept, effort=own)
        assert measured.effort_for(untuned, codebook, 2 * records - 1) == own
        assert measured.effort_for(untuned, codebook, 2 * records) == careful


REFUSED = [
    ({"target": 0.3}, 422, "tuning_invalid"),
    ({"target": 1.0}, 422, "tuning_invalid"),
    ({"k": 0}, 422, "tuning_invalid"),
    ({"k": 101}, 422, "tuning_invalid"),
    ({"bits": 5}, 422, "bits_invalid"),
    ({"bits": 0}, 422, "bits_invalid"),
    ({"queries": ["one text alone"]}, 422, "tuning_invalid"),
    ({"queries": ["the same text"] * 50}, 422, "tuning_invalid"),
    ({"queries": [" "] + [f"text {n}" for n in range(30)]}, 422, "text_invalid"),
    ({"queries": [f"text {n}" for n in range(201)]}, 422, "invalid_request"),
    ({"targets": 0.9}, 422, "invalid_request"),
    ({"apply": "yes"}, 422, "invalid_request"),
]


@pytest.mark.parametrize(("asked", "status", "code"), REFUSED)
def test_what_is_asked_wrongly_is_refused_and_logged(
    house: House, asked: dict[str, Any], status: int, code: str
) -> None:
    answer = house.http.post(PATH, json=asked, headers=admin(house))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    last = [event for event in house.events() if event["action"] == "collection.tune"][-1]
    assert (last["decision"], last["error"]) == ("refused", code)
    assert shown(house)["tuned"] is None


def test_who_may_not_tune_is_refused(house: House) -> None:
    for headers, status, code in (
        ({}, 401, "token_missing"),
        (house.handler(), 403, "insufficient_scope"),
        (house.auditor(), 403, "insufficient_scope"),
        (house.security(), 403, "insufficient_scope"),
    ):
        answer = house.http.post(PATH, json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    for path, code in (
        ("/v1/collections/no-such/tunings", "collection_not_found"),
        ("/v1/collections/clinical-notes/tunings", "tuning_unneeded"),  # empty: every search is exact
    ):
        assert house.http.post(path, json={}, headers=admin(house)).json()["code"] == code
    unknown = house.http.get(f"{PATH}/{'0' * 8}-0000-4000-8000-{'0' * 12}", headers=admin(house))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "tuning_not_found")


def test_the_log_says_who_tuned_and_how_much_was_opened(house: House) -> None:
    done = tuned(house, apply=True)
    events = house.events()
    asked = [e for e in events if e["action"] == "collection.tune" and "apply" in e.get("details", {})]
    assert [e["phase"] for e in asked] == ["INTENT", "OUTCOME"]
    assert asked[0]["principal"]["subject"] == "admin"
    own = [e for e in events if e["action"] == "collection.tuned"]
    assert [(e["phase"], e["collection"]) for e in own] == [("INTENT", NAME), ("OUTCOME", NAME)]
    assert own[0]["openings_max"] == asked[0]["openings_max"] > own[1]["details"]["opened"] > records
    said = own[1]["details"]
    assert (said["met"], said["applied"], own[1]["results"]) == (True, True, records)
    assert said["candidates"] == done["report"]["chosen"]["effort"]["candidates"]


def test_nothing_of_the_queries_is_kept_logged_or_said(house: House) -> None:
    texts = [f"t{n}a t{n}b zebrafish{n} quagga" for n in range(25)]
    done = tuned(house, queries=texts)
    assert done["report"]["chosen"]["recall_queries"] >= 0.95
    refused = house.http.post(PATH, json={"queries": texts, "target": 0.1}, headers=admin(house))
    malformed = house.http.post(PATH, json={"queries": texts, "quagga": 1}, headers=admin(house))
    for answer in (refused, malformed):
        assert answer.status_code == 422
        assert "zebrafish" not in answer.text
        assert "quagga" not in answer.text
    events = [e for e in house.events() if e["action"] in ("collection.tune", "collection.tuned")]
    assert {e["details"]["texts"] for e in events if e.get("details", {}).get("tuning") == done["id"]} == {25}
    content = everything(house)
    assert b"zebrafish" not in content
    assert b"quagga" not in content


def test_a_report_holds_means_and_no_record(house: House) -> None:
    """Cut to thousandths; no id, score or vector; how many records there are only for who may read all of them."""
    done = tuned(house, apply=True)
    for each in done["report"]["measured"]:
        assert set(each) == {
            "effort",
            "recall",
            "recall_low",
            "recall_queries",
            "recall_filtered",
            "openings",
            "openings_filtered",
            "codes",
            "meets",
        }
        assert each["recall"] == round(each["recall"], 3)
        assert isinstance(each["openings"], int)
    assert shown(house)["tuned"]["records"] is None
    all_of_it = house.token(
        "handler",
        ["collections:read", "records:read"],
        department="complaints",
        clearance=9,
        purpose="complaint-handling",
    )
    seen = shown(house, all_of_it)
    assert (seen["tuned"]["records"] is None) == (seen["records"] is None)


def test_one_runs_at_a_time_and_a_cut_off_one_has_failed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    original = Measuring.search_exactly

    def slow(self: Measuring, check: Any) -> None:
        while not go_on.wait(0.01):
            check()
        original(self, check)

    monkeypatch.setattr(Measuring, "search_exactly", slow)
    first = house.http.post(PATH, json={"apply": True}, headers=admin(house)).json()
    second = house.http.post(PATH, json={}, headers=admin(house))
    assert (second.status_code, second.json()["code"]) == (409, "tuning_running")
    assert house.query(NAME, "t7a t7b t7c", house.handler(), k=5).status_code == 200  # answers go on
    house.reopen()  # a stop between two steps
    ended = house.http.get(f"{PATH}/{first['id']}", headers=admin(house)).json()
    assert (ended["state"], ended["error"], ended["report"]) == ("failed", "tuning_interrupted", None)
    assert shown(house)["tuned"] is None

    monkeypatch.setattr(Tunings, "_end", lambda *_, **__: None)  # as if the process were gone by then
    third = house.http.post(PATH, json={"apply": True}, headers=admin(house)).json()
    house.close()
    monkeypatch.undo()
    house.open()
    ended = house.http.get(f"{PATH}/{third['id']}", headers=admin(house)).json()
    assert (ended["state"], ended["error"]) == ("failed", "tuning_interrupted")
    assert tuned(house)["state"] == "done"


def test_a_store_that_fails_ends_the_tuning_with_its_code(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the disk is away", code="storage_unavailable")

    monkeypatch.setattr(Measuring, "search_exactly", away)
    failed = tuned(house)
    assert (failed["state"], failed["error"]) == ("failed", "storage_unavailable")
    monkeypatch.setattr(Measuring, "search_exactly", lambda *_: 1 / 0)
    failed = tuned(house)
    assert (failed["state"], failed["error"]) == ("failed", "internal_error")
    monkeypatch.undo()
    assert tuned(house)["state"] == "done"


def test_what_has_grown_twofold_is_tuned_again(house: House) -> None:
    tunings = house.deployment.vault.tunings._tunings

    def night() -> None:
        tunings.keep_up()
        if tunings._worker is not None:
            tunings._worker.join()

    night()
    assert shown(house)["tuned"] is None  # never asked for, never tuned
    first = tuned(house, apply=True)
    night()
    kept = house.deployment.holdings.kept
    assert kept.tuning(holding(house).uuid).id == first["id"]
    fill(house, records, first=records)
    night()
    again = kept.tuning(holding(house).uuid)
    assert again.id != first["id"]
    assert (again.state, again.applied, again.asked.target) == ("done", True, 0.95)
    assert kept.tuned(holding(house).uuid).records == 2 * records
    night()
    assert kept.tuning(holding(house).uuid).id == again.id


def test_it_goes_along_in_a_backup_and_ends_with_its_collection(house: House, tmp_path: Path) -> None:
    tuned(house, apply=True)
    effort = shown(house)["effort"]
    taken = house.http.post("/v1/backups", json={"to": str(tmp_path / "backups")}, headers=house.security())
    assert taken.status_code == 201, taken.text
    restored = tmp_path / "restored"
    restore(
        data=Path(taken.json()["data"]),
        keys=Path(taken.json()["keys"]),
        root=restored,
        passphrase_file=house.root / "secrets" / "root.passphrase",
    )
    shutil.copytree(house.root / "development-issuer", restored / "development-issuer")
    other = House(restored, house._encoder)
    assert shown(other)["effort"] == effort
    store = other.deployment.holdings._store
    assert len(store.states(StateKind.TUNING)) == 1
    erased = other.http.delete(f"/v1/collections/{NAME}", headers=other.privacy())
    assert erased.status_code in (200, 202), erased.text
    assert store.states(StateKind.TUNING) == []
    other.close()
