"""The checker of the crash campaign: consistent histories pass, and each way to be wrong is seen."""

import random

import pytest

from campaigns.history import History, Key, Thing

A, B, C = (Thing(("notes", name), f"text {name}", "someone") for name in "abc")


def kinds(defects):
    return [defect.kind for defect in defects]


def acknowledged(history, *things):
    attempt = history.add(things)
    history.acknowledged(attempt)
    return attempt


def look(history, thing, there):
    start = history.tick()
    end = history.tick()
    return kinds(history.present(thing.key, thing.text, start, end) if there else history.absent(thing.key, start, end))


def restart(history, **there):
    """Settle with what is seen of each thing."""
    seen = {("notes", name): is_there for name, is_there in there.items()}
    return kinds(history.settle({key: seen[key] for key in history.unsettled()}))


def test_an_acknowledged_record_has_to_be_there():
    history = History()
    acknowledged(history, A)
    assert look(history, A, True) == []
    assert look(history, A, False) == ["lost"]


def test_a_changed_text_and_a_record_nobody_sent_are_seen():
    history = History()
    acknowledged(history, A)
    assert kinds(history.present(A.key, "another", 98, 99)) == ["changed"]
    assert kinds(history.present(B.key, B.text, 98, 99)) == ["unknown"]


def test_an_erased_record_must_not_come_back():
    history = History()
    acknowledged(history, A)
    erasure = history.erase([A.key])
    assert look(history, A, True) == []  # on its way: either
    assert look(history, A, False) == []
    history.acknowledged(erasure)
    assert look(history, A, False) == []
    assert look(history, A, True) == ["returned"]


def test_what_overlaps_an_answer_may_be_seen_either_way():
    history = History()
    start = history.tick()
    acknowledged(history, A)
    assert history.absent(A.key, start, history.tick()) == []
    start = history.tick()
    history.acknowledged(history.erase([A.key]))
    assert history.present(A.key, A.text, start, history.tick()) == []


def test_a_refused_record_must_not_be_there():
    history = History()
    history.refused(history.add([A]))
    assert look(history, A, True) == ["returned"]


@pytest.mark.parametrize(("there", "wrong"), [("", []), ("a", ["half"]), ("ab", ["half"]), ("abc", [])])
def test_an_unanswered_batch_is_whole_or_absent(there, wrong):
    history = History()
    history.unanswered(history.add([A, B, C]))
    assert restart(history, **{name: name in there for name in "abc"}) == wrong


@pytest.mark.parametrize(("there", "wrong"), [("", []), ("a", ["half"]), ("abc", [])])
def test_an_unanswered_erasure_is_whole_or_absent(there, wrong):
    history = History()
    acknowledged(history, A, B, C)
    history.unanswered(history.erase([A.key, B.key, C.key]))
    assert restart(history, **{name: name in there for name in "abc"}) == wrong


@pytest.mark.parametrize("there", [True, False])
def test_what_a_restart_has_shown_stays_so(there):
    history = History()
    history.unanswered(history.add([A]))
    assert restart(history, a=there) == []
    assert look(history, A, there) == []
    assert look(history, A, not there) == (["lost"] if there else ["returned"])
    assert history.unsettled() == []


def test_an_erasure_that_did_not_happen_does_not_excuse_a_loss_later():
    history = History()
    acknowledged(history, A)
    history.unanswered(history.erase([A.key]))
    assert restart(history, a=True) == []
    assert look(history, A, False) == ["lost"]


def test_another_erasure_of_one_record_makes_no_half():
    """The subject's erasure did not happen, the record's did: a is gone, b is there, and both are right."""
    history = History()
    acknowledged(history, A, B)
    history.unanswered(history.erase_subject("someone", None))
    history.acknowledged(history.erase([A.key]))
    assert restart(history, a=False, b=True) == []
    assert look(history, B, True) == []
    assert look(history, B, False) == ["lost"]


