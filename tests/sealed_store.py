"""What lies in a record store's files, read without the store: pages, log frames and segments, and a search in them.

SQLCipher 4: pages of 4,096 bytes, AES-256-CBC, in the last 80 bytes of a page its IV and HMAC; raw key. So a test sees
free pages, unused space between cells and the log, where no SELECT looks.
"""

import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_embed.store import RequestKey, SealedCollection, SealedRow, SqlcipherRecordStore
from secure_embed.types import Action, Field, Position, Ticket

page_bytes = 4_096
usable_bytes = page_bytes - 80
wal_header_bytes, frame_header_bytes = 32, 24
vector_bytes = 801
needle_bytes = 8


def decrypted(key: bytes, page: bytes, *, first: bool) -> bytes:
    start = 16 if first else 0  # the file begins with its salt, in the clear
    iv = page[usable_bytes : usable_bytes + 16]
    opening = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return opening.update(page[start:usable_bytes]) + opening.finalize()


def pages(path: Path, key: bytes) -> Iterator[bytes]:
    raw = path.read_bytes()
    for at in range(0, len(raw), page_bytes):
        yield decrypted(key, raw[at : at + page_bytes], first=at == 0)
    log = path.with_name(f"{path.name}-wal")
    raw = log.read_bytes() if log.exists() else b""
    for at in range(wal_header_bytes, len(raw), frame_header_bytes + page_bytes):
        (number,) = struct.unpack_from(">I", raw, at)
        yield decrypted(key, raw[at + frame_header_bytes :][:page_bytes], first=number == 1)


def segments(path: Path) -> list[Path]:
    return sorted(file for file in path.with_name("segments").rglob("*") if file.is_file())


def everything(path: Path, key: bytes) -> bytes:
    """All pages and frames in plaintext, then all segments."""
    return b"".join([*pages(path, key), *(file.read_bytes() for file in segments(path))])


def found(content: bytes, needles: Sequence[bytes]) -> int:
    """How many of the needles are there with their first or last eight bytes, at any offset: one may lie on two pages.
    Random ones meet by chance never."""
    ends = [(needle[:needle_bytes], needle[-needle_bytes:]) for needle in needles]
    sides = np.array([[int.from_bytes(end, "little") for end in both] for both in ends], np.uint64).reshape(-1, 2)
    wanted = np.unique(sides)
    assert len(np.unique(sides[:, 0])) == len(needles)
    hits = np.zeros(len(wanted), np.bool_)
    for shift in range(needle_bytes):
        words = np.frombuffer(content, "<u8", count=(len(content) - shift) // 8, offset=shift)
        at = np.minimum(np.searchsorted(wanted, words), len(wanted) - 1)
        hits[at[wanted[at] == words]] = True
    return int(hits[np.searchsorted(wanted, sides)].any(axis=1).sum())


def batch(first: int, count: int, text_bytes: int = 533) -> list[SealedRow]:
    sizes = {Field.VECTOR: vector_bytes, Field.TEXT: text_bytes, Field.META: 333}
    return [
        SealedRow(
            position=Position(first + i),
            id_tag=os.urandom(32),
            fields={field: b"\x01" + os.urandom(size - 1) for field, size in sizes.items()},
        )
        for i in range(count)
    ]


def marks(rows: Sequence[SealedRow], fields: Sequence[Field] = tuple(Field)) -> list[bytes]:
    """Bytes of each row that lie on one page: the id's tag, and of each value its beginning and its end."""
    values = [row.fields[field] for row in rows for field in fields]
    return [row.id_tag for row in rows] + [value[:32] for value in values] + [value[-9:] for value in values]


def erase_ticket() -> Ticket:
    return Ticket(
        intent_index=0, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 3_600
    )


def new_collection() -> SealedCollection:
    return SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=os.urandom(64))


def filled(path: Path, key: bytes, rows: list[SealedRow], request: RequestKey | None = None) -> UUID:
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    sealed = new_collection()
    store.create_collection(sealed)
    store.append(sealed.uuid, rows, request=request)
    store.close()
    return sealed.uuid
