"""`erase` and `hold`: what they ask of the service, what they print, and what they do not do without --yes."""

from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner

from secure_embed.cli import client as client_module
from secure_embed.cli.client import Reply
from secure_embed.cli.erase import erase
from secure_embed.cli.holds import hold
from secure_embed.errors import Conflict

DONE = {"id": "e-1", "state": "done", "kind": "subject", "records": 2, "note": "the signed note"}
WAITING = DONE | {"state": "shredded", "note": None}
HOLD = {
    "id": "h-1",
    "subject": "p 1",
    "collection": None,
    "record": None,
    "reason": "litigation",
    "placed_by": "issuer counsel",
    "placed_at": "2026-01-01T00:00:00Z",
    "records": 3,
}


class Service:
    """Stands in for the client: what was asked, and one answer for all of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.reply = Reply(status=200, body=DONE)

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        self.asked.append((method, path, body))
        return self.reply

    def close(self) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(client_module, "Client", lambda *_, **__: made)
    return made


def run(command: Any, *arguments: str) -> Any:
    return CliRunner().invoke(command, [*arguments, "--url", "https://service"])


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--subject", "p 1"], ("POST", "/v1/erasures", {"subject": "p 1"})),
        (
            ["--subject", "p 1", "-C", "a", "-C", "b", "--reason", "gdpr-art-17"],
            ("POST", "/v1/erasures", {"subject": "p 1", "reason": "gdpr-art-17", "collections": ["a", "b"]}),
        ),
        (["--record", "a", "x/../y"], ("DELETE", "/v1/collections/a/records/x%2F..%2Fy", None)),
        (
            ["--record", "a", "x", "--reason", "mistake"],
            ("DELETE", "/v1/collections/a/records/x?reason=mistake", None),
        ),
        (["--collection", "a", "--yes"], ("DELETE", "/v1/collections/a", None)),
        (["--status", "e-1"], ("GET", "/v1/erasures/e-1", None)),
    ],
)
def test_what_is_asked_of_the_service(service: Service, arguments: list[str], asked: tuple[str, str, Any]) -> None:
    ran = run(erase, *arguments)
    assert (ran.exit_code, service.asked) == (0, [asked])
    assert ran.output == "2 records erased; erasure e-1: done\n\nthe signed note\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--collection", "a"],  # without --yes
        ["-C", "a", "-C", "b", "--yes"],
        ["--subject", "p", "--record", "a", "x"],
        ["--record", "a", "x", "-C", "a"],
        ["--status", "e-1", "--subject", "p"],
        ["--status", "e-1", "-C", "a"],
    ],
)
def test_what_is_not_clear_is_not_asked(service: Service, arguments: list[str]) -> None:
    assert run(erase, *arguments).exit_code == 2
    assert service.asked == []


def test_an_erasure_that_waits_for_the_night_says_so(service: Service) -> None:
    service.reply = Reply(status=201, body=WAITING)
    shown = run(erase, "--subject", "p").output
    assert shown.startswith("2 records erased; erasure e-1: shredded\n")
    assert "--status" in shown


def test_a_refusal_by_a_hold_shows_its_reason(service: Service) -> None:
    service.reply = Reply(
        status=409, body={"code": "legal_hold", "detail": "a hold", "hold": "h-1", "reason": "litigation"}
    )
    ran = run(erase, "--subject", "p")
    assert isinstance(ran.exception, Conflict)
    assert (ran.exception.code, ran.exception.members["reason"]) == ("legal_hold", "litigation")
    assert "hold h-1: litigation" in ran.output


def test_holds_are_placed_released_and_listed(service: Service) -> None:
    service.reply = Reply(status=201, body=HOLD)
    assert "hold h-1 placed; it holds 3 records now" in run(hold, "place", "--subject", "p 1", "--reason", "l").output
    run(hold, "place", "--record", "a", "x", "--reason", "l")
    assert "hold h-1 released" in run(hold, "release", "h-1").output
    service.reply = Reply(
        status=200, body={"holds": [HOLD, HOLD | {"subject": None, "collection": "a", "record": "x"}]}
    )
    listed = run(hold, "list").output.splitlines()
    assert "subject p 1" in listed[0]
    assert "record x of a" in listed[1]
    assert [(method, path) for method, path, _ in service.asked] == [
        ("POST", "/v1/holds"),
        ("POST", "/v1/holds"),
        ("DELETE", "/v1/holds/h-1"),
        ("GET", "/v1/holds"),
    ]
    assert [body for *_, body in service.asked][:2] == [
        {"subject": "p 1", "reason": "l"},
        {"collection": "a", "record": "x", "reason": "l"},
    ]
    assert run(hold, "place", "--reason", "l").exit_code == 2
