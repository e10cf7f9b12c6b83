"""What the documents name exists: tests behind claims, commands, paths, files."""

import re
from pathlib import Path

import pytest

from secure_embed.cli.main import _COMMANDS

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "audit").glob("*.md"),
        *(ROOT / "policies").glob("*.md"),
    ]
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_test_that_a_document_names_exists(document):
    """`tests/...py` and `test_file.py::test_name`, also where only the file's name is given."""
    text = document.read_text()
    files = {p.name: p for p in (ROOT / "tests").rglob("test_*.py")}
    for name in set(re.findall(r"\b(test_[a-z0-9_]+\.py)\b", text)):
        assert name in files, name
    for path in set(re.findall(r"`(tests/[A-Za-z0-9_/.-]+\.py)", text)):
        assert (ROOT / path).is_file(), path
    for file, test in set(re.findall(r"(test_[a-z0-9_]+\.py)::(test_[a-z0-9_]+)", text)):
        assert f"def {test}(" in files[file].read_text(), f"{file}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_readme_has_every_command():
    readme = (ROOT / "README.md").read_text()
    for name in _COMMANDS:
        assert f"`secure-embed {name}`" in readme, name


def test_the_readme_has_every_path():
    from secure_embed.api.log_routes import router as log_router
    from secure_embed.api.routes import router
    from secure_embed.api.tuning_routes import router as tuning_router

    readme = (ROOT / "README.md").read_text()
    for route in (*router.routes, *log_router.routes, *tuning_router.routes):
        assert f"{re.sub(':[a-z]+', '', route.path)}`" in readme, route.path


def test_absolute_paths_are_those_of_a_users_machine():
    """Folders of the Filesystem Hierarchy Standard, and the API's own paths: none of the machines that this was made on."""
    for path in DOCUMENTS:
        found = set(re.findall(r"(?<![\w}])(?<!\.\.)/(\w+)/", path.read_text()))
        assert found <= {"dev", "etc", "opt", "proc", "root", "srv", "usr", "v1", "var"}, path
