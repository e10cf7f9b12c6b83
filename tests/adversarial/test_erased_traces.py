"""Who has every file and every key of the databases looks for what was erased: in pages, free space, logs, segments, codes.

What is looked for was taken down before: sealed values, wrapped keys, tags, text. Each search finds it before the erasure.
"""

from collections.abc import Iterator

import pytest

from tests.conftest import House
from tests.worded import Traces, complaint, erasing, worded_house

records = 1_200  # codes are saved from 1,000 records on
kinds = {
    *("id tag", "sealed vector", "sealed text", "sealed meta", "wrapped key", "subject tag", "ledger tag"),
}
end, end_unix = "2096-10-02T07:06:40Z", 4_000_000_000
special = {700: {"subject": "somebody with one record"}} | {n: {"expires_at": end} for n in range(4)}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Ingested under Idempotency-Keys, searched so that the ledger knows the records, and its codes saved."""
    with worded_house(tmp_path_factory.mktemp("traces")) as made:
        for first in range(0, records, 200):
            batch = [complaint(n, **special.get(n, {})) for n in range(first, first + 200)]
            answer = made.ingest("complaints", batch, **{"Idempotency-Key": f"batch-{first}"})
            assert answer.status_code == 201, answer.text
        assert made.ingest("clinical-notes", [complaint(n) for n in range(6)]).status_code == 201
        made.deployment.holdings.named("complaints").save_codes()
        yield made


def show(house: House, name: str, numbers: list[int]) -> None:
    for n in numbers:
        found = house.query(name, complaint(n)["text"], house.analyst(), k=3)
        assert complaint(n)["id"] in {hit["id"] for hit in found.json()["hits"]}, found.text


def erase_record(house: House, name: str, number: int) -> None:
    path = f"/v1/collections/{name}/records/{complaint(number)['id']}"
    assert house.http.delete(path, headers=house.privacy()).json()["state"] == "done"


def erase_subject(house: House, number: int) -> None:
    asked = {"subject": complaint(number)["subject"]}
    assert house.http.post("/v1/erasures", json=asked, headers=house.privacy()).json()["records"] == 2


@pytest.mark.parametrize("path", ["record", "subject", "retention"])
def test_nothing_of_an_erased_record_is_left_in_any_file(house: House, path: str) -> None:
    numbers = {"record": [700], "subject": [310, 311], "retention": [0, 1, 2, 3]}[path]
    show(house, "complaints", numbers)
    positions = [house.deployment.holdings.named("complaints").locate(complaint(n)["id"]) for n in numbers]
    traces = Traces(house, "complaints", [p for p in positions if p is not None], [complaint(n) for n in numbers])
    before = traces.found(house)
    assert before.keys() == kinds
    assert all(len(numbers) <= count <= 3 * len(numbers) for count in before.values())  # a piece may lie on two pages
    codes = [p.read_bytes() for p in (house.root / "data" / "codes").iterdir()] if path == "record" else []
    if path == "record":
        erase_record(house, "complaints", 700)
        assert len(codes) == 1  # sealed under a key that is gone, and gone itself
        assert list((house.root / "data" / "codes").iterdir()) == []
    elif path == "subject":
        erase_subject(house, 310)
    else:
        assert erasing(house).sweep(end_unix) == 4
    assert traces.found(house) == {}


def test_nothing_of_an_erased_collection_is_left_in_any_file(house: House) -> None:
    numbers = list(range(6))
    show(house, "clinical-notes", numbers)
    traces = Traces(house, "clinical-notes", numbers, [complaint(n) for n in numbers])
    stored = house.deployment.holdings.named("clinical-notes")
    keys = stored._key_store.collection(stored.uuid)
    for key in (keys.collection_key, keys.index_key, keys.lookup_key):
        traces._add("collection's keys", key)
    codebook = stored._store.codebook(stored.uuid)
    assert codebook is not None
    traces._add("codebook", codebook[1])
    assert traces.found(house).keys() == kinds | {"collection's keys", "codebook"}
    answer = house.http.delete("/v1/collections/clinical-notes", headers=house.privacy())
    assert (answer.json()["state"], answer.json()["records"]) == ("done", 6)
    assert traces.found(house) == {}


def test_what_was_saved_of_the_codes_before_never_opens_again(house: House) -> None:
    """A copy of the codes' file from before an erasure, put back in its place, is not believed."""
    holding = house.deployment.holdings.named("complaints")
    holding.save_codes()
    (file,) = (house.root / "data" / "codes").iterdir()
    copy = file.read_bytes()
    erase_record(house, "complaints", 800)
    house.close()
    file.write_bytes(copy)
    house.open()
    assert house.query("complaints", complaint(801)["text"], house.analyst(), k=1).status_code == 200
    assert house.deployment.holdings.named("complaints").codes_origin == "unreadable"
    found = house.query("complaints", complaint(800)["text"], house.analyst(), k=10).json()["hits"]
    assert complaint(800)["id"] not in {hit["id"] for hit in found}
