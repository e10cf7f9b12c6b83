"""The real service on a disk that fills up, or goes read-only: refused with 507 or 503, nothing lost, and on again.

A disk of its own is mounted for each test, so it runs where the tests may mount, and is skipped elsewhere;
`test_store_full_disk.py` and the tests of the log inject the same faults without one.
"""

import random
import time

import pytest

from campaigns.auditing import findings, keys_of
from campaigns.checks import check_service
from campaigns.driver import Driver
from campaigns.operations import CreateCollection, Fetch, Ingest, Query
from campaigns.service import Service, Zygote
from campaigns.small_disk import NoDisk, small_disk
from campaigns.stage import found
from campaigns.world import World
from secure_embed.cli.demo.service import free_port

pytestmark = pytest.mark.service

REFUSALS = ("storage_full", "storage_read_only", "storage_unavailable", "audit_unavailable")
recovers_s_max = 30.0
collection = "cfull-first"


class House:
    """A service whose whole deployment lies on one small disk."""

    def __init__(self, zygote, disk):
        self.disk = disk
        self.root = disk.folder / "deployment"
        self.world = World("full")
        port = free_port()
        found(self.root, port)
        self.driver = Driver(self.root, port, clients=2, tolerated=REFUSALS)
        self._zygote = zygote
        self._chance = random.Random(7)
        self.start()
        assert self.driver.all([CreateCollection(self.world, collection)])

    def start(self):
        self.service = Service(self._zygote, self.root)
        assert self.service.ready()

    def send(self, operation):
        """The answer's status and code."""
        assert self.driver.all([operation]), "the service went away"
        return self.driver.last.status, self.driver.last.code

    def ingest(self, count=12):
        things = [self.world.record(self._chance, collection) for _ in range(count)]
        return self.send(Ingest(self.world, collection, things, None))

    def some(self):
        """A record that was acknowledged."""
        thing = self.world.record_there(self._chance)
        assert thing is not None
        return thing

    def check(self):
        """All that was acknowledged is there, and what was refused is whole or absent; the log fits every receipt."""
        assert check_service(self.driver, self.world, self._chance, 0, everything=True)
        assert self.driver.defects == []

    def check_log(self):
        wrong = findings(self.root / "log", keys_of(self.root), receipts=self.driver.receipts)
        assert wrong == []


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    with Zygote("words", tmp_path_factory.mktemp("zygote")) as made:
        yield made


@pytest.fixture
def house(tmp_path, zygote):
    try:
        with small_disk(tmp_path, mebibytes=24) as disk:
            made = House(zygote, disk)
            yield made
            made.service.kill()
            made.service.wait()
    except NoDisk as why:
        pytest.skip(f"no disk can be mounted here: {why}")


def until_refused(house):
    for _ in range(2_000):
        status, code = house.ingest()
        if status != 201:
            return status, code
    raise AssertionError("the disk never filled up")


def test_a_full_disk_is_refused_and_the_service_goes_on_when_there_is_space(house):
    for _ in range(5):
        assert house.ingest() == (201, "")
    house.disk.fill(leave=600_000)
    status, code = until_refused(house)
    assert (status, code) in {(507, "storage_full"), (507, "audit_unavailable"), (503, "audit_unavailable")}
    house.disk.fill(leave=0)
    refused = [house.send(operation(house.world, house.some())) for operation in (Fetch, Query)]
    refused += [house.ingest() for _ in range(10)]
    assert {status for status, _ in refused} <= {200, 503, 507}  # an answer that can still be logged is given
    house.disk.release()
    ends = time.monotonic() + recovers_s_max
    while house.ingest() != (201, ""):
        assert time.monotonic() < ends, "it did not go on by itself"
        time.sleep(0.2)
    house.check()
    assert house.service.stop() == 0
    house.check_log()


def test_a_service_that_is_killed_on_a_full_disk_starts_again_with_space(house):
    for _ in range(5):
        assert house.ingest() == (201, "")
    house.disk.fill(leave=300_000)
    until_refused(house)
    house.disk.fill(leave=0)
    house.service.kill()
    house.service.wait()
    house.check_log()
    house.disk.release()
    house.start()
    house.check()
    assert house.ingest() == (201, "")


def test_a_disk_that_goes_read_only_loses_nothing(house):
    if not house.disk.breaks:
        pytest.skip("no ext4 here whose errors can be triggered")
    for _ in range(5):
        assert house.ingest() == (201, "")
    house.disk.go_read_only()
    answers = {
        house.ingest(),
        house.send(Fetch(house.world, house.some())),
        house.send(Query(house.world, house.some())),
    }
    assert {status for status, _ in answers} <= {503, 507}  # nothing can be logged, so nothing is answered
    house.service.kill()
    house.service.wait()
    house.disk.mend()
    house.start()
    house.check()
    assert house.ingest() == (201, "")
    assert house.service.stop() == 0
    house.check_log()


def test_a_second_service_on_the_same_deployment_ends_with_a_configuration_error(house):
    second = Service(house._zygote, house.root)
    assert second.wait() == 78
    assert house.ingest() == (201, "")
    house.check()
