"""What was said to be done is on the medium: the power goes right behind it, and it is there (`make crash` does it by the hundred).

Power goes by shutting an ext4 down without flushing its journal (campaigns/small_disk.py), where the tests may mount one.
"""

import contextlib

import pytest

from campaigns.inside import Inside
from campaigns.small_disk import NoDisk, small_disk
from campaigns.stage import ATTRIBUTES, found
from campaigns.world import Ask
from secure_embed.core import Core
from secure_embed.custody.backup import Manifest
from secure_embed.errors import SecureEmbedError
from secure_embed.founding import create
from secure_embed.settings import Settings

records = 10


@pytest.fixture
def disk(tmp_path):
    try:
        with small_disk(tmp_path, mebibytes=32) as made:
            if not made.cuts:
                pytest.skip("no loop device for an ext4 here")
            yield made
    except NoDisk as why:
        pytest.skip(f"no disk can be mounted here: {why}")


def power_cut(disk):
    disk.cut_power()
    disk.mend()


def test_a_new_deployment_is_there_after_a_power_cut(disk):
    """Its passphrase above all: what is sealed under it would be lost with it."""
    root = disk.folder / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    power_cut(disk)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    Core(Settings.load(root, dev=True)).close()


def test_an_acknowledged_backup_is_there_after_a_power_cut(disk):
    root, to = disk.folder / "deployment", disk.folder / "backups"
    to.mkdir(mode=0o700)
    found(root, 20_001, backups_to=to)
    sent = [{"id": f"r{n}", "text": f"text {n}", "attributes": {"sensitivity": 0}} for n in range(records)]
    inside = Inside(root)
    for path, body in (
        ("/v1/collections", {"name": "notes", "attributes": ATTRIBUTES}),
        ("/v1/collections/notes/records", {"records": sent}),
    ):
        assert inside.ask(Ask(method="POST", path=path, body=body)).status == 201
    answer = inside.ask(Ask(method="POST", path="/v1/backups", body={"to": str(to)}))
    assert answer.status == 201, answer.body
    disk.cut_power()
    with contextlib.suppress(SecureEmbedError):  # its log cannot be closed any more
        inside.close()
    disk.mend()
    for part in ("data", "keys"):
        folder = to / answer.body[part].rpartition("/")[2]
        manifest = Manifest.read(folder)
        assert manifest.records == records
        manifest.require_files(folder)
