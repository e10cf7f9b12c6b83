"""What is loaded is what the manifest names, byte for byte, whatever happens to the folder meanwhile."""

import hashlib
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from secure_embed.embed import FileDigest, ModelManifest, verify_model
from secure_embed.embed.verify import measure_file, verified_copy
from secure_embed.errors import ConfigurationError, IntegrityFailure

CONTENT = {"config.json": b"{}", "1_Pooling/config.json": b"[1]", "model.safetensors": bytes(range(256)) * 8192}


def listing(content: dict[str, bytes]) -> ModelManifest:
    files = {p: FileDigest(length=len(raw), sha256=hashlib.sha256(raw).hexdigest()) for p, raw in content.items()}
    return ModelManifest(
        name="own", source="x", revision="1", licence="MIT", dimension=8, tokens_max=16, pooling="cls", files=files
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, raw in CONTENT.items():
        (tmp_path / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / path).write_bytes(raw)
    return tmp_path / "model"


def test_right_files_pass(folder: Path) -> None:
    verify_model(folder, listing(CONTENT))


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("path", sorted(CONTENT))
@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (_flip, "model_digest_mismatch"),
        (_grow, "model_digest_mismatch"),
        (_cut, "model_digest_mismatch"),
        (Path.unlink, "model_file_missing"),
        (_folder, "model_file_missing"),
        (_fifo, "model_file_missing"),
        (_loop, "model_file_missing"),
    ],
)
def test_the_harmed_file_is_named(folder: Path, path: str, harm: Callable[[Path], None], code: str) -> None:
    harm(folder / path)
    with pytest.raises(IntegrityFailure) as caught:
        verify_model(folder, listing(CONTENT))
    assert (caught.value.code, caught.value.members) == (code, {"file": path})
    with pytest.raises(IntegrityFailure) as caught, verified_copy(folder, listing(CONTENT)):
        pytest.fail("nothing may be used")
    assert caught.value.code == code


def test_a_missing_folder_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        verify_model(tmp_path / "nowhere", listing(CONTENT))
    assert caught.value.code == "model_file_missing"


def test_links_are_fine_because_content_decides(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").rename(tmp_path / "elsewhere")
    (folder / "config.json").symlink_to(tmp_path / "elsewhere")
    verify_model(folder, listing(CONTENT))


def test_only_named_files_get_into_the_copy(folder: Path, tmp_path: Path) -> None:
    for extra in ("pytorch_model.bin", "modeling.py", "adapter_config.json", "1_Pooling/x.json"):
        (folder / extra).write_bytes(b"harm")
    with verified_copy(folder, listing(CONTENT), scratch=tmp_path) as private:
        found = {p.relative_to(private).as_posix(): p.read_bytes() for p in private.rglob("*") if p.is_file()}
        assert found == CONTENT
        assert private.stat().st_mode & 0o077 == 0
        assert not any(p.is_symlink() for p in private.rglob("*"))
    assert not private.exists()


def test_a_change_after_the_check_does_not_reach_the_copy(folder: Path) -> None:
    """Written in place, so that a link to the original would show it."""
    with verified_copy(folder, listing(CONTENT)) as private:
        with (folder / "model.safetensors").open("r+b") as file:
            file.write(b"harm")
        assert (private / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]


def test_the_copy_goes_when_loading_fails(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(ValueError, match="loading failed"), verified_copy(folder, listing(CONTENT), scratch=scratch):
        raise ValueError("loading failed")
    assert list(scratch.iterdir()) == []


def test_a_copy_that_does_not_fit_is_refused_before_it_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1024))
    with pytest.raises(ConfigurationError) as caught, verified_copy(folder, listing(CONTENT)):
        pytest.fail("it cannot fit")
    assert caught.value.code == "scratch_space_missing"


def test_large_files_are_read_in_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    tracemalloc.start()
    measured = measure_file(tmp_path, "model.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert measured.length == 64 * 1024 * 1024
    assert peak < 4 * 1024 * 1024


def test_a_file_measures_as_it_verifies(folder: Path) -> None:
    assert {p: measure_file(folder, p) for p in CONTENT} == listing(CONTENT).files
