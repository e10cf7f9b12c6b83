"""Attribute values by slot, for filters. Strings lie here only as small numbers of keyed hashes, never as text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secure_embed.errors import InvalidRequest
from secure_embed.index._growing import GrowingArray
from secure_embed.types import Attributes, AttributeType, AttributeValue

__all__ = ["AttributeColumns", "Batch", "Column", "TagAttribute", "fits"]

TagAttribute = Callable[[str, str], bytes]  # (attribute's name, value) -> keyed hash, 32 bytes
Bits = npt.NDArray[np.bool_]
long_min, long_max = -(2**63), 2**63 - 1


def fits(kind: AttributeType, value: AttributeValue) -> bool:
    """Whether a value is of the type; a bool is no long, whatever Python says."""
    if kind == "string":
        return isinstance(value, str) and _is_unicode(value)
    if kind == "bool":
        return isinstance(value, bool)
    return isinstance(value, int) and not isinstance(value, bool) and long_min <= value <= long_max


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate: no stored value has one
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One attribute of the records about to be added; ``tags`` stands in for ``numbers`` where the type is string."""

    present: Bits  # (n,)
    numbers: npt.NDArray[np.int64]  # (n,)
    tags: Sequence[bytes | None] = field(repr=False)


class Column:
    """One attribute. Values are numbers: a long, a bool, or the small number that stands for a string's keyed hash."""

    def __init__(self, name: str, kind: AttributeType, tag_attribute: TagAttribute) -> None:
        self.kind = kind
        self._name = name
        self._tag_attribute = tag_attribute
        self._present = GrowingArray(np.bool_)
        self._values: GrowingArray[np.int64] | GrowingArray[np.int32] | GrowingArray[np.int8]
        match kind:
            case "long":
                self._values = GrowingArray(np.int64)
            case "string":
                self._values = GrowingArray(np.int32)
            case "bool":
                self._values = GrowingArray(np.int8)
        self._numbers: dict[bytes, int] = {}  # keyed hash -> its number
        self._tags: dict[int, bytes] = {}  # and back
        self._next_number = 0

    @property
    def present(self) -> Bits:
        return self._present.values

    @property
    def values(self) -> npt.NDArray[np.int64] | npt.NDArray[np.int32] | npt.NDArray[np.int8]:
        return self._values.values

    @property
    def memory_bytes(self) -> int:
        return self._present.memory_bytes + self._values.memory_bytes + 40 * len(self._numbers)

    def prepare(self, records: Sequence[Attributes]) -> Batch:
        """Check and hash, away from the lock. Raises ``InvalidRequest`` (``attributes_invalid``) for a wrong type."""
        given = [record.get(self._name) for record in records]
        if not all(value is None or fits(self.kind, value) for value in given):
            raise InvalidRequest("an attribute's value is not of its declared type", code="attributes_invalid")
        present = np.array([value is not None for value in given], np.bool_)
        if self.kind != "string":
            return Batch(present=present, numbers=np.array([int(value or 0) for value in given], np.int64), tags=())
        tag_of = {value: self._tag_attribute(self._name, value) for value in given if isinstance(value, str)}
        tags = [tag_of[value] if isinstance(value, str) else None for value in given]
        return Batch(present=present, numbers=np.zeros(len(given), np.int64), tags=tags)

    def append(self, batch: Batch) -> None:
        numbers = batch.numbers
        if self.kind == "string":
            numbers = np.array([-1 if tag is None else self._number(tag) for tag in batch.tags], np.int64)
        self._present.extend(batch.present)
        self._values.extend(numbers)

    def _number(self, tag: bytes) -> int:
        number = self._numbers.get(tag)
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
            self._numbers[tag], self._tags[number] = number, tag
        return number

    def equals(self, value: AttributeValue) -> Bits:
        """(slots,) where the attribute is there and has this value; a value of another type is equal to none."""
        if not fits(self.kind, value):
            return np.zeros(len(self.present), np.bool_)
        number: int | None
        if isinstance(value, str):
            number = self._numbers.get(self._tag_attribute(self._name, value))
            if number is None:
                return np.zeros(len(self.present), np.bool_)
        else:
            number = int(value)
        return np.logical_and(self.present, np.equal(self.values, number))

    def clear(self, slots: npt.NDArray[np.int64]) -> None:
        """Overwrite, and drop each keyed hash that no record has any more."""
        left = {int(number) for number in self.values[slots]} if self.kind == "string" else set()
        self.present[slots] = False
        self.values[slots] = -1 if self.kind == "string" else 0
        if left:
            used = self.values[np.isin(self.values, list(left))]
            for number in left.difference(map(int, np.unique(used)), {-1}):
                del self._numbers[self._tags.pop(number)]

    # --- saved state -----------------------------------------------------------------------------------------------

    def tags(self) -> list[bytes]:
        """Keyed hashes of the strings that are here, in the order of their numbers."""
        return [self._tags[number] for number in sorted(self._tags)]

    def compact(self, live: Bits) -> "tuple[Bits, npt.NDArray[np.generic]]":
        """Presence and values of the live slots, numbers counted in the order of :meth:`tags`; the caller wipes both."""
        values: npt.NDArray[np.generic] = self.values[live]
        if self.kind == "string":
            known = np.array(sorted(self._tags), np.int64)
            there = values != -1
            values[there] = np.searchsorted(known, values[there])
        return self.present[live], values

    def restore(self, slots: int, tags: Sequence[bytes], fill: Callable[[npt.NDArray[np.generic]], None]) -> bool:
        """Fill an empty column in the order of :meth:`compact`. False: this is no column; nothing may use it then."""
        present = self._present.grow(slots)
        bits = present.view(np.uint8)
        fill(bits)
        if (bits > 1).any():
            bits.fill(0)
            return False
        values = self._values.grow(slots)
        fill(values)
        self._numbers = {tag: number for number, tag in enumerate(tags)}
        self._tags = dict(enumerate(tags))
        self._next_number = len(tags)
        if len(self._numbers) != len(tags) or (values[~present] != (-1 if self.kind == "string" else 0)).any():
            return False
        if self.kind == "string":
            numbers = values[present]
            inside = not ((numbers < 0) | (numbers >= len(tags))).any()
            return inside and bool(np.bincount(numbers, minlength=len(tags)).all())
        return not tags and not (self.kind == "bool" and ((values < 0) | (values > 1)).any())

    def wipe(self) -> None:
        self._present.wipe()
        self._values.wipe()
        self._numbers.clear()
        self._tags.clear()


