"""Filters over columns give what a record-by-record reading of their documented meaning gives."""

import hmac
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed.errors import InvalidRequest
from secure_embed.index import Added, Codebook, Effort, RabitqShard
from secure_embed.types import (
    And,
    Attributes,
    AttributeType,
    Compare,
    Equals,
    Expression,
    Has,
    Not,
    OneOf,
    Or,
    RowFilter,
    TruthValue,
)

SCHEMA: dict[str, AttributeType] = {"dep": "string", "level": "long", "vip": "bool"}
LONGS = [-(2**63), -1, 0, 1, 7, 2**63 - 1]
STRINGS = ["", "a", "b", "é", "1", "true"]
ABSENT = object()

RECORDS: list[Attributes] = [
    {name: value for name, value in zip(("dep", "level", "vip"), values, strict=True) if value is not ABSENT}
    for values in product([ABSENT, "", "a", "é"], [ABSENT, *LONGS], [ABSENT, True, False])
]


class MissingOrWrongType(Exception):
    """What Cedar calls an evaluation error."""


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


def meaning(node: Expression, record: Attributes, *, strict: bool) -> bool:
    """The documented semantics, read literally; ``strict``: a missing attribute is an error, not false."""
    match node:
        case TruthValue(value):
            return value
        case Not(operand):
            return not meaning(operand, record, strict=strict)
        case And(left, right):
            return meaning(left, record, strict=strict) and meaning(right, record, strict=strict)
        case Or(left, right):
            return meaning(left, record, strict=strict) or meaning(right, record, strict=strict)
    return meaning_of_leaf(node, record, strict=strict)


def meaning_of_leaf(node: Expression, record: Attributes, *, strict: bool) -> bool:
    if isinstance(node, Has):
        return node.attribute in record
    if node.attribute in record:
        return comparison(node, record[node.attribute])
    if strict:
        raise MissingOrWrongType
    return False


def comparison(node: Expression, have: object) -> bool:
    match node:
        case Equals(_, value):
            return same(have, value)
        case OneOf(_, values):
            return any(same(have, value) for value in values)
        case Compare(_, sign, value):
            if type(have) is not int or type(value) is not int:
                raise MissingOrWrongType
            return {"<": have < value, "<=": have <= value, ">": have > value, ">=": have >= value}[sign]


def permits(rows: RowFilter, record: Attributes) -> bool:
    def of(node: Expression, on_error: bool) -> bool:
        try:
            return meaning(node, record, strict=True)
        except MissingOrWrongType:
            return on_error

    return any(of(p, False) for p in rows.permits) and not any(of(f, True) for f in rows.forbids)


def shard_of(records: list[Attributes]) -> RabitqShard:
    shard = RabitqShard(
        codebook=Codebook.draw(4),
        schema=SCHEMA,
        tag_attribute=lambda name, value: hmac.digest(b"k", f"{name}={value}".encode(), "sha256"),
        open_vectors=lambda at, out: np.ones(len(at), np.bool_),
    )
    vectors = np.eye(4, dtype=np.float32)[np.arange(len(records)) % 4]
    shard.apply([Added(sequence=1, positions=np.arange(len(records)), vectors=vectors, attributes=records)])
    return shard


SHARD = pytest.fixture(scope="module", name="shard")(lambda: shard_of(RECORDS))


def chosen(shard: RabitqShard, rows: RowFilter, own: Expression | None = None) -> list[int]:
    selection = shard.select(rows, own)
    found = shard.scan(np.eye(4, dtype=np.float32)[:1], selection, k=1, effort=Effort(candidates=1)).positions.tolist()
    assert len(found) == selection.count
    return found


values = st.one_of(st.sampled_from(STRINGS), st.sampled_from(LONGS), st.booleans(), st.integers(-(2**70), 2**70))
names = st.sampled_from(["dep", "level", "vip", "ghost"])
signs = st.sampled_from(["<", "<=", ">", ">="])
leaves = st.one_of(
    st.builds(TruthValue, st.booleans()),
    st.builds(Has, names),
    st.builds(Equals, names, values),
    st.builds(OneOf, names, st.lists(values, max_size=4).map(tuple)),
    st.builds(Compare, names, signs, st.one_of(st.sampled_from(LONGS), st.integers(-(2**70), 2**70))),
)


