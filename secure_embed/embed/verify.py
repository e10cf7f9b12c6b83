"""A model's files are what its manifest says, or nothing is loaded.

``verified_copy`` hashes the very bytes that it writes into a private folder, and only the named files get there: what
lies beside them cannot take part, and what changes in the original folder after it was read changes nothing. The
weights stay mapped from the copy while the encoder lives (transformers maps them), so links would not do.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_embed.embed.model_manifest import FileDigest, ModelManifest
from secure_embed.errors import ConfigurationError, IntegrityFailure

__all__ = ["measure_file", "verified_copy", "verify_model"]

Sink = Callable[[memoryview], object]

_CHUNK_BYTES = 1024 * 1024
_SPARE_BYTES = 16 * 1024 * 1024


def verify_model(folder: Path, manifest: ModelManifest) -> None:
    """Read every named file once, in bounded memory.

    Raises ``IntegrityFailure``: ``model_file_missing`` or ``model_digest_mismatch``, naming the file.
    """
    for path, expected in manifest.files.items():
        _read(folder, path, expected, _drop)


@contextmanager
def verified_copy(folder: Path, manifest: ModelManifest, *, scratch: Path | None = None) -> Iterator[Path]:
    """A private folder (0700, below ``scratch`` or the system's temporary folder) with the named files and no others.

    The folder goes when the block ends; on POSIX, mappings of its files stay valid. Raises what ``verify_model``
    raises, and ``ConfigurationError`` (``scratch_space_missing``) when the copy does not fit.
    """
    parent = scratch or Path(tempfile.gettempdir())
    needed = sum(f.length for f in manifest.files.values()) + _SPARE_BYTES
    if shutil.disk_usage(parent).free < needed:
        raise ConfigurationError(
            f"the temporary folder needs {needed} free bytes to load the model; TMPDIR names another",
            code="scratch_space_missing",
        )
    with tempfile.TemporaryDirectory(prefix="secure-embed-model-", dir=parent) as name:
        private = Path(name)
        for path, expected in manifest.files.items():
            target = private / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with target.open("xb") as file:
                _read(folder, path, expected, file.write)
            target.chmod(0o400)
        yield private


def measure_file(folder: Path, path: str) -> FileDigest:
    """Length and SHA-256 of a file, for a new manifest. Raises ``IntegrityFailure`` (``model_file_missing``)."""
    with _open(folder, path) as descriptor:
        length, sha256 = _hash(descriptor, os.fstat(descriptor).st_size, _drop)
    return FileDigest(length=length, sha256=sha256)


def _read(folder: Path, path: str, expected: FileDigest, sink: Sink) -> None:
    with _open(folder, path) as descriptor:
        # The length first: no time is spent on a file that cannot match.
        if os.fstat(descriptor).st_size != expected.length:
            raise _mismatch(path)
        length, sha256 = _hash(descriptor, expected.length, sink)
    if (length, sha256) != (expected.length, expected.sha256):
        raise _mismatch(path)


@contextmanager
def _open(folder: Path, path: str) -> Iterator[int]:
    try:
        descriptor = os.open(folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang us
    except OSError:
        raise _missing(path) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _missing(path)
        yield descriptor
    finally:
        os.close(descriptor)


def _hash(descriptor: int, length: int, sink: Sink) -> tuple[int, str]:
    """Pass at most ``length`` bytes, and one more where the file has grown, to the hash and the sink."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    done = 0
    while done <= length:
        count = os.readv(descriptor, [buffer[: min(_CHUNK_BYTES, length + 1 - done)]])
        if count == 0:
            break
        digest.update(buffer[:count])
        sink(buffer[:count])
        done += count
    return done, digest.hexdigest()


def _drop(_: memoryview) -> None:
    return None


def _missing(path: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"the model's file {path} is missing or cannot be read", code="model_file_missing", members={"file": path}
    )


def _mismatch(path: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"the model's file {path} is not what its manifest says", code="model_digest_mismatch", members={"file": path}
    )
