"""What a query looks for in the codes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secure_embed.deadline import Deadline
from secure_embed.index.codebook import Codebook
from secure_embed.index.protocol import lists_untuned

__all__ = ["Sought", "enough_for"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sought:
    """What one query looks for."""

    query: npt.NDArray[np.float32]  # (1, d) float32, C-contiguous
    wanted: int  # so many, or all that may answer
    enough: float  # lists are looked into until they hold so many that may answer
    bitmap: npt.NDArray[np.uint8] | None  # the slots that may answer; None: all
    spread: npt.NDArray[np.int64]  # (lists,) how many of them each list holds
    deadline: Deadline


def enough_for(codebook: Codebook, wanted: int, lists: int | None) -> float:
    """``lists`` lists' worth, ``wanted`` at least. By the records at the training: what is looked at must not depend on
    records that a caller may not see."""
    if lists is None:
        lists = lists_untuned(codebook.lists)
    return max(wanted, lists * max(1.0, codebook.trained_on / codebook.lists))
