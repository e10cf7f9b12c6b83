"""A real deployment with an encoder that takes no time, and everything that lies in its files, in plaintext.

The risk profile limits nothing, so that a handful of records can be searched. What is in the files is read past every
database: decrypted pages, free ones too, frames of write-ahead logs, segments, saved codes, log.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campaigns.encoder import WordEncoder
from secure_embed.erasure.erasing import Erasing
from secure_embed.keys import Secret
from secure_embed.types import Field, Position
from tests.conftest import House
from tests.sealed_store import pages

DATABASES = {"data.db": Secret.DATA_STORE, "keys.db": Secret.KEYS_STORE, "risk.db": Secret.RISK_STORE}


@contextmanager
def worded_house(folder: Path, *, settings: str = "") -> Iterator[House]:
    from secure_embed.founding import create

    root = folder / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    file = root / "secure-embed.toml"
    file.write_text(file.read_text().replace('risk_profile = "standard"', 'risk_profile = "open"') + settings)
    made = House(root, WordEncoder())  # type: ignore[arg-type]  # an Encoder by shape
    for name in ("clinical-notes", "complaints"):
        made.create_collection(name)
    yield made
    made.close()


def erasing(house: House) -> Erasing:
    return house.deployment.vault.erasures._erasing


def complaint(number: int, **more: Any) -> dict[str, Any]:
    """Two for each subject."""
    return {
        "id": f"complaint-{number:04d}",
        "text": f"Customer {number} says that card number {number * 7919} was charged twice in week {number % 53}.",
        "subject": f"customer-{number // 2:04d}",
        "attributes": {"department": "cards", "sensitivity": 0, "country": "DE"},
        "metadata": {"letter": f"letter-{number:04d}"},
    } | more


class Traces:
    """What a record leaves: to be taken down before it is erased, and looked for afterwards."""

    def __init__(self, house: House, name: str, positions: Sequence[int], records: Sequence[dict[str, Any]]) -> None:
        holding = house.deployment.holdings.named(name)
        at = [Position(p) for p in positions]
        self.needles: dict[str, list[bytes]] = {}
        for row in holding._store.fetch(holding.uuid, at, set(Field)).values():
            self._add("id tag", row.id_tag)
            for field, sealed in row.fields.items():
                self._add(f"sealed {field}", sealed)
        for key in holding._key_store.wrapped(holding.uuid):
            if key.position in positions:
                self._add("wrapped key", key.wrapped)
                if key.subject_tag is not None:
                    self._add("subject tag", key.subject_tag)
        for tag in holding.ledger_tags(at):
            self._add("ledger tag", tag)
        for record in records:
            self._add("text", record["text"].encode())
            self._add("id", record["id"].encode())

    def _add(self, kind: str, needle: bytes) -> None:
        """Its first, middle and last twelve bytes: a long value may be spread over pages."""
        middle = len(needle) // 2
        self.needles.setdefault(kind, []).extend((needle[:12], needle[middle - 6 : middle + 6], needle[-12:]))

    def found(self, house: House) -> dict[str, int]:
        """How many pieces of each kind are in some file, raw or decrypted."""
        content = everything(house)
        counts = {kind: sum(piece in content for piece in pieces) for kind, pieces in self.needles.items()}
        return {kind: count for kind, count in counts.items() if count}


def everything(house: House) -> bytes:
    keyring = house.deployment.holdings._keyring
    found: list[bytes] = []
    for path in sorted(p for p in house.root.rglob("*") if p.is_file()):
        found.append(path.read_bytes())
        if path.name in DATABASES:
            found += pages(path, keyring.secret(DATABASES[path.name]))
    return b"\x00".join(found)
