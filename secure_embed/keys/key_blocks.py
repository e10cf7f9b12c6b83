"""Record keys and subject tags in their blocks: written, read, found and overwritten. Runs inside the driver's transactions.

A shredded key's place is zeros, marked; no position is used twice, so it stays so until its collection is dropped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from sqlcipher3.dbapi2 import Connection

from secure_embed.errors import IntegrityFailure
from secure_embed.keys.blocks import block_positions, by_block
from secure_embed.keys.database import SealedDatabase
from secure_embed.keys.key_tables import LIVE, SHREDDED, record_keys, subjects
from secure_embed.keys.protocol import KeyBatch, KeyBlock, WrappedKey
from secure_embed.keys.sealed_table import place, place_of
from secure_embed.keys.wrapping import wrapped_bytes
from secure_embed.types import Position

__all__ = ["all_live", "end", "of_subject", "put", "read", "replace", "rewrap", "shred", "tags"]

tag_bytes = 32
rewrap_blocks = 32  # 8,192 keys at a time
no_key, no_tag = bytes(wrapped_bytes), bytes(tag_bytes)


def put(run: Connection, number: int, keys: Sequence[WrappedKey]) -> None:
    """At positions that never had one."""
    by_position = {key.position: key for key in keys}
    kept, named = {}, {}
    for block, slots in by_block(sorted(by_position)):
        ((state, wrapped),) = record_keys.some(run, number, [block]).values()
        some = [by_position[Position(block_positions * block + slot)] for slot in slots]
        for slot, key in zip(slots, some, strict=True):
            state[slot] = LIVE
            _write(wrapped, slot, wrapped_bytes, key.wrapped)
        kept[block] = (state, wrapped)
        if any(key.subject_tag is not None for key in some):
            ((of_block,),) = subjects.some(run, number, [block]).values()
            for slot, key in zip(slots, some, strict=True):
                _write(of_block, slot, tag_bytes, no_tag if key.subject_tag is None else key.subject_tag)
            named[block] = (of_block,)
    record_keys.put(run, number, kept)
    subjects.put(run, number, named)


def _write(content: bytearray, slot: int, size: int, value: bytes) -> None:
    if len(value) != size:
        raise IntegrityFailure("a wrapped key or a tag has another length", code="key_store_invalid")
    content[size * slot : size * (slot + 1)] = value


def read(database: SealedDatabase, number: int, version: int) -> list[KeyBlock]:
    return [
        KeyBlock(
            first=Position(block_positions * block),
            version=version,
            present=np.frombuffer(state, np.uint8) == LIVE,
            wrapped=np.frombuffer(wrapped, np.uint8).reshape(block_positions, wrapped_bytes),
        )
        for block, (state, wrapped) in record_keys.all(database, number)
    ]


def tags(database: SealedDatabase, number: int) -> dict[Position, bytes]:
    """Of the records that name a subject."""
    return {
        Position(block_positions * block + slot): tag
        for block, (of_block,) in subjects.all(database, number)
        for slot in range(block_positions)
        if (tag := of_block[tag_bytes * slot : tag_bytes * (slot + 1)]) != no_tag
    }


def of_subject(database: SealedDatabase, number: int, tag: bytes) -> tuple[Position, ...]:
    found: list[int] = []
    for block, (of_block,) in subjects.all(database, number):
        if tag in of_block:
            rows = np.frombuffer(of_block, np.uint8).reshape(block_positions, tag_bytes)
            found += (block_positions * block + np.flatnonzero((rows == np.frombuffer(tag, np.uint8)).all(1))).tolist()
    return tuple(Position(position) for position in found)


def shred(run: Connection, number: int, at: Iterable[int]) -> list[Position]:
    """Those that had a key, ascending."""
    gone: list[Position] = []
    for block, slots in by_block(sorted(set(at))):
        ((state, wrapped),) = record_keys.some(run, number, [block]).values()
        ((of_block,),) = subjects.some(run, number, [block]).values()
        live, named = [slot for slot in slots if state[slot] == LIVE], any(of_block)
        for slot in live:
            state[slot] = SHREDDED
            _write(wrapped, slot, wrapped_bytes, no_key)
            _write(of_block, slot, tag_bytes, no_tag)
        if live:
            record_keys.put(run, number, {block: (state, wrapped)})
        if live and named:
            subjects.put(run, number, {block: (of_block,)})
        gone += [Position(block_positions * block + slot) for slot in live]
    return gone


def all_live(run: Connection, number: int, at: Sequence[int]) -> bool:
    """Whether each has a key, and none is named twice."""
    if len(set(at)) < len(at):
        return False
    for block, slots in by_block(sorted(at)):
        ((state, _),) = record_keys.some(run, number, [block]).values()
        if any(state[slot] != LIVE for slot in slots):
            return False
    return True


def replace(run: Connection, number: int, keys: Mapping[Position, bytes]) -> None:
    """In place of keys that are there; a position that has none is passed over."""
    for block, slots in by_block(sorted(keys)):
        ((state, wrapped),) = record_keys.some(run, number, [block]).values()
        for slot in slots:
            if state[slot] == LIVE:
                _write(wrapped, slot, wrapped_bytes, keys[Position(block_positions * block + slot)])
        record_keys.put(run, number, {block: (state, wrapped)})


def rewrap(run: Connection, number: int, wrap: Callable[[KeyBatch], Sequence[bytes]]) -> None:
    """Every key anew, in the order of positions, a bounded number at a time."""
    sql = "SELECT place FROM record_keys WHERE place >= ? AND place < ? ORDER BY place LIMIT ?"
    start = 0
    while found := run.execute(sql, (place(number, start), place(number + 1, 0), rewrap_blocks)).fetchall():
        some = record_keys.some(run, number, [place_of(at)[1] for (at,) in found])
        live = [(block, slot) for block, (state, _) in some.items() for slot, its in enumerate(state) if its == LIVE]
        if live:
            positions = [Position(block_positions * block + slot) for block, slot in live]
            old = [bytes(some[block][1][wrapped_bytes * slot : wrapped_bytes * (slot + 1)]) for block, slot in live]
            fresh = wrap(KeyBatch(positions=positions, wrapped=old, offered=False))
            for (block, slot), wrapped in zip(live, fresh, strict=True):
                _write(some[block][1], slot, wrapped_bytes, wrapped)
        record_keys.put(run, number, some)
        start = max(some) + 1


def end(run: Connection, number: int) -> None:
    for table in (record_keys, subjects):
        table.end(run, number, -1)  # all of them
