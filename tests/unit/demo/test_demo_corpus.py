"""The demo's corpus is made by its generator, fits together, and is what the documents say of it."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from secure_embed.cli.demo import corpus
from secure_embed.errors import IntegrityFailure

BUNDLED = Path(corpus.__file__).parent / "data"
FILES = [
    Path(name) / file for name in corpus.COLLECTIONS for file in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
]


@pytest.fixture(scope="module", params=corpus.COLLECTIONS)
def bundled(request):
    return corpus.load(request.param)


@pytest.fixture
def copy(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((BUNDLED / file).read_bytes())
    return tmp_path


def test_making_it_anew_gives_the_bundled_bytes(tmp_path):
    # A process of its own: another hash seed must make no difference.
    command = [sys.executable, "-m", "secure_embed.cli.demo.corpus", "--out", str(tmp_path)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7", "LC_ALL": "C"})
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()) == sorted(FILES)
    for file in FILES:
        assert (tmp_path / file).read_bytes() == (BUNDLED / file).read_bytes(), file


def test_another_seed_gives_another_corpus(tmp_path):
    corpus.write(tmp_path, seed=2)
    assert not {r.text for r in corpus.load("complaints").records} & {
        r.text for r in corpus.load("complaints", root=tmp_path).records
    }


def test_a_larger_one_for_benchmarks_keeps_the_promises(tmp_path):
    corpus.write(tmp_path, records=3_000)
    large = corpus.load("clinical-notes", root=tmp_path)
    assert len(large.records) == len({r.text for r in large.records}) == 3_000


def test_a_smaller_one_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="at least"):
        corpus.write(tmp_path / "out", records=1_199)
    assert not (tmp_path / "out").exists()


def test_size_and_languages(bundled):
    assert len(bundled.records) == 1_200
    countries = Counter(r.attributes["country"] for r in bundled.records)
    share = {
        language: sum(countries[c] for c in of) / 1_200
        for language, of in {"en": ("GB", "IE", "US"), "de": ("DE", "AT", "CH"), "es": ("ES", "MX")}.items()
    }
    assert 0.55 < share["en"] < 0.65
    assert share["de"] > 0.2
    assert share["es"] > 0.12


def test_texts_are_distinct_name_their_subject_and_keep_their_length(bundled):
    assert len({r.text for r in bundled.records}) == 1_200
    for record in bundled.records:
        assert record.person in record.text
        assert 150 <= len(record.text) <= 700
        assert not set("{}|") & set(record.text), record.id  # no slot was left unfilled


def test_a_subject_is_one_person_and_some_have_many_records(bundled):
    people = {}
    for record in bundled.records:
        people.setdefault(record.subject, set()).add(record.person)
    assert all(len(names) == 1 for names in people.values())
    assert 300 <= len(people) <= 400
    assert Counter(r.subject for r in bundled.records).most_common(1)[0][1] >= 10


def test_ids_say_nothing_of_their_records(bundled):
    assert all(re.fullmatch(r"c[no]-[0-9a-z]{8}", r.id) for r in bundled.records)
    in_order = [r.id for r in bundled.records]
    assert in_order != sorted(in_order)


def test_attributes_have_their_types_and_ranges(bundled):
    for record in bundled.records:
        assert set(record.attributes) == {"department", "sensitivity", "country"}
        assert type(record.attributes["sensitivity"]) is int
    assert {r.attributes["sensitivity"] for r in bundled.records} == {0, 1, 2, 3}
    assert len({r.attributes["department"] for r in bundled.records}) >= 6


def test_psychiatry_is_always_of_the_highest_sensitivity():
    notes = corpus.load("clinical-notes").records
    assert {r.attributes["sensitivity"] for r in notes if r.attributes["department"] == "psychiatry"} == {3}


def test_queries_are_judged_and_recall_at_10_can_be_1(bundled):
    assert len(bundled.queries) == 30
    assert all(1 <= len(grades) <= 10 for grades in bundled.qrels.values())
    assert sum(2 in grades.values() for grades in bundled.qrels.values()) >= 3


def test_no_query_names_a_person_or_stands_in_a_record(bundled):
    words = {word for record in bundled.records for word in record.person.split()}
    for query in bundled.queries.values():
        assert not words & set(re.findall(r"\w+", query))
        assert not any(query in record.text for record in bundled.records)


def test_no_record_answers_two_queries(bundled):
    judged = [record for grades in bundled.qrels.values() for record in grades]
    assert len(judged) == len(set(judged))


def test_beir_layout():
    for name in corpus.COLLECTIONS:
        first = json.loads((BUNDLED / name / "corpus.jsonl").read_text(encoding="utf-8").split("\n", 1)[0])
        assert set(first) == {"_id", "title", "text", "metadata"}
        assert (BUNDLED / name / "qrels/test.tsv").read_text().startswith("query-id\tcorpus-id\tscore\n")
    assert sum((BUNDLED / file).stat().st_size for file in FILES) < 2_500_000


def _swap(old, new):
    return lambda raw: raw.replace(old, new, 1)


def _first_line_twice(raw):
    return raw.split(b"\n", 1)[0] + b"\n" + raw


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        pytest.param("corpus.jsonl", lambda raw: raw[:-20], id="cut off"),
        pytest.param("corpus.jsonl", lambda _: b"", id="empty"),
        pytest.param("corpus.jsonl", _first_line_twice, id="an id twice"),
        pytest.param("corpus.jsonl", lambda raw: raw.split(b"\n", 400)[-1], id="judged records are missing"),
        pytest.param(
            "corpus.jsonl", _swap(b'"person": "', b'"person": "Someone '), id="text does not name its subject"
        ),
        pytest.param("corpus.jsonl", _swap(b'"attributes"', b'"features"'), id="no attributes"),
        pytest.param("corpus.jsonl", _swap(b'{"_id"', b'["_id"'), id="not JSON"),
        pytest.param("queries.jsonl", lambda raw: raw.split(b"\n", 1)[1], id="a query is missing"),
        pytest.param("qrels/test.tsv", _swap(b"corpus-id", b"document"), id="another header"),
        pytest.param("qrels/test.tsv", lambda raw: raw[:-3] + b"\tx\n", id="a grade that is no number"),
        pytest.param("qrels/test.tsv", lambda raw: raw[:-2] + b"0\n", id="a grade of nought"),
        pytest.param("qrels/test.tsv", lambda raw: raw + b"co-q99\tco-00000000\t1\n", id="an unknown query"),
    ],
)
def test_damaged_files_are_refused(copy, file, damage):
    path = copy / "complaints" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityFailure) as refused:
        corpus.load("complaints", root=copy)
    assert refused.value.code == "corpus_damaged"


def test_an_undamaged_copy_loads(copy):
    assert corpus.load("complaints", root=copy) == corpus.load("complaints")


def test_an_unknown_collection_is_refused():
    with pytest.raises(IntegrityFailure):
        corpus.load("payroll")


def test_nothing_of_a_person_is_in_a_repr():
    record = corpus.load("complaints").records[0]
    assert record.id in repr(record)
    for private in (record.text, record.person, record.subject):
        assert private not in repr(record)
