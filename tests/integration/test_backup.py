"""Backups of a running service, put back in an empty place; and older states put back behind the service's back."""

import shutil
import time

import pytest

from secure_embed.core import Core
from secure_embed.errors import ConfigurationError, IntegrityFailure
from secure_embed.restoring import acknowledge_rollback, restore
from secure_embed.settings import Settings
from tests.conftest import House

pytestmark = pytest.mark.model

CARDS = {"department": "cards", "sensitivity": 0}


def complaint(number):
    return {
        "id": f"c-{number}",
        "text": f"The card of customer {number} was {['lost', 'charged twice', 'never sent'][number % 3]}.",
        "subject": f"person-{number}",
        "attributes": CARDS,
    }


@pytest.fixture
def filled(open_house):
    assert open_house.ingest("complaints", [complaint(n) for n in range(20)]).status_code == 201
    return open_house


def back_up(house, to, **more):
    return house.http.post("/v1/backups", json={"to": str(to), **more}, headers=house.security())


def read(house, record):
    return house.http.get(f"/v1/collections/complaints/records/{record}", headers=house.handler())


def restored(house, taken, tmp_path, keys=None, name="restored"):
    """A house on the restored backup; its certificate is not in there, and not needed in one process."""
    root = tmp_path / name
    restore(
        taken["data"] if not isinstance(taken["data"], str) else tmp_path.__class__(taken["data"]),
        tmp_path.__class__(keys or taken["keys"]),
        root,
        passphrase_file=house.root / "secrets" / "root.passphrase",
    )
    shutil.copytree(house.root / "development-issuer", root / "development-issuer")
    return House(root, house._encoder)


def test_a_backup_restored_in_an_empty_place_answers_as_before(filled, tmp_path):
    """Records, search and the log come back; the log says that they did, and goes on."""
    house = filled
    taken = back_up(house, tmp_path / "backups").json()
    assert taken["records"] == 20
    size = len(house.events())
    again = restored(house, taken, tmp_path)
    try:
        assert read(again, "c-7").json()["text"] == complaint(7)["text"]
        assert again.ingest("complaints", [complaint(30)]).status_code == 201
        actions = [event["action"] for event in again.events()]
        assert "store.restored" in actions
        assert len(actions) > size - 5
    finally:
        again.close()


def test_what_a_backup_leaves_at_its_end_is_a_backup_or_nothing(filled, tmp_path, monkeypatch):
    """A copy that does not open is no backup: nothing of it stays."""
    house = filled
    monkeypatch.setattr("secure_embed.custody.backup.taking.records_opened", lambda *_: 1 / 0)
    assert back_up(house, tmp_path / "backups").status_code == 500
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_second_backup_links_what_has_not_changed(filled, tmp_path):
    house = filled
    first = back_up(house, tmp_path / "backups").json()
    assert first["bytes_linked"] == 0
    second = back_up(house, tmp_path / "backups", keys_to=str(tmp_path / "backups" / "keys-apart")).json()
    assert second["bytes_linked"] > 20 * 801
    assert second["keys"].startswith(str(tmp_path / "backups" / "keys-apart"))
    house.ingest("complaints", [complaint(21)])
    third = back_up(house, tmp_path / "backups").json()
    for taken, records in ((first, 20), (second, 20), (third, 21)):
        again = restored(house, taken, tmp_path, name=f"restored-{taken['id']}")
        assert again.deployment.holdings.named("complaints").open_all() == records
        again.close()


@pytest.mark.parametrize("where", ["/tmp", "relative", "{root}/inside", "{backups}/../elsewhere"])
def test_a_backup_goes_where_the_settings_allow(filled, tmp_path, where):
    place = where.format(root=filled.root, backups=tmp_path / "backups")
    answer = back_up(filled, place)
    assert (answer.status_code, answer.json()["code"]) == (422, "backup_folder_refused")


def test_a_record_and_a_subject_that_were_erased_stay_erased_beside_todays_keys(filled, tmp_path):
    """A data backup from before the erasure and the keys of today: what was erased does not open, the rest does."""
    house = filled
    taken = back_up(house, tmp_path / "backups").json()
    assert house.http.delete("/v1/collections/complaints/records/c-3", headers=house.privacy()).status_code == 200
    assert house.http.post("/v1/erasures", json={"subject": "person-4"}, headers=house.privacy()).json()["records"] == 1
    house.close()
    again = restored(house, taken, tmp_path, keys=house.root / "keys")
    try:
        assert [read(again, f"c-{n}").status_code for n in (2, 3, 4, 5)] == [200, 404, 404, 200]
        assert again.deployment.holdings.named("complaints").open_all() == 18
        beside_old_keys = restored(house, taken, tmp_path, name="with-old-keys")
        assert read(beside_old_keys, "c-3").status_code == 200  # so the test above could have failed
        beside_old_keys.close()
    finally:
        again.close()
        house.open()


