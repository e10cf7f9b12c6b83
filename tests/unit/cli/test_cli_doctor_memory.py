"""`doctor` on memory: the budget, and what the running service says of its collections."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from secure_embed.cli import doctor
from secure_embed.host import memory_bytes
from secure_embed.settings import Settings


class Health:
    """What a service would say on loopback."""

    def __init__(self) -> None:
        self.said: bytes = b"{}"
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(health.said)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def say(self, *, needed: int, largest: int, unknown: int = 0, refused: int = 0) -> None:
        self.said = json.dumps(
            {
                "memory": {"needed_mib": needed, "largest_mib": largest},
                "warming": {"named": 3, "left": 0, "unknown": unknown, "refused": refused},
            }
        ).encode()


@pytest.fixture
def health() -> Iterator[Health]:
    made = Health()
    yield made
    made.server.shutdown()
    made.server.server_close()


def found(port: int, **index: object) -> list[tuple[str, str, str]]:
    settings = Settings.of({"server": {"health_port": port}, "index": index}, root=Path("nowhere"), dev=True)
    return list(doctor._memory(settings))


@pytest.mark.parametrize(
    ("needed", "largest", "level", "says"),
    [
        (90, 60, "ok", "all in memory would take 90 MiB"),
        (300, 60, "lacks", "they take turns"),
        (300, 200, "wrong", "collection_over_budget"),
    ],
)
def test_it_says_whether_the_collections_fit(health, needed, largest, level, says):
    health.say(needed=needed, largest=largest)
    ((said, what, detail),) = found(health.port, memory_mib_max=100)
    assert (said, what) == (level, "memory")
    assert "may take 100 MiB" in detail
    assert says in detail


def test_names_of_the_warm_up_list_that_did_not_come_are_counted(health):
    health.say(needed=1, largest=1, unknown=1, refused=1)
    assert found(health.port, memory_mib_max=100)[1][:2] == ("lacks", "warm-up")


@pytest.mark.parametrize("said", [b"", b"[]", b'{"status": "ready"}', b"\xff"])
def test_without_an_answer_that_it_knows_it_says_the_budget_alone(health, said):
    health.said = said
    ((level, _, detail),) = found(health.port)
    assert level == "ok"
    assert f"may take {memory_bytes() // 2 >> 20} MiB" in detail
    assert "does not answer" in detail


def test_a_budget_above_what_there_is_is_wrong(health):
    ((level, _, detail),) = found(health.port, memory_mib_max=(memory_bytes() >> 20) + 1)
    assert level == "wrong"
    assert "more than there is" in detail