class AttributeColumns:
    """All declared attributes of one collection. Not locked: the shard's lock covers it."""

    def __init__(self, schema: Mapping[str, AttributeType], tag_attribute: TagAttribute) -> None:
        self._columns = {name: Column(name, kind, tag_attribute) for name, kind in schema.items()}

    def get(self, name: str) -> Column | None:
        """None: not declared, so no record has it."""
        return self._columns.get(name)

    def items(self) -> Sequence[tuple[str, Column]]:
        """In the order of their names."""
        return sorted(self._columns.items())

    @property
    def memory_bytes(self) -> int:
        return sum(column.memory_bytes for column in self._columns.values())

    def prepare(self, records: Sequence[Attributes]) -> Mapping[str, Batch]:
        if any(name not in self._columns for record in records for name in record):
            raise InvalidRequest("an attribute is not declared in the collection", code="attributes_invalid")
        return {name: column.prepare(records) for name, column in self._columns.items()}

    def append(self, batches: Mapping[str, Batch]) -> None:
        for name, batch in batches.items():
            self._columns[name].append(batch)

    def clear(self, slots: npt.NDArray[np.int64]) -> None:
        for column in self._columns.values():
            column.clear(slots)

    def wipe(self) -> None:
        for column in self._columns.values():
            column.wipe()
