"""Cedar expressions over an unknown record, as the row filter that search can use. Pure; no cedarpy in here.

The operators are a closed set: ``&& || ! == != < <= > >=``, ``[...].contains(resource.x)``, ``resource has x``,
``resource.x`` as a condition and ``resource in Collection``. Anything else raises :class:`Untranslatable`; nothing is
approximated. The same rules run twice: over the policies when they are loaded (:func:`ensure_translatable`), and over
what partial evaluation leaves of them (:class:`Translator`). Source of the form: Cedar's JSON policy format.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from secure_embed.types import (
    And,
    AttributeValue,
    Compare,
    Equals,
    Expression,
    Has,
    Not,
    OneOf,
    Or,
    TruthValue,
)

__all__ = ["Translator", "Untranslatable", "ensure_translatable"]

Json = Mapping[str, Any]
Operator = Literal["<", "<=", ">", ">="]

depth_max = 100

_MIRRORED: Mapping[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_FALSE, _TRUE = TruthValue(False), TruthValue(True)
_ANYTHING = Has("anything")  # neither true nor false, so that a rehearsal looks at both sides of && and ||


class Untranslatable(Exception):
    """A policy asks of a record what a row filter cannot express."""


class Translator:
    """Translates what partial evaluation left of a policy, for the records of one collection."""

    def __init__(self, collection_name: str) -> None:
        self._collection = collection_name

    def policy(self, residual: Json) -> Expression:
        """One residual policy: scope and conditions, joined from the left as Cedar evaluates them."""
        expression = self._scope(residual)
        for condition in residual["conditions"]:
            body = self._condition(condition["body"], 0)
            expression = _and(expression, body if condition["kind"] == "when" else _not(body))
        return expression

    def _scope(self, residual: Json) -> Expression:
        scope = residual["resource"]
        match scope["op"]:
            case "All":
                return _TRUE
            case "in":
                return self._membership([scope["entity"]])
        raise Untranslatable

    def _condition(self, node: Json, depth: int) -> Expression:
        if depth > depth_max or len(node) != 1:
            raise Untranslatable
        ((operator, arguments),) = node.items()
        match operator:
            case "Value" if isinstance(arguments, bool):
                return TruthValue(arguments)
            case "&&":
                left = self._condition(arguments["left"], depth + 1)
                return left if left == _FALSE else _and(left, self._condition(arguments["right"], depth + 1))
            case "||":
                left = self._condition(arguments["left"], depth + 1)
                return left if left == _TRUE else _or(left, self._condition(arguments["right"], depth + 1))
            case "!":
                return _not(self._condition(arguments["arg"], depth + 1))
        return self._test(operator, arguments)

    def _test(self, operator: str, arguments: Any) -> Expression:
        if not isinstance(arguments, Mapping) or "left" not in arguments:
            raise Untranslatable
        if not _is_resource(arguments["left"]):
            return self._comparison(operator, arguments)
        match operator:
            case "has":
                return Has(arguments["attr"])
            case ".":
                return Equals(arguments["attr"], True)
            case "in":
                return self._membership(_entities(arguments["right"]))
        raise Untranslatable

    def _comparison(self, operator: str, arguments: Json) -> Expression:
        if arguments.keys() != {"left", "right"}:
            raise Untranslatable
        left, right = _attribute(arguments["left"]), _attribute(arguments["right"])
        if (left is None) == (right is None):  # none, or one attribute of the record beside another
            raise Untranslatable
        attribute = left or right or ""
        other = arguments["right"] if left is not None else arguments["left"]
        match operator:
            case "==":
                return Equals(attribute, self._scalar(other))
            case "!=":
                return Not(Equals(attribute, self._scalar(other)))
            case "<" | "<=" | ">" | ">=":
                value = self._scalar(other)
                if type(value) is not int:
                    raise Untranslatable
                return Compare(attribute, operator if left is not None else _MIRRORED[operator], value)
            case "contains" if right is not None:
                return OneOf(attribute, self._set(other))
        raise Untranslatable

    def _membership(self, entities: Sequence[Json]) -> Expression:
        if any(entity["type"] != "Collection" for entity in entities):
            raise Untranslatable
        return TruthValue(any(entity["id"] == self._collection for entity in entities))

    def _scalar(self, node: Json) -> AttributeValue:
        value = node.get("Value")
        if not isinstance(value, str | int):  # bool is an int
            raise Untranslatable
        return value

    def _set(self, node: Json) -> tuple[AttributeValue, ...]:
        """Sorted, since Cedar keeps no order in a set and equal decisions should look equal in the log."""
        members = node["Set"] if "Set" in node else [{"Value": value} for value in self._list(node)]
        return tuple(sorted(map(self._scalar, members), key=lambda value: (type(value).__name__, value)))

    def _list(self, node: Json) -> list[Any]:
        value = node.get("Value")
        if not isinstance(value, list):
            raise Untranslatable
        return value


class _Rehearsal(Translator):
    """Translates a policy as it was written: what does not name the record stands for any value."""

    def _condition(self, node: Json, depth: int) -> Expression:
        return super()._condition(node, depth) if _names_resource(node) else _ANYTHING

    def _scalar(self, node: Json) -> AttributeValue:
        if _names_resource(node):
            raise Untranslatable
        return 0

    def _set(self, node: Json) -> tuple[AttributeValue, ...]:
        return (self._scalar(node),)

    def _membership(self, entities: Sequence[Json]) -> Expression:
        super()._membership(entities)
        return _ANYTHING


def ensure_translatable(policy: Json) -> None:
    """Raise :class:`Untranslatable` when no row filter can follow ``policy`` (Cedar's JSON form of one policy)."""
    _Rehearsal("").policy(policy)


# `x && false` is false only if x cannot error. It cannot: policies are validated against the schema before they are
# used, which leaves only arithmetic to err (not translated), and records that contradict the schema are refused.
# Without this step, what Cedar leaves of `resource has a && false && <error>` could not be followed.


def _and(left: Expression, right: Expression) -> Expression:
    if _FALSE in (left, right):
        return _FALSE
    if _TRUE in (left, right):
        return right if left == _TRUE else left
    return And(left, right)


def _or(left: Expression, right: Expression) -> Expression:
    if _TRUE in (left, right):
        return _TRUE
    if _FALSE in (left, right):
        return right if left == _FALSE else left
    return Or(left, right)


def _not(operand: Expression) -> Expression:
    return TruthValue(not operand.value) if isinstance(operand, TruthValue) else Not(operand)


def _is_resource(node: Json) -> bool:
    return node in ({"Var": "resource"}, {"unknown": [{"Value": "resource"}]})


def _attribute(node: Json) -> str | None:
    """The attribute's name when ``node`` is ``resource.<name>``."""
    access = node.get(".")
    return access["attr"] if access is not None and _is_resource(access["left"]) else None


def _names_resource(node: Json) -> bool:
    return any(_is_resource(part) for part in _parts(node))


def _parts(node: Any) -> Iterator[Json]:
    """``node`` and every object below it; the parser has bounded the depth."""
    if isinstance(node, Mapping):
        yield node
        for below in node.values():
            yield from _parts(below)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for below in node:
            yield from _parts(below)


def _entities(node: Json) -> list[Json]:
    """The entities of ``{"Value": {"__entity": ...}}`` or of a set of those."""
    members = node.get("Set", [node])
    try:
        return [member["Value"]["__entity"] for member in members]
    except (KeyError, TypeError):
        raise Untranslatable from None