@pytest.mark.parametrize("what", ["data/data.db", "keys/keys.db", "data/risk.db", "log", "data", "data and log"])
def test_an_older_state_put_back_is_noticed_at_the_start(filled, tmp_path, what):
    """Each database, the log and all data, as they were before a write that was acknowledged. An operator who means it
    says so, and the log has it."""
    house = filled
    house.close()
    saved, parts = tmp_path / "older", what.split(" and ")

    def copy(source, target):
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)

    for part in parts:
        copy(house.root / part, saved / part)
    house.open()
    assert house.ingest("complaints", [complaint(40)]).status_code == 201
    house.query("complaints", "a lost card", house.handler())
    house.close()
    for part in parts:
        copy(saved / part, house.root / part)
    expected = {
        "data/data.db": "store_rolled_back",
        "keys/keys.db": "keys_rolled_back",
        "data/risk.db": "budgets_rolled_back",
        "log": "log_rolled_back",
        "data": "store_rolled_back",
        "data and log": "log_rolled_back",
    }[what]
    with pytest.raises(IntegrityFailure) as refused:
        house.open()
    assert refused.value.code == expected
    assert acknowledge_rollback(Settings.load(house.root, dev=True)) == expected
    house.open()
    found = [event for event in house.events() if event["action"] == "log.rollback"]
    assert [event["details"]["found"] for event in found] == [expected]


def test_restore_refuses_a_place_that_is_not_empty_and_a_backup_that_was_changed(filled, tmp_path):
    house = filled
    taken = back_up(house, tmp_path / "backups").json()
    with pytest.raises(ConfigurationError) as occupied:
        restored(house, taken, tmp_path, name=house.root.name)
    assert occupied.value.code == "deployment_exists"
    data = tmp_path.__class__(taken["data"])
    segment = next(path for path in (data / "data" / "segments").rglob("*") if path.is_file())
    content = bytearray(segment.read_bytes())
    content[100] ^= 1
    segment.write_bytes(content)
    with pytest.raises(IntegrityFailure) as damaged:
        restored(house, taken, tmp_path)
    assert damaged.value.code == "backup_damaged"
    assert not (tmp_path / "restored").exists()


def test_writers_wait_for_a_backup_and_queries_do_not(filled, tmp_path):
    """What is acknowledged beside a backup is whole in it or not in it; nothing is lost in the service itself."""
    import threading

    house = filled
    results = []
    writers = [
        threading.Thread(
            target=lambda n=n: results.append(
                house.ingest("complaints", [complaint(100 + 10 * n + i) for i in range(10)]).status_code
            )
        )
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    taken = back_up(house, tmp_path / "backups").json()
    for writer in writers:
        writer.join()
    assert results == [201] * 4
    again = restored(house, taken, tmp_path)
    try:
        assert again.deployment.holdings.named("complaints").open_all() == taken["records"]
        assert (taken["records"] - 20) % 10 == 0
    finally:
        again.close()
    with Core(Settings.load(tmp_path / "restored", dev=True)) as core:
        assert core.holdings.names() == ["clinical-notes", "complaints"]


@pytest.mark.parametrize("kind", ["log", "root", "store"])
def test_new_keys_of_the_whole_deployment_wait_for_a_backup(filled, tmp_path, monkeypatch, kind):
    """A copy is of one root, one signing key and one key a database, from its first file to its signature."""
    from secure_embed.custody.backup import taking

    house, check, seen = filled, taking.records_opened, []
    rotating = house.deployment.vault.custody._rotating

    def with_a_rotation_asked_for(*given):
        identifier, _ = rotating.begin(kind)
        time.sleep(0.5)  # it would be through by now
        seen.append((identifier, rotating.state(identifier).state))
        return check(*given)

    monkeypatch.setattr(taking, "records_opened", with_a_rotation_asked_for)
    taken = back_up(house, tmp_path / "backups")
    assert taken.status_code == 201
    ((identifier, meanwhile),) = seen
    assert meanwhile == "running"
    while rotating.state(identifier).state == "running":
        time.sleep(0.02)
    assert rotating.state(identifier).state == "done"
    again = restored(house, taken.json(), tmp_path)
    assert read(again, "c-7").json()["text"] == complaint(7)["text"]
    again.close()
