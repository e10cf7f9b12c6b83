"""Where the unlocked keys of a running service lie: in locked pages of their own, and nowhere else but where named.

The test knows the keys from the stopped deployment and then looks through the memory of the service as root.
"""

import os
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from secure_embed.cli.demo.cast import Cast
from secure_embed.cli.demo.service import Service, free_port
from secure_embed.core import open_databases, open_keys
from secure_embed.founding import create
from secure_embed.keys import Secret
from secure_embed.keys.locked import Held
from secure_embed.keys.wrapping import unwrap_key
from secure_embed.settings import Settings

pytestmark = [
    pytest.mark.model,
    pytest.mark.service,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that is not dumpable"),
]

# A copy beside the held one, for the life of the process: OpenSSL's of the log's signing key.
# docs/decisions/0015-memory-and-host.md.
elsewhere_max = {"log_signing": 1}


def fill(cast):
    writer = cast.ingest_service()
    writer.call("POST", "/v1/collections", {"name": "complaints", "attributes": {"sensitivity": "long"}}).value()
    use(cast, "first")
    writer.close()


def use(cast, what):
    """Seal, open, search, read: what touches keys."""
    writer, handler = cast.ingest_service(), cast.complaint_handler()
    records = [
        {"id": f"{what}-{n}", "text": f"{what} complaint {n} about a card", "attributes": {"sensitivity": 0}}
        for n in range(600)
    ]
    writer.call("POST", "/v1/collections/complaints/records", {"records": records}).value()
    handler.call("GET", f"/v1/collections/complaints/records/{what}-7").value()
    writer.close()
    handler.close()


def keys_of(root):
    """Every 32-byte key of the deployment and its collection, by name; the root's passphrase."""
    found = {"passphrase": (root / "secrets" / "root.passphrase").read_bytes().strip()}
    with ExitStack() as opened, open_keys(Settings.load(root, dev=True)) as (provider, keyring):
        found |= {name.value: keyring.secret(name) for name in Secret}
        plain = [value.copy() for value in vars(provider).values() if isinstance(value, (Held, bytearray))]
        (found["root"],) = {bytes(value) for value in plain if len(value) == 32}
        key_store, store, _ = open_databases(opened, root, keyring)
        uuid = store.collections()[0].uuid
        stored = key_store.collection(uuid)
        key = keyring.unwrap_collection_key(stored.collection_key, uuid, stored.version, root_key_id=stored.root_key_id)
        found |= {
            "collection": key,
            "index": unwrap_key(key, stored.index_key, where="index key"),
            "lookup": unwrap_key(key, stored.lookup_key, where="lookup key"),
        }
    return found


def where(pid, needles):
    """How often each is found in locked pages that a child would find empty, and how often elsewhere."""
    held, elsewhere = Counter(), Counter()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for area in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text()):
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", area)
            if head is None:
                continue
            start, end = int(head[1], 16), int(head[2], 16)
            memory.seek(start)
            try:
                content = memory.read(end - start)
            except OSError:  # a thread in the background has ended since, and its memory is gone
                continue
            locked = {"lo", "wf", "dd"} <= set(re.search(r"VmFlags: (.*)", area)[1].split())
            for name, needle in needles.items():
                (held if locked else elsewhere)[name] += content.count(needle)
    return held, elsewhere


def test_keys_lie_in_locked_pages_and_a_passphrase_nowhere(tmp_path):
    root, port = tmp_path / "deployment", free_port()
    create(root, dev=True, model="all-minilm-l6-v2", port=port)
    service, cast = Service(root, port), Cast(root, f"https://localhost:{port}")
    service.start()
    fill(cast)
    service.stop()
    needles = keys_of(root)
    service.start()
    try:
        use(cast, "second")
        (process,) = [
            child
            for child in psutil.Process().children()
            if "serve" in child.cmdline() and str(root) in child.cmdline()
        ]
        held, elsewhere = where(process.pid, needles)
    finally:
        service.stop()
    assert elsewhere["passphrase"] == held["passphrase"] == 0
    of_collections = {"collection", "index", "lookup"}
    assert all(held[name] == 1 for name in of_collections), held
    assert all(held[name] >= 1 for name in {*needles} - {"passphrase", "root"}), held
    assert {name: count for name, count in elsewhere.items() if count > elsewhere_max.get(name, 0)} == {}
