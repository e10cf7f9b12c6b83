"""Which records may answer, as bits over one shard's slots, and how many of them each list of codes holds.

Selections are kept until the next change, under a hash of the filter: no value of it lies here. One that was made before
a change still means what it meant: none that was forgotten since, and none that came since.

Not locked: the shard's lock covers it.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secure_embed.errors import Conflict
from secure_embed.index._columns import AttributeColumns
from secure_embed.index._filters import holds_own, permitted
from secure_embed.index._slots import SlotMap
from secure_embed.index.protocol import Selection
from secure_embed.types import Expression, Position, Positions, RowFilter

if TYPE_CHECKING:
    from secure_embed.index._codes import CodeLists

__all__ = ["Selected", "Selections"]

kept_max = 32  # a bit a slot and a number a list each

Bits = npt.NDArray[np.bool_]
Bitmap = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selected(Selection):
    """Slots mean nothing in another shard, not even in the next one of the same collection."""

    of: "Selections" = field(repr=False)
    slots: int  # that there were: a later record is not in it, whatever its bitmap says
    spread: Numbers  # (lists,) how many of it each list of codes holds
    edition: int


class Selections:
    """Of one shard."""

    def __init__(self, slots: SlotMap, columns: AttributeColumns, codes: "CodeLists") -> None:
        self._slots = slots
        self._columns = columns
        self._codes = codes
        self._edition = 0  # counts changes of what is here, whether or not they move the version
        self._kept: dict[bytes, Selected] = {}  # of this edition

    def changed(self) -> None:
        """What is here changes, or goes."""
        self._edition += 1
        self._kept.clear()

    def select(self, rows: RowFilter, own: Expression | None, *, version: int) -> Selected:
        name = _name_of(rows, own)
        selection = None if name is None else self._kept.get(name)
        if selection is None:
            selection = self._made(rows, own, version)
            if len(self._kept) >= kept_max:  # threads may meet here: at worst one is made twice
                self._kept.clear()
            if name is not None:
                self._kept[name] = selection
        return selection

    def named(self, at: Positions, *, version: int) -> Selected:
        """Those of the records at ``at`` that are here, whatever their attributes."""
        mask = np.zeros(self._slots.slots, np.bool_)
        mask[self._slots.find([Position(p) for p in at.tolist()])] = True
        return self._of(mask, int(mask.sum()), int(mask.sum()), version)

    def _made(self, rows: RowFilter, own: Expression | None, version: int) -> Selected:
        if own is None and rows.unrestricted:
            return self._of(None, self._slots.records, self._slots.records, version)
        mask = self._slots.live.copy()
        if not rows.unrestricted:
            mask &= permitted(rows, self._columns, self._slots.slots)
        allowed = int(mask.sum())
        if own is not None:
            mask &= holds_own(own, self._columns, self._slots.slots)
        return self._of(mask, int(mask.sum()), allowed, version)

    def _of(self, mask: Bits | None, count: int, allowed: int, version: int) -> Selected:
        return Selected(
            bitmap=None if mask is None else np.packbits(mask, bitorder="little"),
            count=count,
            permitted=allowed,
            version=version,
            of=self,
            slots=self._slots.slots,
            spread=self._codes.spread(mask),
            edition=self._edition,
        )

    def as_of_now(self, selection: Selection) -> tuple[Bitmap | None, Numbers]:
        """Bitmap and spread of what is left of it. Raises ``Conflict`` (``selection_stale``) for one of another shard."""
        if not isinstance(selection, Selected) or selection.of is not self:
            raise Conflict("the selection was made on another shard", code="selection_stale")
        if selection.edition == self._edition:
            return selection.bitmap, selection.spread
        mask = self._slots.live.copy()
        mask[selection.slots :] = False
        if selection.bitmap is not None:
            then = np.unpackbits(selection.bitmap, count=selection.slots, bitorder="little")
            mask[: selection.slots] &= then.view(np.bool_)
        return np.packbits(mask, bitorder="little"), self._codes.spread(mask)


def _name_of(rows: RowFilter, own: Expression | None) -> bytes | None:
    """Names a filter and keeps no value of it. By what is written, since to Python ``True`` equals 1. None: too deep."""
    if own is None and rows.unrestricted:
        return b""
    try:
        return sha256(repr((rows, own)).encode(errors="surrogatepass")).digest()
    except RecursionError:
        return None
