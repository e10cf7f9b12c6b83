"""`collection tune`: what it asks for, what it shows to people and what to programs, and what it refuses by itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from secure_embed.cli import client as client_module
from secure_embed.cli.client import Reply
from secure_embed.cli.records import collection
from secure_embed.errors import InvalidRequest, SecureEmbedError

CHOSEN = {
    "effort": {"candidates": 100, "lists": 8, "all_lists": False, "margin": 2.5},
    "recall": 0.994,
    "recall_low": 0.991,
    "recall_queries": None,
    "recall_filtered": 0.97,
    "openings": 61,
    "openings_filtered": 140,
    "codes": 3_100,
    "meets": True,
}
BEFORE = CHOSEN | {"effort": {"candidates": 200, "lists": None, "all_lists": False, "margin": 3.0}, "openings": 90}
MOST = CHOSEN | {"effort": {"candidates": 800, "lists": None, "all_lists": True, "margin": 4.0}}
RUNNING = {
    "id": "t-1",
    "collection": "notes",
    "state": "running",
    "target": 0.99,
    "k": 10,
    "bits": 1,
    "applied": False,
    "done": 0,
    "total": 24,
    "error": None,
    "report": None,
}
DONE = RUNNING | {
    "state": "done",
    "report": {
        "sample": 200,
        "lists": 64,
        "before": BEFORE,
        "chosen": CHOSEN,
        "bits_recommended": None,
        "measured": [BEFORE, MOST, CHOSEN],
    },
}


class Service:
    """Stands in for the client: what was asked, and answers in their order, the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[dict[str, Any]] = [RUNNING, RUNNING | {"done": 3}, DONE]

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> Reply:
        self.asked.append((method, path, body))
        return Reply(status=200, body=self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    def close(self) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(client_module, "Client", lambda *_, **__: made)
    monkeypatch.setattr("secure_embed.cli.tuning.poll_s", 0.0)
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(collection, [*arguments, "--url", "https://service"])


PLAIN = {"target": 0.99, "k": 10, "filtered": True, "apply": False}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], PLAIN),
        (["--dry-run"], PLAIN),
        (["--apply", "--target", "0.95", "-k", "5"], PLAIN | {"apply": True, "target": 0.95, "k": 5}),
        (["--bits", "2", "--unfiltered"], PLAIN | {"bits": 2, "filtered": False}),
    ],
)
def test_a_tuning_is_asked_for_and_waited_for(service: Service, arguments: list[str], asked: dict[str, Any]) -> None:
    ran = run("tune", "notes", *arguments)
    assert ran.exit_code == 0, ran.output
    assert service.asked[0] == ("POST", "/v1/collections/notes/tunings", asked)
    assert {call[:2] for call in service.asked[1:]} == {("GET", "/v1/collections/notes/tunings/t-1")}


def test_people_see_a_table_on_stderr_and_the_choice_on_stdout(service: Service) -> None:
    ran = run("tune", "notes")
    assert ran.stdout.splitlines() == [
        "notes: 100 candidates, lists 8 of 64, margin 2.5, 1 bits: recall 0.994, 61 vectors opened a query (90 before)",
        "behind a filter that leaves a tenth: recall 0.970, 140 vectors opened a query",
        "nothing was changed; --apply keeps it",
    ]
    for cell in ("candidates", "in force", "chosen", "at least", "all", "1/8", "0.991", "3100"):
        assert cell in ran.stderr


def test_programs_see_the_answer_as_it_is(service: Service) -> None:
    ran = run("tune", "notes", "--json")
    assert json.loads(ran.stdout) == DONE


def test_what_is_not_met_says_how_many_bits_to_try(service: Service) -> None:
    report = DONE["report"] | {"chosen": None, "bits_recommended": 2}  # type: ignore[operator]
    service.answers = [DONE | {"report": report}]
    assert run("tune", "notes").stdout.strip() == ("notes: no effort meets 0.99 with 1 bits a dimension; try --bits 2")


def test_a_tuning_that_failed_is_a_failure_with_its_code(service: Service) -> None:
    service.answers = [RUNNING, RUNNING | {"state": "failed", "error": "tuning_interrupted"}]
    ran = run("tune", "notes")
    assert isinstance(ran.exception, SecureEmbedError)
    assert ran.exception.code == "tuning_interrupted"


def test_queries_come_from_a_file_one_on_each_line(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_text("first question\n\n  second question \n")
    assert run("tune", "notes", "--queries", str(file)).exit_code == 0
    assert service.asked[0][2]["queries"] == ["first question", "second question"]


@pytest.mark.parametrize(("content", "code"), [(b"q\n" * 201, "tuning_invalid"), (b"\xff\xfe\n", "text_invalid")])
def test_a_file_that_is_none_of_queries_is_not_sent(
    service: Service, tmp_path: Path, content: bytes, code: str
) -> None:
    file = tmp_path / "queries.txt"
    file.write_bytes(content)
    ran = run("tune", "notes", "--queries", str(file))
    assert isinstance(ran.exception, InvalidRequest)
    assert ran.exception.code == code
    assert service.asked == []


def test_bits_are_chosen_when_a_collection_is_made(service: Service) -> None:
    service.answers = [{"name": "notes", "model": "m", "dimension": 64}]
    assert run("create", "notes", "--bits", "3").exit_code == 0
    assert run("create", "notes").exit_code == 0
    assert [asked[2] for asked in service.asked] == [
        {"name": "notes", "attributes": {}, "bits": 3},
        {"name": "notes", "attributes": {}},
    ]


def test_a_collection_is_shown_with_how_it_is_searched(service: Service) -> None:
    shown = {
        "name": "notes",
        "model": "m",
        "dimension": 64,
        "records": 5_000,
        "risk_profile": "standard",
        "attributes": {},
        "bits": 2,
        "effort": CHOSEN["effort"],
        "tuned": None,
    }
    tuned = {"target": 0.99, "k": 10, "recall": 0.994, "at": "2026-11-25T12:00:00Z", "records": 4_000}
    service.answers = [shown, shown | {"tuned": tuned}]
    assert "  codes of 2 bits a dimension, up to 100 candidates opened, never tuned" in run("show", "notes").stdout
    assert "  tuned 2026-11-25T12:00:00Z with 4000 records: recall@10 0.994, target 0.99" in run("show", "notes").stdout
