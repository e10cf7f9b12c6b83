"""Hashes over sets of rows: one for each block of rows, one for each table, one for the file. No SQL in here.

An AEAD binds a value to its place; it does not say that a row is missing, that a number was changed, or that a row is of
an earlier moment. These hashes do. HMAC-SHA-256 (RFC 2104) throughout; formats: docs/formats.md, "Sealed sets of rows".
"""

import hmac
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from secure_embed.keys.locked import Held

__all__ = ["Leaf", "Owner", "RowMacs", "RowTree", "Value", "mac_bytes"]

mac_bytes = 32

Value = int | bytes | str | None

_u32 = struct.Struct(">I")
_i64 = struct.Struct(">q")
_int_value = struct.Struct(">Bq")
_sized = struct.Struct(">BI")
_NULL, _INT, _BLOB, _TEXT = range(4)


class Owner(NamedTuple):
    """Whose rows of a table: a collection's, or 0 where they belong to none."""

    table: str
    number: int


class Leaf(NamedTuple):
    owner: Owner
    block: int


class RowMacs:
    """The three kinds of hashes of one file. ``file`` is part of each, so nothing moves between files."""

    def __init__(self, file: str, key: Held) -> None:
        self._file = file
        self._key = key

    def leaf(self, leaf: Leaf, rows: Iterable[Sequence[Value]]) -> bytes:
        """``rows``: all columns of each row of the block, in the order of their key."""
        parts: list[bytes | bytearray] = [
            self._named(b"secure_embed/rows/leaf/v1", leaf.owner),
            _i64.pack(leaf.block),
        ]
        for row in rows:
            parts.append(_u32.pack(len(row)))
            for value in row:
                _encode(value, parts)
        return self._mac(parts)

    def node(self, owner: Owner, blocks: "array[int]", macs: bytes | bytearray) -> bytes:
        numbers = array("q", blocks)
        if sys.byteorder == "little":
            numbers.byteswap()
        named = self._named(b"secure_embed/rows/table/v1", owner)
        return self._mac([named, _u32.pack(len(numbers)), numbers.tobytes(), macs])

    def top(self, generation: int, nodes: Iterable[tuple[Owner, bytes]]) -> bytes:
        parts = [b"secure_embed/rows/file/v1", _text(self._file), _i64.pack(generation)]
        for owner, mac in nodes:
            parts += [_text(owner.table), _i64.pack(owner.number), mac]
        return self._mac(parts)

    def _named(self, kind: bytes, owner: Owner) -> bytes:
        return kind + _text(self._file) + _text(owner.table) + _i64.pack(owner.number)

    def _mac(self, parts: Iterable[bytes | bytearray]) -> bytes:
        return hmac.digest(self._key.copy(), b"".join(parts), "sha256")


def _text(value: str) -> bytes:
    raw = value.encode()
    return _u32.pack(len(raw)) + raw


def _encode(value: Value, parts: list[bytes | bytearray]) -> None:
    if type(value) is int:
        parts.append(_int_value.pack(_INT, value))
    elif type(value) is bytes:
        parts.append(_sized.pack(_BLOB, len(value)))
        parts.append(value)
    elif value is None:
        parts.append(bytes([_NULL]))
    else:
        raw = str(value).encode()
        parts.append(_sized.pack(_TEXT, len(raw)))
        parts.append(raw)


class _Node:
    """The leaves of one owner: their blocks, ascending, and their hashes in a row. Never changed once made."""

    __slots__ = ("blocks", "mac", "macs")

    def __init__(self, blocks: "array[int]", macs: bytearray, mac: bytes) -> None:
        self.blocks = blocks
        self.macs = macs
        self.mac = mac

    def find(self, block: int) -> bytes | None:
        at = bisect_left(self.blocks, block)
        if at == len(self.blocks) or self.blocks[at] != block:
            return None
        return bytes(self.macs[mac_bytes * at : mac_bytes * (at + 1)])


class RowTree:
    """All hashes of a file at one moment. A change makes another tree, which counts when it is committed."""

    def __init__(self, nodes: Mapping[Owner, _Node]) -> None:
        self._nodes = nodes

    @classmethod
    def of(cls, macs: RowMacs, leaves: Iterable[tuple[Leaf, bytes]]) -> "RowTree":
        return cls({}).replacing(macs, dict(leaves))

    def find(self, leaf: Leaf) -> bytes | None:
        node = self._nodes.get(leaf.owner)
        return None if node is None else node.find(leaf.block)

    def blocks(self, owner: Owner) -> Sequence[int]:
        node = self._nodes.get(owner)
        return () if node is None else node.blocks

    def owners(self, table: str) -> list[Owner]:
        return [owner for owner in self._nodes if owner.table == table]

    def replacing(self, macs: RowMacs, changes: Mapping[Leaf, bytes | None]) -> "RowTree":
        """None: the block has no row any more."""
        by_owner: dict[Owner, list[tuple[int, bytes | None]]] = {}
        for (owner, block), mac in changes.items():
            by_owner.setdefault(owner, []).append((block, mac))
        nodes = dict(self._nodes)
        for owner, changed in by_owner.items():
            nodes.pop(owner, None)
            if (node := _changed(macs, owner, self._nodes.get(owner), sorted(changed))) is not None:
                nodes[owner] = node
        return RowTree(nodes)

    def top(self, macs: RowMacs, generation: int) -> bytes:
        return macs.top(generation, [(owner, self._nodes[owner].mac) for owner in sorted(self._nodes)])


def _changed(
    macs: RowMacs, owner: Owner, old: _Node | None, changes: Iterable[tuple[int, bytes | None]]
) -> _Node | None:
    blocks = array("q") if old is None else array("q", old.blocks)
    joined = bytearray() if old is None else bytearray(old.macs)
    for block, mac in changes:
        at = len(blocks) if not blocks or block > blocks[-1] else bisect_left(blocks, block)
        here = at < len(blocks) and blocks[at] == block
        place = slice(mac_bytes * at, mac_bytes * (at + here))
        joined[place] = mac or b""
        if mac is None and here:
            del blocks[at]
        elif mac is not None and not here:
            blocks.insert(at, block)
    return _Node(blocks, joined, macs.node(owner, blocks, joined)) if blocks else None
