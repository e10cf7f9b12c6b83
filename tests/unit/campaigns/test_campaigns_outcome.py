"""What the corruption campaign makes of a damaged deployment's answers."""

import random
import shutil
from pathlib import Path

import pytest

from campaigns.damage_files import file_damages, rollbacks
from campaigns.outcome import DEFECTS, Kind, Seen, Touched, judge

RIGHT = {
    "fetch a": Seen(200, "", "a"),
    "fetch gone": Seen(404, "record_not_found", "x"),
    "new": Seen(201, "", "n"),
    "new fetched": Seen(200, "", "nf"),
}
AFTER = {"new fetched": ("new",)}


def kind(family="files", **differing):
    answers = {**RIGHT, **{name.replace("_", " "): seen for name, seen in differing.items()}}
    return judge(Touched(answers=answers), RIGHT, family, AFTER).kind


def test_a_deployment_that_answers_as_before_is_unharmed():
    assert kind() is Kind.HARMLESS


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(200, "", "another"), Kind.WRONG),
        (Seen(404, "record_not_found", "x"), Kind.WRONG),  # a record that was acknowledged is said not to be there
        (Seen(409, "record_exists", "y"), Kind.WRONG),
        (Seen(500, "sealed_value_unreadable", "y"), Kind.AT_TOUCH),
        (Seen(403, "policy_denied", "y"), Kind.AT_TOUCH),
        (Seen(500, "internal_error", "y"), Kind.UNNAMED),
    ],
)
def test_what_an_answer_that_differs_means(seen, expected):
    assert kind(fetch_a=seen) is expected


def test_an_erased_record_that_answers_is_wrong():
    assert kind(fetch_gone=Seen(200, "", "back")) is Kind.WRONG


def test_one_wrong_answer_beside_an_error_is_still_wrong():
    assert kind(fetch_a=Seen(500, "row_mismatch", "y"), fetch_gone=Seen(200, "", "back")) is Kind.WRONG


def test_a_record_whose_ingest_was_refused_is_rightly_not_there():
    refused, absent = Seen(500, "row_mismatch", "y"), Seen(404, "record_not_found", "x")
    assert kind(new=refused, new_fetched=absent) is Kind.AT_TOUCH
    assert kind(new_fetched=absent) is Kind.WRONG


def test_what_ends_the_start():
    assert judge(Touched(refused="log_damaged"), RIGHT, "files").kind is Kind.AT_START
    assert judge(Touched(fell="SIGSEGV"), RIGHT, "files").kind is Kind.FAULT
    assert judge(Touched(refused="log_damaged", leaked=True), RIGHT, "files").kind is Kind.LEAKED


def test_what_only_the_verifier_sees():
    touched = Touched(answers=RIGHT, findings=("receipt 4: the log holds another entry there",))
    assert judge(touched, RIGHT, "files").kind is Kind.BY_VERIFIER


@pytest.mark.parametrize(
    ("family", "expected"), [("rollback", Kind.NOT_YET), ("settings", Kind.TOOK_EFFECT), ("tables", Kind.WRONG)]
)
def test_what_may_come_of_a_damage_depends_on_what_it_is(family, expected):
    assert kind(family, fetch_a=Seen(200, "", "another")) is expected


def test_an_older_state_that_nobody_noticed_is_not_called_harmless():
    assert kind("rollback") is Kind.NOT_YET
    assert Kind.NOT_YET not in DEFECTS


# --- damages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_states(tmp_path):

    chance = random.Random(3)
    for state, pages in (("older", 4), ("now", 6)):
        for path in ("data/data.db", "keys/keys.db", "log/journal", "secure-embed.toml"):
            file = tmp_path / state / "deployment" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.randbytes(4_096 * pages))
    return tmp_path / "now" / "deployment", tmp_path / "older" / "deployment"


def content(root: Path):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_damage_changes_what_it_names_and_nothing_else(two_states):

    root, older = two_states
    before = content(root)
    seen = set()
    for damage in file_damages(root, [older]):
        copy = root.parent / "copy"
        shutil.copytree(root, copy)
        assert damage.apply(copy, random.Random(1))
        after = content(copy)
        changed = {path for path in before | after if before.get(path) != after.get(path)}
        assert changed == set(damage.place.split(", ")), damage
        seen.add((damage.place.partition(",")[0], damage.what))
        shutil.rmtree(copy)
    for path in before:
        assert {(path, what) for what in ("flip a bit", "truncate", "remove", "older file", "append")} <= seen


def test_a_rollback_puts_back_a_whole_part(two_states):

    root, older = two_states
    (root / "data" / "data.db-wal").write_bytes(b"later")
    then = content(older)
    for damage in rollbacks(root, [p for p in [older] if p.exists()]):
        if "risk.db" in damage.place:
            continue  # not in this small picture
        copy = root.parent / "copy"
        shutil.copytree(root, copy)
        assert damage.apply(copy, random.Random(1))
        after = content(copy)
        for part in damage.place.split(", "):
            assert {p: c for p, c in after.items() if p.startswith(part)} == {
                p: c for p, c in then.items() if p.startswith(part)
            }
        shutil.rmtree(copy)
