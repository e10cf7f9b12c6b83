"""An erasure that is cut off at any of its steps is finished by the next start, or by the next night's work.

The step fails once, as the process would that dies in it; the deployment is closed and opened again.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import House
from tests.worded import complaint, erasing, worded_house

end, end_unix = "2096-10-02T07:06:40Z", 4_000_000_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with worded_house(tmp_path) as made:
        made.ingest("complaints", [complaint(n, **({"expires_at": end} if n >= 40 else {})) for n in range(60)])
        made.query("complaints", "card", made.handler(), k=10)
        yield made


class Gone(BaseException):
    """No ``except Exception`` stops it, as none stops a death."""


def steps(house: House) -> dict[str, tuple[Any, str]]:
    """What is called in an erasure, in its order."""
    erasures, stored = erasing(house), house.deployment.holdings.named("complaints")
    return {
        "before the keys": (stored._key_store, "shred"),
        "between keys and rows": (stored._store, "erase"),
        "between rows and budgets": (erasures._risk, "forget"),
        "before the key's new version": (stored._keys, "rotate"),
        "before the receipt is signed": (erasures._log, "sign"),
    }


def cut_off(target: Any, name: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> None:
    """A caller's use case makes an answer of it; the service's own work lets it through."""
    died = []

    def die(*_: Any, **__: Any) -> None:
        died.append(name)
        raise Gone

    with monkeypatch.context() as broken:
        broken.setattr(target, name, die)
        with suppress(Gone):
            assert work().status_code == 500
    assert died


def ended(house: House) -> list[tuple[str, str, int]]:
    """Kind, state and records of every erasure, each with its digest in the log."""
    states = [erasing(house)._opened(i, s) for i, s in house.deployment.holdings._store.states(1)]  # type: ignore[arg-type]
    logged = {e["details"].get("receipt_sha256") for e in house.events() if "details" in e}
    assert all(s.logged and hashlib.sha256((s.note or "").encode()).hexdigest() in logged for s in states)
    return [(s.kind, s.state, s.records) for s in states]


def there(house: House) -> int:
    return house.deployment.holdings.named("complaints").records


@pytest.mark.parametrize("way", ["record", "subject", "retention"])
def test_every_step_of_an_erasure_may_be_the_last_one(house: House, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, step in enumerate(steps(house)):
        first = 40 + 4 * number if way == "retention" else 2 * number
        before = there(house)
        erase: dict[str, Callable[[], Any]] = {
            "record": lambda first=first: house.http.delete(
                f"/v1/collections/complaints/records/{complaint(first)['id']}", headers=house.privacy()
            ),
            "subject": lambda first=first: house.http.post(
                "/v1/erasures", json={"subject": complaint(first)["subject"]}, headers=house.privacy()
            ),
            "retention": lambda: erasing(house).sweep(end_unix),
        }
        monkeypatch.setattr("secure_embed.erasure.erasing.sweep_records_max", 4)
        cut_off(*steps(house)[step], monkeypatch, erase[way])
        if number % 2:
            house.reopen()
        else:
            assert erasing(house).complete() == 0
        count = {"record": 1, "subject": 2, "retention": 4}[way]
        assert there(house) == before - count
        assert ended(house) == [(way, "done", count)] * (number + 1)
        gone = house.http.get(f"/v1/collections/complaints/records/{complaint(first)['id']}", headers=house.handler())
        assert gone.status_code == 404
    house.reopen()
    assert len(ended(house)) == 5


@pytest.mark.parametrize("next_day", ["restart", "upkeep"])
@pytest.mark.parametrize("step", ["the keys", "the rows", "the budgets", "the receipt"])
def test_every_step_of_a_collections_end_may_be_the_last_one(
    house: House, step: str, next_day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = house.deployment.holdings.named("complaints")
    target, name = {
        "the keys": (stored._key_store, "drop_collection"),
        "the rows": (stored._store, "erase_collection"),
        "the budgets": (erasing(house)._risk, "forget_collection"),
        "the receipt": (erasing(house)._log, "sign"),
    }[step]
    erase = lambda: house.http.delete("/v1/collections/complaints", headers=house.privacy())  # noqa: E731
    cut_off(target, name, monkeypatch, erase)
    assert house.query("complaints", "card", house.handler()).json()["code"] == "collection_not_found"
    if next_day == "restart":
        house.reopen()
    else:
        assert erasing(house).complete() == 0
    assert house.deployment.holdings.names() == ["clinical-notes"]
    assert ended(house) == [("collection", "done", 60)]
    house.create_collection("complaints")
    assert house.ingest("complaints", [complaint(1)]).status_code == 201


def test_an_erasure_whose_outcome_was_not_logged_has_its_receipt_logged_at_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(
        house.deployment.log,
        "outcome",
        monkeypatch,
        lambda: house.http.post("/v1/erasures", json={"subject": "customer-0003"}, headers=house.privacy()),
    )
    house.reopen()
    assert ended(house) == [("subject", "done", 2)]


def test_a_failure_after_the_outcome_is_made_good(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt's mark could not be stored: the answer stands, and the digest is logged once more later."""
    from secure_embed.errors import Unavailable

    def full(*_: Any) -> None:
        raise Unavailable("there is no space left to write", code="storage_full", http_status=507)

    with monkeypatch.context() as broken:
        broken.setattr(erasing(house), "_mark_logged", full)
        answer = house.http.post("/v1/erasures", json={"subject": "customer-0003"}, headers=house.privacy())
    assert (answer.status_code, answer.json()["state"]) == (201, "done")
    assert erasing(house).complete() == 0
    assert ended(house) == [("subject", "done", 2)]


def test_the_nights_work_leaves_an_erasure_alone_that_is_running(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One receipt and one digest, although the night's work listed it before its own thread had ended it."""
    erasures, listed, ended_now = erasing(house), Event(), Event()
    original = erasures._unended

    def slow() -> Any:
        found = original()
        listed.set()
        assert ended_now.wait(30)
        return found

    answers: list[Any] = []
    shredding = erasures._shred

    def shred(*given: Any) -> Any:
        night.start()
        assert listed.wait(30)
        return shredding(*given)

    night = Thread(target=lambda: answers.append(erasures.complete()))
    monkeypatch.setattr(erasures, "_unended", slow)
    monkeypatch.setattr(erasures, "_shred", shred)
    erased = house.http.post("/v1/erasures", json={"subject": "customer-0003"}, headers=house.privacy()).json()
    ended_now.set()
    night.join(30)
    monkeypatch.undo()
    assert answers == [0]
    assert erasures.state(UUID(erased["id"])).note == erased["note"]
    assert ended(house) == [("subject", "done", 2)]


def test_the_nights_work_passes_over_an_erasure_that_is_running(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    erasures, answers = erasing(house), list[int]()
    night = Thread(target=lambda: answers.append(erasures.complete()))
    shredding = erasures._shred

    def shred(*given: Any) -> Any:
        monkeypatch.undo()
        night.start()
        night.join(1)
        return shredding(*given)

    monkeypatch.setattr(erasures, "_shred", shred)
    erased = house.http.post("/v1/erasures", json={"subject": "customer-0003"}, headers=house.privacy()).json()
    night.join(30)
    assert answers == [0]
    assert not [e for e in house.events() if "resumed" in e.get("details", {})]
    assert erasures.state(UUID(erased["id"])).note == erased["note"]
    assert ended(house) == [("subject", "done", 2)]
