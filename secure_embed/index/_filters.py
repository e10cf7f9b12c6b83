"""Row filters from policy and callers' own filters, evaluated over attribute columns, all slots at once.

The two differ in what a missing attribute does. In a row filter it is an error: a permit that errors does not hold, a
forbid that errors does. In a caller's own filter a comparison with it is false. Pure: no FAISS, no lock, no IO.

A row filter that cannot be evaluated at all (too deep, of an unknown form) errors on every record, so it fails closed.
"""

import operator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from secure_embed.errors import InvalidRequest
from secure_embed.index._columns import AttributeColumns, Column, fits
from secure_embed.types import And, Compare, Equals, Expression, Has, Not, OneOf, Or, RowFilter, TruthValue

__all__ = ["ensure_own", "holds_own", "permitted"]

Bits = npt.NDArray[np.bool_]

own_depth_max = 16
own_nodes_max = 64
own_values_max = 256  # of all OneOf together
policy_depth_max = 128
policy_nodes_max = 10_000

comparisons = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """By slot: where the expression is true, and where it is an error. Never both."""

    true: Bits
    error: Bits


def permitted(rows: RowFilter, columns: AttributeColumns, slots: int) -> Bits:
    """(slots,) bool: any permit holds and no forbid does."""
    allowed = np.zeros(slots, np.bool_)
    for permit in rows.permits:
        allowed |= _policy_outcome(permit, columns, slots).true
    for forbid in rows.forbids:
        outcome = _policy_outcome(forbid, columns, slots)
        allowed &= ~(outcome.true | outcome.error)
    return allowed


def holds_own(own: Expression, columns: AttributeColumns, slots: int) -> Bits:
    """(slots,) bool. ``own`` has passed :func:`ensure_own`."""
    return _evaluate(own, columns, slots, missing_is_error=False).true


def ensure_own(own: Expression, columns: AttributeColumns) -> None:
    """Raises ``InvalidRequest`` (``filter_invalid``): undeclared, of a wrong type, too deep or too large."""
    leaves = _leaves(own, own_depth_max, own_nodes_max)
    values = sum(len(leaf.values) for leaf in leaves or () if isinstance(leaf, OneOf))
    if leaves is None or values > own_values_max:
        raise InvalidRequest("the filter is too deep, too large or of an unknown form", code="filter_invalid")
    if not all(_is_declared(leaf, columns) for leaf in leaves):
        raise InvalidRequest(
            "the filter names an undeclared attribute or a value of a wrong type", code="filter_invalid"
        )


Leaf = TruthValue | Has | Equals | OneOf | Compare


def _leaves(expression: Expression, depth_max: int, nodes_max: int) -> list[Leaf] | None:
    """Walk without recursion, for the depth is the caller's choice. None: beyond a limit, or not an expression."""
    leaves: list[Leaf] = []
    waiting: list[tuple[Expression, int]] = [(expression, 1)]
    nodes = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if depth > depth_max or nodes > nodes_max:
            return None
        match node:
            case Not(operand):
                waiting.append((operand, depth + 1))
            case And(left, right) | Or(left, right):
                waiting += [(left, depth + 1), (right, depth + 1)]
            case TruthValue() | Has() | Equals() | OneOf() | Compare():
                leaves.append(node)
            case _:  # Python does not enforce the types
                return None  # type: ignore[unreachable]
    return leaves


def _is_declared(leaf: Leaf, columns: AttributeColumns) -> bool:
    if isinstance(leaf, TruthValue):
        return isinstance(leaf.value, bool)
    column = columns.get(leaf.attribute)
    if column is None:
        return False
    match leaf:
        case Has():
            return True
        case Equals(_, value):
            return fits(column.kind, value)
        case OneOf(_, values):
            return all(fits(column.kind, value) for value in values)
        case Compare(_, sign, value):
            return column.kind == "long" and sign in comparisons and fits("long", value)


def _policy_outcome(expression: Expression, columns: AttributeColumns, slots: int) -> Outcome:
    if _leaves(expression, policy_depth_max, policy_nodes_max) is None:
        return Outcome(np.zeros(slots, np.bool_), np.ones(slots, np.bool_))
    return _evaluate(expression, columns, slots, missing_is_error=True)


def _evaluate(expression: Expression, columns: AttributeColumns, slots: int, *, missing_is_error: bool) -> Outcome:
    def inner(node: Expression) -> Outcome:
        match node:
            case Not(operand):
                of = inner(operand)
                return Outcome(~(of.true | of.error), of.error)
            case And(left, right):  # an error on the left stands, and one on the right only where the left is true
                a, b = inner(left), inner(right)
                return Outcome(a.true & b.true, a.error | (a.true & b.error))
            case Or(left, right):  # an error on the left stands, and one on the right only where the left is false
                a, b = inner(left), inner(right)
                return Outcome(a.true | (~a.error & b.true), a.error | (~a.true & b.error))
            case _:
                leaf = _leaf(node, columns, slots)
                return leaf if missing_is_error else Outcome(leaf.true, np.zeros(slots, np.bool_))

    return inner(expression)


def _leaf(node: Leaf, columns: AttributeColumns, slots: int) -> Outcome:
    none, every = np.zeros(slots, np.bool_), np.ones(slots, np.bool_)
    if isinstance(node, TruthValue):
        return Outcome(every if node.value is True else none, none)
    column = columns.get(node.attribute)
    if column is None:  # not declared: missing everywhere
        return Outcome(none, none if isinstance(node, Has) else every)
    return _column_leaf(node, column, none, every)


def _column_leaf(node: Has | Equals | OneOf | Compare, column: Column, none: Bits, every: Bits) -> Outcome:
    missing = ~column.present
    match node:
        case Has():
            return Outcome(column.present.copy(), none)
        case Equals(_, value):
            return Outcome(column.equals(value), missing)
        case OneOf(_, values):
            return Outcome(reduce(operator.or_, map(column.equals, values), none), missing)
        case Compare(_, sign, value):
            if (
                column.kind != "long"
                or sign not in comparisons
                or isinstance(value, bool)
                or not isinstance(value, int)
            ):
                return Outcome(none, every)  # Cedar's type error
            return Outcome(column.present & comparisons[sign](column.values, value), missing)
