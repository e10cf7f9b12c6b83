"""Whatever is written, rolled back and opened again is as sealed; whatever one row is changed behind its back is not."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed.errors import IntegrityFailure
from secure_embed.keys import SealedDatabase
from tests.unit.keys.test_keys_row_seals import attack, bytes_table, database

owners, numbers = st.integers(1, 3), st.integers(-1, 600)
steps = st.one_of(
    st.tuples(st.just("put"), owners, numbers, st.integers(0, 3)),
    st.tuples(st.just("delete"), owners, numbers, st.integers(0, 500)),
    st.tuples(st.just("block"), owners, st.integers(0, 3), st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("end"), owners, st.integers(1, 3), st.none()),
)
Step = tuple[str, int, int, object]
Model = dict[tuple[str, int, int], object]


def take(opened: SealedDatabase, model: Model, batch: list[Step], *, fails: bool) -> None:
    after = dict(model)
    try:
        with opened.transaction() as run:
            for kind, owner, number, value in batch:
                if kind == "put":
                    run.execute("INSERT OR REPLACE INTO event VALUES (?, ?, ?)", (owner, number, value))
                    after["event", owner, number] = value
                elif kind == "delete":
                    last = number + int(str(value))
                    run.execute("DELETE FROM event WHERE owner = ? AND number BETWEEN ? AND ?", (owner, number, last))
                    for n in range(number, last + 1):
                        after.pop(("event", owner, n), None)
                elif kind == "block":
                    assert isinstance(value, bytes)
                    bytes_table.put(run, owner, {number: [value * 256]})
                    after["block", owner, number] = value * 256
                else:
                    bytes_table.end(run, owner, -1)
                    after = {place: its for place, its in after.items() if place[:2] != ("block", owner)}
            if fails:
                raise KeyError
    except KeyError:
        return
    model.clear()
    model.update(after)


def held(opened: SealedDatabase) -> Model:
    found: Model = {}
    for owner in (1, 2, 3):
        found |= {("event", owner, number): kind for _, number, kind in opened.sealed_rows("event", owner)}
        found |= {("block", owner, block): value for block, (value,) in bytes_table.all(opened, owner)}
    return found


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.tuples(st.lists(steps, max_size=6), st.booleans(), st.booleans()), min_size=1, max_size=6),
    change=st.sampled_from(
        [
            "DELETE FROM event WHERE (owner, number) = (SELECT owner, number FROM event LIMIT 1 OFFSET {n} % {events})",
            "UPDATE event SET kind = kind + 1 WHERE (owner, number) = (SELECT owner, number FROM event LIMIT 1 OFFSET {n} % {events})",
            "INSERT INTO event VALUES (1 + {n} % 3, 1000 + {n}, 0)",
        ]
    ),
    n=st.integers(0, 10_000),
)
def test_only_what_was_written_through_the_door_is_read(
    batches: list[tuple[list[Step], bool, bool]], change: str, n: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder) / "some.db", Model()
        opened = database(path)
        for batch, fails, reopens in batches:
            take(opened, model, batch, fails=fails)
            if reopens:
                opened.close()
                opened = database(path)
        assert held(opened) == model
        opened.close()
        events = sum(kind == "event" for kind, *_ in model)
        if events or change.startswith("INSERT"):
            attack(path, change.format(n=n, events=events))
            opened = database(path)
            noticed = 0
            for owner in (1, 2, 3):
                try:
                    opened.sealed_rows("event", owner)
                except IntegrityFailure:
                    noticed += 1
            assert noticed == 1
            opened.close()
