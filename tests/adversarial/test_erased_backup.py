"""Copies from before an erasure, put beside today's files: what opens and what does not. A subject's records, and a single one.

The attacker has the root key, all databases' keys and every file of today, and a copy of some files from before.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_embed.core import Core
from secure_embed.errors import IntegrityFailure, SealedValueUnreadable
from secure_embed.keys.wrapping import unwrap_key
from secure_embed.settings import Settings
from secure_embed.types import Field, Position
from tests.conftest import House
from tests.worded import complaint, worded_house

subject, single = [2, 3], [8]
erased, kept = subject + single, [0, 1, 4, 11]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Twelve records, then a copy of everything in ``before``, then the erasures. Stopped."""
    with worded_house(tmp_path) as made:
        made.ingest("complaints", [complaint(n) for n in range(12)])
        made.close()
        shutil.copytree(made.root, tmp_path / "before")
        made.open()
        by_subject = made.http.post("/v1/erasures", json={"subject": "customer-0001"}, headers=made.privacy())
        path = f"/v1/collections/complaints/records/{complaint(8)['id']}"
        assert by_subject.json()["records"] == 2
        assert made.http.delete(path, headers=made.privacy()).json()["state"] == "done"
        made.close()
        yield made
        made.open()  # to be closed


def put_back(house: House, folder: str) -> None:
    shutil.rmtree(house.root / folder)
    shutil.copytree(house.root.parent / "before" / folder, house.root / folder)


def read(house: House, number: int) -> int:
    path = f"/v1/collections/complaints/records/{complaint(number)['id']}"
    return int(house.http.get(path, headers=house.handler()).status_code)


def test_a_copy_of_the_data_beside_todays_keys_opens_no_erased_record(house: House) -> None:
    put_back(house, "data")
    with pytest.raises(IntegrityFailure) as noticed:
        house.open()
    assert noticed.value.code == "store_rolled_back"
    Core(house.settings, acknowledge_rollback=True).close()
    house.open()
    holding = house.deployment.holdings.named("complaints")
    rows = holding._store.fetch(holding.uuid, [Position(n) for n in erased], set(Field))
    assert len(rows) == 3  # the sealed values are there
    for position, row in rows.items():
        opened = [holding._keys.open(position, f, sealed, holding._space) for f, sealed in row.fields.items()]
        assert opened == [None] * 3
    assert [read(house, n) for n in erased] == [404] * 3
    assert [read(house, n) for n in kept] == [200] * 4
    for n in erased:
        hits = house.query("complaints", complaint(n)["text"], house.analyst(), k=10).json()["hits"]
        assert complaint(n)["id"] not in {hit["id"] for hit in hits}
    house.close()


def test_wrapped_keys_from_before_open_nothing_under_todays_keys(house: House, tmp_path: Path) -> None:
    """As they may lie in worn blocks of a disk: the version that wrapped them is nowhere any more."""
    with_old = Core(_settings_of(house, tmp_path / "before"))
    uuid = with_old.holdings.named("complaints").uuid
    old = {key.position: key.wrapped for key in with_old.key_store.wrapped(uuid)}
    with_old.close()
    with Core(house.settings) as today:
        stored = today.key_store.collection(uuid)
        key = today.keyring.unwrap_collection_key(
            stored.collection_key, uuid, stored.version, root_key_id=stored.root_key_id
        )
        for n in erased + kept:
            with pytest.raises(SealedValueUnreadable):
                unwrap_key(key, old[Position(n)], where="record key")
        assert len(list(today.key_store.wrapped(uuid))) == 9


def test_a_copy_of_the_keys_opens_them_as_the_receipt_says(house: House, tmp_path: Path) -> None:
    """The limit: keys and data from before, together. This ends when the last copy of the keys does."""
    with Core(_settings_of(house, tmp_path / "before")) as before:
        holding = before.holdings.named("complaints")
        assert len(holding.describe([Position(n) for n in erased])) == 3


def test_keys_from_before_are_noticed_beside_todays_data(house: House) -> None:
    put_back(house, "keys")
    with pytest.raises(IntegrityFailure) as noticed:
        house.open()
    assert noticed.value.code == "keys_rolled_back"
    for folder in ("data", "log"):  # so that the fixture can open what it closes
        put_back(house, folder)


def _settings_of(house: House, root: Path) -> Settings:
    return house.settings.model_copy(update={"root": root})
