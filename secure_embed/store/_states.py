"""Small sealed states, and the mark. A state is padded, so that the next one of about its size is written in its place.

A hold or an unfinished erasure says what it is about under a key that lives on. So a state that ends is overwritten, and
no row is deleted: pages that merge would leave copies of their neighbours behind. Its row is used again.
"""

import os
from uuid import UUID

from sqlcipher3.dbapi2 import Connection

from secure_embed.errors import NotFound
from secure_embed.keys import SealedDatabase
from secure_embed.store.protocol import StateKind

__all__ = ["drop_state", "marked", "put_mark", "put_state", "state", "states"]

padded_to_bytes = 512
length_bytes = 4
_unused_kind = b"\x00"


def put_state(run: Connection, kind: StateKind, uuid: UUID, sealed: bytes) -> None:
    content = len(sealed).to_bytes(length_bytes) + sealed
    padded = content + bytes(-len(content) % padded_to_bytes)
    name = _name(kind, uuid)
    found = run.execute("SELECT id, length(padded) FROM state WHERE name = ?", (name,)).fetchone()
    if found is not None and found[1] != len(padded):
        drop_state(run, kind, uuid)
        found = None
    if found is None:
        found = run.execute(
            "SELECT id FROM state WHERE name < ? AND length(padded) = ? LIMIT 1", (b"\x01", len(padded))
        ).fetchone()
    if found is None:
        run.execute("INSERT INTO state (name, padded) VALUES (?, ?)", (name, padded))
    else:
        run.execute("UPDATE state SET name = ?, padded = ? WHERE id = ?", (name, padded, found[0]))


def drop_state(run: Connection, kind: StateKind, uuid: UUID) -> None:
    run.execute(
        "UPDATE state SET name = ?, padded = zeroblob(length(padded)) WHERE name = ?",
        (_unused_kind + os.urandom(16), _name(kind, uuid)),
    )


def state(database: SealedDatabase, kind: StateKind, uuid: UUID) -> bytes:
    found = database.rows("SELECT padded FROM state WHERE name = ?", (_name(kind, uuid),))
    if not found:
        raise _absent(kind)
    return _content(found[0][0])


def states(database: SealedDatabase, kind: StateKind) -> list[tuple[UUID, bytes]]:
    bounds = (bytes([kind]), bytes([kind + 1]))
    found = database.rows("SELECT name, padded FROM state WHERE name >= ? AND name < ? ORDER BY name", bounds)
    return [(UUID(bytes=name[1:]), _content(padded)) for name, padded in found if isinstance(name, bytes)]


def put_mark(run: Connection, mark: bytes | None) -> None:
    if mark is not None:
        run.execute("INSERT OR REPLACE INTO mark VALUES (1, ?)", (mark,))


def marked(database: SealedDatabase) -> bytes | None:
    found = database.rows("SELECT sealed FROM mark")
    return found[0][0] if found and isinstance(found[0][0], bytes) else None


def _name(kind: StateKind, uuid: UUID) -> bytes:
    return bytes([kind]) + uuid.bytes


def _content(padded: object) -> bytes:
    assert isinstance(padded, bytes)
    length = int.from_bytes(padded[:length_bytes])
    return padded[length_bytes : length_bytes + length]


def _absent(kind: StateKind) -> NotFound:
    match kind:
        case StateKind.ERASURE:
            return NotFound("there is no such erasure", code="erasure_not_found")
        case StateKind.HOLD:
            return NotFound("there is no such hold", code="hold_not_found")
        case StateKind.TASK:
            return NotFound("there is no such task", code="task_not_found")
        case StateKind.TUNING:
            return NotFound("there is no such tuning", code="tuning_not_found")
