"""`keys rotate`, `backup` and `restore`: what they ask for, and what they refuse to guess."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from secure_embed.cli import client as client_module
from secure_embed.cli.backup import backup, restore
from secure_embed.cli.client import Reply
from secure_embed.cli.keys import keys
from secure_embed.errors import SecureEmbedError

ROTATION = {"id": "r-1", "kind": "root", "state": "running", "collection": None, "done": 0, "total": 0, "error": None}


class Service:
    """Stands in for the client: what was asked, and answers in their order, the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = 0,
    ) -> Reply:
        self.asked.append((method, path, body))
        return Reply(status=200, body=self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    def close(self) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(client_module, "Client", lambda *_, **__: made)
    monkeypatch.setattr("secure_embed.cli.keys.poll_s", 0.0)
    return made


def run(command: Any, *arguments: str) -> Any:
    return CliRunner().invoke(command, [*arguments, "--url", "https://service"])


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--root"], {"kind": "root", "reseal": False}),
        (["--log"], {"kind": "log", "reseal": False}),
        (["--store"], {"kind": "store", "reseal": False}),
        (["-C", "a"], {"kind": "collection", "collection": "a", "reseal": False}),
        (
            ["-C", "a", "--reseal", "--records-per-second", "50"],
            {"kind": "collection", "collection": "a", "reseal": True, "records_per_second": 50},
        ),
    ],
)
def test_a_rotation_is_asked_for_and_waited_for(service: Service, arguments: list[str], asked: dict[str, Any]) -> None:
    service.answers = [ROTATION, ROTATION, ROTATION | {"state": "done"}]
    ran = run(keys, "rotate", *arguments)
    assert (ran.exit_code, ran.output.strip()) == (0, "rotation r-1 (root): done")
    assert service.asked[0] == ("POST", "/v1/keys/rotations", asked)
    assert {call[:2] for call in service.asked[1:]} == {("GET", "/v1/keys/rotations/r-1")}


def test_a_rotation_that_failed_is_a_failure_with_its_code(service: Service) -> None:
    service.answers = [ROTATION, ROTATION | {"state": "failed", "error": "storage_full"}]
    ran = run(keys, "rotate", "--root")
    assert isinstance(ran.exception, SecureEmbedError)
    assert ran.exception.code == "storage_full"


def test_no_wait_returns_at_once(service: Service) -> None:
    service.answers = [ROTATION]
    ran = run(keys, "rotate", "--root", "--no-wait", "--json")
    assert json.loads(ran.output)["state"] == "running"
    assert len(service.asked) == 1


@pytest.mark.parametrize("arguments", [[], ["--root", "-C", "a"], ["--log", "--reseal"]])
def test_what_is_to_be_rotated_is_not_guessed(service: Service, arguments: list[str]) -> None:
    assert run(keys, "rotate", *arguments).exit_code == 2
    assert service.asked == []


def test_a_backup_names_whole_paths(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's working folder is another than ours."""
    monkeypatch.chdir(tmp_path)
    service.answers = [{"records": 3, "bytes_copied": 10, "bytes_linked": 0, "data": "/b/data-1", "keys": "/b/keys-1"}]
    assert run(backup, "--to", "copies").exit_code == 0
    assert run(backup, "--to", "copies", "--keys-to", "/elsewhere").exit_code == 0
    assert [asked[2] for asked in service.asked] == [
        {"to": str(tmp_path / "copies")},
        {"to": str(tmp_path / "copies"), "keys_to": "/elsewhere"},
    ]


@pytest.mark.parametrize(
    "arguments", [[], ["--from", "data"], ["--keys-from", "keys"], ["--acknowledge-rollback", "--from", "data"]]
)
def test_a_restore_needs_both_parts_or_neither(tmp_path: Path, arguments: list[str]) -> None:
    ran = CliRunner().invoke(restore, [*arguments, "--root", str(tmp_path / "new")])
    assert ran.exit_code == 2
    assert not (tmp_path / "new").exists()