def trees(leaf: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.recursive(
        leaf,
        lambda inner: st.one_of(st.builds(Not, inner), st.builds(And, inner, inner), st.builds(Or, inner, inner)),
        max_leaves=8,
    )


row_filters = st.builds(
    RowFilter,
    permits=st.lists(trees(leaves), max_size=3).map(tuple),
    forbids=st.lists(trees(leaves), max_size=2).map(tuple),
)

typed = {"dep": st.sampled_from(STRINGS), "level": st.sampled_from(LONGS), "vip": st.booleans()}
own_leaves = st.one_of(
    st.builds(TruthValue, st.booleans()),
    st.sampled_from(list(SCHEMA)).map(Has),
    *[st.builds(Equals, st.just(name), value) for name, value in typed.items()],
    *[st.builds(OneOf, st.just(name), st.lists(value, max_size=3).map(tuple)) for name, value in typed.items()],
    st.builds(Compare, st.just("level"), signs, st.sampled_from(LONGS)),
)


@settings(max_examples=400, deadline=None)
@given(rows=row_filters)
def test_a_row_filter_means_what_its_documentation_says(shard: RabitqShard, rows: RowFilter) -> None:
    assert chosen(shard, rows) == [at for at, record in enumerate(RECORDS) if permits(rows, record)]


@settings(max_examples=300, deadline=None)
@given(rows=row_filters, own=trees(own_leaves))
def test_a_callers_own_filter_only_narrows(shard: RabitqShard, rows: RowFilter, own: Expression) -> None:
    allowed = [at for at, record in enumerate(RECORDS) if permits(rows, record)]
    assert chosen(shard, rows, own) == [at for at in allowed if meaning(own, RECORDS[at], strict=False)]
    assert shard.select(rows, own).permitted == len(allowed)


@settings(max_examples=40, deadline=None)
@given(
    records=st.lists(st.fixed_dictionaries({}, optional=typed), min_size=1, max_size=30),
    gone=st.sets(st.integers(0, 29)),
    rows=row_filters,
)
def test_filters_hold_after_records_are_forgotten(records: list[Attributes], gone: set[int], rows: RowFilter) -> None:
    from time import monotonic

    from secure_embed.types import Action, Ticket

    shard = shard_of(records)
    ticket = Ticket(intent_index=0, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=monotonic() + 60)
    shard.forget(sorted(gone), version=1 + len(gone), ticket=ticket)
    left = [at for at, record in enumerate(records) if at not in gone and permits(rows, record)]
    assert chosen(shard, rows) == left


@pytest.mark.parametrize(
    "own",
    [
        Has("ghost"),
        Equals("ghost", 1),
        Equals("dep", 1),
        Equals("dep", True),
        Equals("level", True),
        Equals("level", "1"),
        Equals("level", 2**63),
        Equals("vip", 1),
        Equals("dep", "\ud800"),
        OneOf("level", (1, "a")),
        OneOf("level", tuple(range(257))),
        Compare("dep", "<", 1),
        Compare("vip", "<", 1),
        Compare("level", "<", True),
        Compare("level", "<", 2**63),
        Compare("level", "!=", 1),
        And(TruthValue(True), Not(Has("ghost"))),
        TruthValue("yes"),
        "dep",
    ],
    ids=repr,
)
def test_an_own_filter_that_makes_no_sense_is_refused(shard: RabitqShard, own: Expression) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shard.select(RowFilter(permits=(TruthValue(True),)), own)
    assert refused.value.code == "filter_invalid"


def nested(depth: int) -> Expression:
    node: Expression = Has("dep")
    for _ in range(depth - 1):
        node = Not(node)
    return node


def wide(nodes: int) -> Expression:
    level: list[Expression] = [Has("dep")] * ((nodes + 1) // 2)
    while len(level) > 1:
        level = [Or(a, b) for a, b in zip(level[::2], level[1::2], strict=False)] + level[len(level) & ~1 :]
    return level[0]


@pytest.mark.parametrize(
    ("own", "allowed"),
    [(nested(16), True), (nested(17), False), (nested(100_000), False), (wide(63), True), (wide(65), False)],
    ids=["16 deep", "17 deep", "100,000 deep", "63 nodes", "65 nodes"],
)
def test_own_filters_have_limits(shard: RabitqShard, own: Expression, allowed: bool) -> None:
    everything = RowFilter(permits=(TruthValue(True),))
    if allowed:
        shard.select(everything, own)
        return
    with pytest.raises(InvalidRequest) as refused:
        shard.select(everything, own)
    assert refused.value.code == "filter_invalid"


@pytest.mark.parametrize(
    "beyond", [nested(100_000), wide(20_001), And(TruthValue(True), None)], ids=["deep", "wide", "odd"]
)
def test_a_row_filter_that_cannot_be_evaluated_fails_closed(shard: RabitqShard, beyond: Expression) -> None:
    everything = TruthValue(True)
    assert chosen(shard, RowFilter(permits=(beyond,))) == []
    assert chosen(shard, RowFilter(permits=(everything,), forbids=(beyond,))) == []
    assert len(chosen(shard, RowFilter(permits=(beyond, everything)))) == len(RECORDS)
