"""What one query asks of a shard, and what it has to look for in the codes so that its answer is good enough."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secure_embed.deadline import Deadline
from secure_embed.index.codebook import Codebook
from secure_embed.index.protocol import Effort, Selection, lists_untuned, margin_untuned
from secure_embed.types import Vectors

__all__ = ["Asked", "Sought", "exhaustive_max", "openings_max"]

Bitmap = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

# Up to here all are opened, and no estimate has a part in the answer.
exhaustive_max = 1_000
# What a narrow filter leaves is mostly far from the query, where 1-bit codes cannot tell records apart: all of so many are
# candidates, and opened until no other is likely to be among the best.
candidates_narrow = 2_000


def openings_max(effort: Effort, k: int) -> int:
    """The most vectors that a query opens: what its ticket has to cover."""
    return max(candidates_narrow, effort.candidates_filtered, k)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sought:
    """What one query looks for."""

    query: Vectors  # (1, d) float32, C-contiguous
    wanted: int  # so many, or all that may answer
    enough: float  # lists are looked into until they hold so many that may answer
    bitmap: Bitmap | None  # the slots that may answer; None: all
    spread: Numbers  # (lists,) how many of them each list holds
    deadline: Deadline


@dataclass(slots=True, kw_only=True, eq=False)
class Asked:
    """One query on one shard."""

    query: Vectors
    selection: Selection
    k: int
    effort: Effort
    deadline: Deadline

    @property
    def whole(self) -> bool:
        """Whether all of the selection are opened."""
        return self.selection.count <= max(exhaustive_max, self.k, self.effort.candidates)

    @property
    def narrow(self) -> bool:
        """Whether all of the selection are candidates."""
        return self.selection.bitmap is not None and self.selection.count <= candidates_narrow

    @property
    def margin_min(self) -> float:
        """An effort that was measured on all records, or on a tenth, is not known to do for a few."""
        return margin_untuned if self.narrow else 0.0

    def sought(self, bitmap: Bitmap | None, spread: Numbers, codebook: Codebook) -> Sought:
        effort = self.effort
        candidates = effort.candidates if self.selection.bitmap is None else effort.candidates_filtered
        wanted = min(max(self.k, candidates, candidates_narrow if self.narrow else 0), self.selection.count)
        return Sought(
            query=np.ascontiguousarray(self.query),
            wanted=wanted,
            enough=_enough(codebook, wanted, effort.lists),
            bitmap=bitmap,
            spread=spread,
            deadline=self.deadline,
        )


def _enough(codebook: Codebook, wanted: int, lists: int | None) -> float:
    """``lists`` lists' worth, ``wanted`` at least. By the records at the training: what is looked at must not depend on
    records that a caller may not see."""
    if lists is None:
        lists = lists_untuned(codebook.lists)
    return max(wanted, lists * max(1.0, codebook.trained_on / codebook.lists))
