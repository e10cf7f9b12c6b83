"""Which effort: the cheapest of a grid that meets the target, searched one dimension after another.

Cost is counted, not timed: what is opened, and what is looked at. So the choice does not hang on how busy a machine is.
First the fewest lists that meet the target with generous candidates and margin; then, for these and for the next
larger number, the fewest candidates, and with those the smallest margin; of the two the cheaper one.
"""

from collections.abc import Callable, Iterator

from secure_embed.collection.tuned import Measured
from secure_embed.index import Effort, every_list

__all__ = ["choose", "cost", "grid_of", "steps_max"]

candidates_grid = (50, 100, 200, 400, 800)
margin_grid = (1.5, 2.0, 2.5, 3.0, 4.0)
lists_min = 4
# An opening costs about 3 us (fetch, unwrap, open, score), a code some 12 ns with its share of a list: docs/decisions/0026.
codes_an_opening = 250


def cost(measured: Measured) -> float:
    """In openings."""
    return measured.openings + measured.codes / codes_an_opening


def grid_of(lists: int) -> list[int]:
    """Numbers of lists to try, ascending; the last one is all of them."""
    tried, grid = lists_min, []
    while tried < lists:
        grid.append(tried)
        tried *= 2
    return [*grid, every_list]


def steps_max(lists: int) -> int:
    """The most efforts that :func:`choose` measures."""
    return 1 + len(grid_of(lists)) + 2 * (len(candidates_grid) + len(margin_grid))


def choose(measure: Callable[[Effort], Measured], *, lists: int, k: int) -> Measured | None:
    """None: not even the most generous effort meets the target."""
    most, widest = candidates_grid[-1], margin_grid[-1]
    if not measure(Effort(candidates=most, lists=every_list, margin=widest)).meets:
        return None
    grid = grid_of(lists)
    fewest = next(n for n, few in enumerate(grid) if measure(Effort(candidates=most, lists=few, margin=widest)).meets)
    found = [_narrowed(measure, few, k) for few in grid[fewest : fewest + 2]]
    return min((each for each in found if each is not None), key=cost)


def _narrowed(measure: Callable[[Effort], Measured], lists: int, k: int) -> Measured | None:
    """The fewest candidates, then the smallest margin. None: more lists met it worse, which chance can do."""
    widest = margin_grid[-1]
    by_candidates = (
        measure(Effort(candidates=many, lists=lists, margin=widest)) for many in candidates_grid if many >= k
    )
    enough = _first(by_candidates)
    if enough is None:
        return None
    many = enough.effort.candidates
    return _first(measure(Effort(candidates=many, lists=lists, margin=margin)) for margin in margin_grid)


def _first(measured: Iterator[Measured]) -> Measured | None:
    return next((each for each in measured if each.meets), None)
