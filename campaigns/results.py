"""A campaign's result as a file: what was run, on what, and what came of it."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

__all__ = ["write"]

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("secure-embed", "sqlcipher3", "faiss-cpu", "cryptography", "uvicorn", "httpx", "numpy")


def write(path: Path, result: Mapping[str, object]) -> None:
    """Adds when, where and with which versions; replaces ``path``."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    whole = {
        **result,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "versions": {
            "commit": commit.stdout.strip() or "?",
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n")
