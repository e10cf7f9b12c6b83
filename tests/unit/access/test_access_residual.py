"""The translator itself, on forms that the JSON of a residual may take and that today's engine rewrites before us."""

from typing import Any

import pytest

from secure_embed.access._residual import Translator, Untranslatable
from secure_embed.types import Compare, Equals, Has, Not, TruthValue

RECORD = {"unknown": [{"Value": "resource"}]}
SENSITIVITY = {".": {"left": RECORD, "attr": "sensitivity"}}


def policy(body: Any, *, kind: str = "when") -> dict[str, Any]:
    return {"resource": {"op": "All"}, "conditions": [{"kind": kind, "body": body}]}


def compared(operator: str, left: Any, right: Any) -> dict[str, Any]:
    return {operator: {"left": left, "right": right}}


@pytest.mark.parametrize(
    ("operator", "mirrored"), [("<", ">"), ("<=", ">="), (">", "<"), (">=", "<="), ("==", "=="), ("!=", "!=")]
)
def test_a_constant_on_the_left_mirrors_the_comparison(operator: str, mirrored: str) -> None:
    translate = Translator("c").policy
    constant = {"Value": 3}
    assert translate(policy(compared(operator, constant, SENSITIVITY))) == translate(
        policy(compared(mirrored, SENSITIVITY, constant))
    )
    if operator in ("<", "<=", ">", ">="):
        assert translate(policy(compared(operator, SENSITIVITY, constant))) == Compare("sensitivity", operator, 3)  # type: ignore[arg-type]


def test_unless_negates() -> None:
    body = {"has": {"left": RECORD, "attr": "country"}}
    assert Translator("c").policy(policy(body)) == Has("country")
    assert Translator("c").policy(policy(body, kind="unless")) == Not(Has("country"))


def test_an_attribute_as_a_condition_is_true_only_when_it_is_true() -> None:
    assert Translator("c").policy(policy(SENSITIVITY)) == Equals("sensitivity", True)


def test_the_scope_decides_for_the_collection_at_hand() -> None:
    scoped = policy({"Value": True}) | {"resource": {"op": "in", "entity": {"type": "Collection", "id": "c"}}}
    assert Translator("c").policy(scoped) == TruthValue(True)
    assert Translator("d").policy(scoped) == TruthValue(False)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Value": 1},
        {"Value": "true"},
        {"unknown": [{"Value": "resource"}]},
        {"Var": "principal"},
        compared("<", SENSITIVITY, {"Value": "3"}),
        compared("<", SENSITIVITY, {"Value": True}),
        compared("==", SENSITIVITY, {"Value": {"__entity": {"type": "Record", "id": "1"}}}),
        compared("==", SENSITIVITY, SENSITIVITY),
        compared("==", {"Value": 1}, {"Value": 1}),
        compared("contains", SENSITIVITY, {"Value": 1}),
        compared("contains", {"Value": 1}, SENSITIVITY),
        compared("containsAll", {"Set": []}, SENSITIVITY),
        compared("in", RECORD, {"Value": {"__entity": {"type": "Record", "id": "c"}}}),
        compared("in", RECORD, {"Value": "c"}),
        {"like": {"left": SENSITIVITY, "pattern": []}},
        {"is": {"left": RECORD, "entity_type": "Record"}},
        {"if-then-else": {"if": {"Value": True}, "then": {"Value": True}, "else": {"Value": True}}},
        {"decimal": [{"Value": "1.0"}]},
        {"error": []},
    ],
    ids=str,
)
def test_what_is_not_in_the_closed_set_is_refused(body: Any) -> None:
    with pytest.raises(Untranslatable):
        Translator("c").policy(policy(body))


def test_depth_is_bounded() -> None:
    body: Any = {"has": {"left": RECORD, "attr": "country"}}
    for _ in range(102):
        body = {"!": {"arg": body}}
    with pytest.raises(Untranslatable):
        Translator("c").policy(policy(body))
