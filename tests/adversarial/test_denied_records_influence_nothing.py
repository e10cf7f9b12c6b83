"""What a caller may not see changes nothing of what it sees: not an order, not a score, not a count."""

import pytest

pytestmark = pytest.mark.model


def note(number, department, sensitivity=2):
    return {
        "id": f"{department}-{number}",
        "text": f"Note {number} on pain in the {['knee', 'chest', 'head'][number % 3]} after {number % 9} days.",
        "attributes": {"department": department, "sensitivity": sensitivity},
    }


def shape(answer):
    """An answer without its receipt, which counts the entries of the whole log."""
    return {name: value for name, value in answer.json().items() if name != "receipt"}


def test_answers_are_the_same_with_and_without_denied_records(empty_house):
    house = empty_house
    house.ingest("clinical-notes", [note(n, "cardiology") for n in range(1_000)])
    everything = {"department": "cardiology", "clearance": 3}
    doctors = [house.token(f"dr-{n}", ["query"], purpose="care", **everything) for n in range(2)]
    before = [shape(house.query("clinical-notes", f"pain after {n} days", doctors[0])) for n in range(5)]
    for start in (0, 400):
        house.ingest("clinical-notes", [note(n, "oncology") for n in range(start, start + 400)])
    after = [shape(house.query("clinical-notes", f"pain after {n} days", doctors[1])) for n in range(5)]
    assert before == after
    assert all(answer["hits"] for answer in before)


def test_a_denied_record_is_not_found_even_by_its_own_text(house):
    from secure_embed.cli.demo import corpus

    hidden = [
        r
        for r in corpus.load("clinical-notes").records
        if r.attributes["department"] != "cardiology" and r.attributes["sensitivity"] == 2
    ][:4]
    doctor = house.clinician(clearance=3)
    for record in hidden:
        hits = house.query("clinical-notes", record.text, doctor).json()["hits"]
        assert record.id not in {hit["id"] for hit in hits}
        assert all(
            hit["attributes"]["department"] == "cardiology" or hit["attributes"]["sensitivity"] <= 1 for hit in hits
        )