def test_an_erasure_of_a_subject_may_take_what_comes_in_meanwhile():
    history = History()
    adding = history.add([A, B])
    erasure = history.erase_subject("someone", ["notes"])
    history.acknowledged(adding)
    history.acknowledged(erasure)
    assert look(history, A, True) == look(history, A, False) == []
    assert restart(history, a=True, b=False) == []
    assert look(history, A, False) == ["lost"]
    assert look(history, B, True) == ["returned"]


def test_an_erasure_of_a_subject_takes_all_that_was_acknowledged_before():
    history = History()
    acknowledged(history, A)
    history.acknowledged(history.erase_subject("someone", None))
    acknowledged(history, B)
    assert look(history, A, True) == ["returned"]
    assert look(history, B, False) == ["lost"]


def test_a_batch_of_which_a_taken_record_is_there_has_to_be_whole():
    """a may have been taken by the erasure, but it is there: so the batch came, and b with it."""
    history = History()
    adding = history.add([A, Thing(B.key, B.text)])
    history.acknowledged(history.erase_subject("someone", None))
    history.unanswered(adding)
    assert restart(history, a=True, b=False) == ["half"]


@pytest.mark.parametrize(("said", "wrong"), [(1, ["miscounted"]), (2, []), (3, ["miscounted"])])
def test_what_an_erasure_counts(said, wrong):
    history = History()
    acknowledged(history, A, B)
    erasure = history.erase_subject("someone", None)
    assert kinds(history.erased_count(erasure, said, history.tick())) == wrong


def test_a_key_that_a_crash_left_without_its_row_may_be_counted():
    history = History()
    history.unanswered(history.add([A]))
    restart(history, a=False)
    acknowledged(history, A)
    erasure = history.erase_subject("someone", None)
    assert kinds(history.erased_count(erasure, 1, history.tick())) == []
    assert kinds(history.erased_count(erasure, 2, history.tick())) == []
    assert kinds(history.erased_count(erasure, 3, history.tick())) == ["miscounted"]


class Store:
    """A store as it should be, or with one fault; crashes lose or keep what was on its way."""

    def __init__(self, chance: random.Random, fault: str) -> None:
        self.chance = chance
        self.fault = fault
        self.there: set[Key] = set()

    def apply(self, effect, keys, *, answered):
        happens = answered or self.chance.random() < 0.5
        if answered and self.fault == "forgets" and self.chance.random() < 0.1:
            happens = False
        if not answered and self.fault == "halves" and happens and len(keys) > 1:
            keys = keys[:1]
        if happens:
            self.there = self.there | set(keys) if effect == "add" else self.there - set(keys)


def lives(fault, seed):
    """Defects that 30 lives of such a store show."""
    chance = random.Random(seed)
    store, history = Store(chance, fault), History()
    defects, number = [], 0
    for _ in range(30):
        for _ in range(6):
            answered = chance.random() < 0.7
            if chance.random() < 0.6 or not store.there:
                keys = [("notes", str(number + n)) for n in range(3)]
                number += 3
                attempt = history.add([Thing(key, "text") for key in keys])
            else:
                keys = chance.sample(sorted(store.there), min(2, len(store.there)))
                attempt = history.erase(keys)
            store.apply(attempt.effect, keys, answered=answered)
            (history.acknowledged if answered else history.unanswered)(attempt)
        start = history.tick()
        for key in history.known():
            defects += (
                history.present(key, "text", start, start + 1)
                if key in store.there
                else history.absent(key, start, start + 1)
            )
        defects += history.settle({key: key in store.there for key in history.unsettled()})
    return set(kinds(defects))


@pytest.mark.parametrize("seed", range(20))
def test_a_store_that_keeps_its_word_is_found_to(seed):
    assert lives("", seed) == set()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("fault", "kind"), [("forgets", "lost"), ("forgets", "returned"), ("halves", "half")])
def test_a_store_that_does_not_is_found_out(seed, fault, kind):
    assert kind in lives(fault, seed)
