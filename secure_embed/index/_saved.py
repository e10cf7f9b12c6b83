"""What a shard holds, as bytes and back: codes as FAISS has them, positions, attributes. Format: docs/formats.md.

Only what is there is written: a forgotten record's slot, position and values are left out, and slots count anew. Read
back, everything that native code will use as a number is checked first. Chunks are cut in ``_chunks``.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from secure_embed.errors import Conflict
from secure_embed.index._chunks import ChunkReader, Piece, refused
from secure_embed.index._codes import CodeLists
from secure_embed.index._columns import AttributeColumns
from secure_embed.index._slots import SlotMap
from secure_embed.index.codebook import Codebook
from secure_embed.types import AttributeType

__all__ = ["SavedHead", "pieces_of", "restore"]

magic = b"SE-SHARD"
form = 1
# magic, format, bits a dimension, attributes, bytes of a code, dimension, lists, codebook's mark, data version,
# records, highest position that was ever there; little end first
head = struct.Struct("<8sBBHIII32sQQq")
attribute = struct.Struct("<BHI")  # type, length of the name in bytes, keyed hashes
kinds: Mapping[AttributeType, int] = {"string": 1, "long": 2, "bool": 3}
tag_bytes = 32
records_max = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedHead:
    """The first chunk begins with it. One that exists fits the codebook that it was read for."""

    version: int  # of the data
    records: int
    highest: int  # position that was ever there
    attributes: int

    @classmethod
    def read(cls, reader: ChunkReader, codebook: Codebook, code_bytes: int) -> Self:
        """Raises ``Conflict`` (``codebook_version``) for codes of another codebook, ``IntegrityFailure``
        (``codes_unreadable``) for what is none."""
        (start, its_form, bits, attributes, code, dimension, lists, mark, version, records, highest) = head.unpack(
            reader.take(head.size)
        )
        if start != magic or its_form != form:
            raise refused("its header")
        if mark != codebook.mark():
            raise Conflict("the saved codes are of another codebook", code="codebook_version")
        if (bits, code, dimension, lists) != (codebook.bits, code_bytes, codebook.dimension, codebook.lists):
            raise refused("its codebook")
        if records > records_max or highest < -1 or version >= 2**63:
            raise refused("a number")
        return cls(version=version, records=records, highest=highest, attributes=attributes)


def pieces_of(
    *, codebook: Codebook, version: int, codes: CodeLists, slots: SlotMap, columns: AttributeColumns
) -> Iterator[Piece]:
    """Each piece is good until the next is asked for. The caller keeps changes out meanwhile."""
    live = slots.live
    named = [(name.encode(), column) for name, column in columns.items()]
    yield head.pack(
        magic,
        form,
        codebook.bits,
        len(named),
        codes.code_bytes,
        codebook.dimension,
        codebook.lists,
        codebook.mark(),
        version,
        slots.records,
        slots.highest,
    )
    for name, column in named:
        tags = column.tags()
        yield attribute.pack(kinds[column.kind], len(name), len(tags)) + name
        yield b"".join(tags)
    yield _bytes(np.array([len(ids) for ids, _ in codes.held()], "<u4"))
    anew = np.cumsum(live, dtype=np.uint32)  # a live slot's number among the live ones, counted from 1
    for ids, _ in codes.held():
        yield _bytes((anew[ids] - 1).astype("<u4"))
    yield _bytes(slots.positions[live].astype("<i8"))
    for _, column in named:
        for values in column.compact(live):
            yield _bytes(values)
            values.fill(0)
    for _, its_codes in codes.held():
        yield _bytes(its_codes)


def restore(
    reader: ChunkReader, known: SavedHead, *, codes: CodeLists, slots: SlotMap, columns: AttributeColumns
) -> None:
    """Fill the three, which are empty. Raises ``IntegrityFailure`` (``codes_unreadable``); they are of no use then."""
    declared = columns.items()
    if known.attributes != len(declared):
        raise refused("its attributes")
    tags = [_read_attribute(reader, name, column.kind) for name, column in declared]
    sizes = np.zeros(codes.lists, "<u4")
    reader.fill(sizes)
    if int(sizes.sum(dtype=np.uint64)) != known.records:
        raise refused("its lists")
    ids = np.zeros(known.records, "<u4")
    reader.fill(ids)
    if not _each_once(ids):
        raise refused("its slots")
    positions = np.zeros(known.records, "<i8")
    reader.fill(positions)
    ascending = not len(positions) or (positions[0] >= 0 and positions[-1] <= known.highest)
    if not ascending or (np.diff(positions) <= 0).any():
        raise refused("its positions")
    slots.restore(positions.astype(np.int64, copy=False), known.highest)
    for (_, column), its_tags in zip(declared, tags, strict=True):
        if not column.restore(known.records, its_tags, reader.fill):
            raise refused("an attribute's values")
    codes.restore(sizes.astype(np.int64), ids.astype(np.int64), reader.fill)
    reader.finish()


def _read_attribute(reader: ChunkReader, name: str, kind: AttributeType) -> list[bytes]:
    its_kind, length, count = attribute.unpack(reader.take(attribute.size))
    expected = name.encode()
    if its_kind != kinds[kind] or length != len(expected) or reader.take(length) != expected:
        raise refused("its attributes")
    return [reader.take(tag_bytes) for _ in range(count)]


def _each_once(ids: npt.NDArray[np.uint32]) -> bool:
    """Whether these are 0 .. n-1 in some order."""
    seen = np.zeros(len(ids), np.bool_)
    if len(ids) and int(ids.max()) >= len(ids):
        return False
    seen[ids] = True
    return bool(seen.all())


def _bytes(array: npt.NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
