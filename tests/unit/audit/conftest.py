from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, LogStorage, PosixLogStorage
from tests.audit_logs import new_log

Opener = Callable[[], LogStorage]


def posix_storage(folder: Path) -> Opener:
    """Opens the same log each time, as a restart would."""
    PosixLogStorage(folder / "log", create=True).close()
    return lambda: PosixLogStorage(folder / "log")


makers: Mapping[str, Callable[[Path], Opener]] = {"posix": posix_storage}


@pytest.fixture(params=makers.values(), ids=makers.keys())
def open_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """A new driver adds one line to ``makers``; then the conformance tests run against it."""
    return request.param(tmp_path)  # type: ignore[no-any-return]  # pytest gives parameters as Any


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(folder: Path) -> Iterator[AuditLog]:
    made = new_log(folder)
    yield made
    made.close()
