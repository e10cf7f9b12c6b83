"""docs/operations.md names every exit status and every setting, and each with its real default where it gives one."""

import re
from pathlib import Path

import pytest

from secure_embed import errors
from secure_embed.settings import IssuerSettings, Settings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()


def section(title):
    return DOCUMENT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def statuses():
    kinds = [getattr(errors, name) for name in errors.__all__]
    return {kind.exit_status for kind in kinds}


def documented_settings():
    return set(re.findall(r"`((?:\w+\.|issuers\[\]\.)\w+)`", section("Settings")))


def real_settings():
    names = set()
    for part, field in Settings.model_fields.items():
        if part not in {"root", "dev", "issuers"}:
            names |= {f"{part}.{name}" for name in type(field.default).model_fields}
    return names | {f"issuers[].{name}" for name in IssuerSettings.model_fields}


def test_every_exit_status_is_documented():
    rows = {int(status) for status in re.findall(r"^\| (\d+) \|", section("Exit statuses"), flags=re.MULTILINE)}
    assert statuses() <= rows
    assert rows - statuses() == {0, 130}  # done, and stopped from the keyboard


def test_the_settings_are_exactly_those_of_the_code():
    assert documented_settings() == real_settings()


@pytest.mark.parametrize(
    ("name", "default"),
    [("port", 8443), ("health_port", 8444), ("host", "127.0.0.1"), ("public_url", "https://localhost:8443")],
)
def test_defaults_of_the_listener(name, default):
    assert str(default) in section("Settings")
    assert getattr(Settings.of({}, root=Path("/nowhere"), dev=True).server, name) == default


def test_files_that_it_names_are_there():
    root = Path(__file__).parents[3]
    for path in re.findall(r"deploy/[\w./-]+\w", DOCUMENT):
        assert (root / path).exists(), path
