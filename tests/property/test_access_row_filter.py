"""The row filter and the full evaluation of every policy agree, record by record.

Partial evaluation is experimental in Cedar, so its result is not believed: for random policies, principals, purposes
and records (attributes missing at random) the filter, read by a small interpreter that follows the words of
``types.py`` and shares no code with the index, must say what full evaluation with the schema says.
"""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secure_embed.access import Authorizer
from secure_embed.types import (
    Action,
    And,
    Attributes,
    Compare,
    Equals,
    Expression,
    Has,
    Not,
    OneOf,
    Or,
    Permit,
    Principal,
    RowFilter,
    TruthValue,
)

POLICIES = Path(__file__).parents[2] / "policies"
RECORD_ACTIONS = (Action.QUERY, Action.RECORD_READ, Action.RECORD_ERASE, Action.VECTORS_EXPORT)
COLLECTIONS = ("clinical-notes", "complaints", "other")
OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Missing(Exception):
    """A comparison met an attribute that the record lacks."""


def value(record: Attributes, name: str) -> str | int | bool:
    if name not in record:
        raise Missing
    return record[name]


def same(left: str | int | bool, right: str | int | bool) -> bool:
    return type(left) is type(right) and left == right


def holds(expression: Expression, record: Attributes) -> bool:
    match expression:
        case TruthValue():
            return expression.value
        case Has():
            return expression.attribute in record
        case Equals():
            return same(value(record, expression.attribute), expression.value)
        case OneOf():
            found = value(record, expression.attribute)
            return any(same(found, member) for member in expression.values)
        case Compare():
            found = value(record, expression.attribute)
            assert isinstance(found, int)
            return OPERATORS[expression.operator](found, expression.value)
        case Not():
            return not holds(expression.operand, record)
        case And():
            return holds(expression.left, record) and holds(expression.right, record)
        case Or():
            return holds(expression.left, record) or holds(expression.right, record)
    assert_never(expression)


def reaches(rows: RowFilter, record: Attributes) -> bool:
    def counts(expression: Expression, *, on_error: bool) -> bool:
        try:
            return holds(expression, record)
        except Missing:
            return on_error

    return any(counts(p, on_error=False) for p in rows.permits) and not any(
        counts(f, on_error=True) for f in rows.forbids
    )


# --- who, what and which records ----------------------------------------------------------------------------------

departments = st.sampled_from(["cardiology", "oncology", "complaints", "quality", "privacy", "", "Ünï"])
longs = st.one_of(st.integers(-1, 4), st.sampled_from([-(2**63), 2**63 - 1]))
purposes = st.sampled_from(["care", "complaint-handling", "quality", "erasure", "research"])
countries = st.sampled_from(["de", "fr", "care", ""])

records = st.lists(
    st.fixed_dictionaries({}, optional={"department": departments, "sensitivity": longs, "country": countries}),
    min_size=1,
    max_size=12,
)
principals = st.builds(
    lambda scopes, held, attributes: Principal(
        issuer="https://login.example.org",
        subject="s",
        client_id="app",
        scopes=scopes,
        token_sha256="0" * 64,
        expires_unix=0,
        attributes=attributes,
        purposes=held,
    ),
    st.frozensets(st.sampled_from(["query", "records:erase", "vectors:export"])),
    st.frozensets(purposes),
    st.fixed_dictionaries({}, optional={"department": departments, "clearance": longs}),
)
asked = st.fixed_dictionaries(
    {
        "principal": principals,
        "action": st.sampled_from(RECORD_ACTIONS),
        "collection_name": st.sampled_from(COLLECTIONS),
        "purpose": st.none() | purposes,
    }
)


def check(authorizer: Authorizer, asked: dict[str, object], records: list[Attributes]) -> int:
    """Returns how many of the records are permitted."""
    decision = authorizer.authorize(**asked)  # type: ignore[arg-type]
    filtered = [isinstance(decision, Permit) and reaches(decision.rows, record) for record in records]
    assert filtered == authorizer.recheck(**asked, attributes=records)  # type: ignore[arg-type]
    return sum(filtered)


@pytest.fixture(scope="module")
def shipped() -> Authorizer:
    return Authorizer(POLICIES)


@settings(max_examples=1_000, deadline=None)
@given(asked=asked, records=records)
def test_filter_and_full_evaluation_agree_on_the_shipped_policies(
    shipped: Authorizer, asked: dict[str, object], records: list[Attributes]
) -> None:
    check(shipped, asked, records)


def test_agreement_is_about_permits_too(shipped: Authorizer) -> None:
    """The property above would hold of policies that refuse everything; these do not."""
    clinician = Principal(
        issuer="i",
        subject="s",
        client_id="c",
        scopes=frozenset({"query"}),
        token_sha256="0" * 64,
        expires_unix=0,
        attributes={"department": "cardiology", "clearance": 2},
        purposes=frozenset({"care"}),
    )
    every = [{"department": d, "sensitivity": s} for d in ("cardiology", "oncology") for s in range(4)]
    said: dict[str, object] = {
        "principal": clinician,
        "action": Action.QUERY,
        "collection_name": "clinical-notes",
        "purpose": "care",
    }
    assert check(shipped, said, list(every)) == 5


# --- random policies ----------------------------------------------------------------------------------------------

atoms = st.sampled_from(
    [
        "true",
        "false",
        "resource has country",
        'resource in Collection::"complaints"',
        '(resource in [Collection::"clinical-notes", Collection::"other"])',
        '(resource has country && resource.country == "de")',
        '(resource has country && "fr" != resource.country)',
        '(resource has country && ["de", "care"].contains(resource.country))',
        "(resource has country && principal.purposes.contains(resource.country))",
        "(resource has sensitivity && resource.sensitivity > 1)",
        "(resource has sensitivity && 2 >= resource.sensitivity)",
        "(resource has sensitivity && principal has clearance && resource.sensitivity <= principal.clearance)",
        "(resource has department && principal has department && resource.department == principal.department)",
        '(!(resource has department) || (resource has department && resource.department != "oncology"))',
        '(context has purpose && context.purpose == "care")',
        'principal.scopes.contains("query")',
    ]
)
conditions = st.recursive(
    atoms,
    lambda below: st.one_of(
        st.tuples(below, below).map(lambda pair: f"({pair[0]} && {pair[1]})"),
        st.tuples(below, below).map(lambda pair: f"({pair[0]} || {pair[1]})"),
        below.map(lambda operand: f"!({operand})"),
    ),
    max_leaves=6,
)
effects = st.sampled_from(["permit", "permit", "forbid"])
scopes = st.sampled_from(["resource", 'resource in Collection::"complaints"'])
policy_sets = st.lists(st.tuples(effects, scopes, conditions, conditions), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policies=policy_sets, questions=st.lists(st.tuples(asked, records), min_size=1, max_size=3))
def test_filter_and_full_evaluation_agree_on_any_policy_that_loads(
    tmp_path: Path,
    policies: list[tuple[str, str, str, str]],
    questions: list[tuple[dict[str, object], list[Attributes]]],
) -> None:
    (tmp_path / "schema.cedarschema").write_bytes((POLICIES / "schema.cedarschema").read_bytes())
    (tmp_path / "random.cedar").write_text(
        "\n".join(
            f'@id("p{n}") @owner("o") @rationale("r") {effect}(principal, action, {scope}) '
            f"when {{ {when} }} unless {{ {unless} }};"
            for n, (effect, scope, when, unless) in enumerate(policies)
        )
    )
    authorizer = Authorizer(tmp_path)
    for said, found in questions:
        check(authorizer, said, found)
