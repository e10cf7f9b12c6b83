"""The room's door: sorted names, and nothing heavy behind it until it is used."""

import subprocess
import sys

import secure_embed.access as access


def test_exported_names_are_sorted_and_there() -> None:
    assert access.__all__ == sorted(access.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(access, name) for name in access.__all__)


def test_importing_the_room_loads_no_heavy_library() -> None:
    code = "import sys, secure_embed.access; print(sorted({'cedarpy', 'joserfc', 'httpx'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
