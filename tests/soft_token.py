"""A real SoftHSM2 token in a folder of the test run. Not a mock: the library that the service would load.

The library is one state for the whole process and reads its configuration when it is initialised, so all tests of a run share
one folder of tokens, and each test takes a token of its own in it.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
REQUIRED = "SECURE_EMBED_TEST_SOFTHSM_REQUIRED"
PIN = "471147114711"


def library() -> Path:
    """Skips where SoftHSM2 is not installed, unless this run has to have it (CI)."""
    found = [Path(path) for path in LIBRARIES if Path(path).exists()]
    if found and shutil.which("softhsm2-util"):
        return found[0]
    if os.environ.get(REQUIRED):
        pytest.fail("SoftHSM2 is not installed, and this run has to have it")
    pytest.skip("SoftHSM2 is not installed (Debian: apt-get install softhsm2)")


class SoftTokens:
    """The folder of tokens, which can be taken away and put back while the library is loaded."""

    def __init__(self) -> None:
        self.library = library()
        self.folder = Path(tempfile.mkdtemp(prefix="soft-tokens-"))
        self.tokens = self.folder / "tokens"
        self.tokens.mkdir()
        configuration = self.folder / "softhsm2.conf"
        configuration.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        os.environ["SOFTHSM2_CONF"] = str(configuration)

    def make(self) -> str:
        """A new token; returns its label."""
        label = f"test-{secrets.token_hex(4)}"
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678"]
        subprocess.run(command, check=True, capture_output=True)
        return label

    def take_away(self) -> None:
        self.tokens.rename(self.folder / "away")
        self.tokens.mkdir()

    def put_back(self) -> None:
        if (self.folder / "away").exists():
            shutil.rmtree(self.tokens)
            (self.folder / "away").rename(self.tokens)

    def remove(self) -> None:
        shutil.rmtree(self.folder)
