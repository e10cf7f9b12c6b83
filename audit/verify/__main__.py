"""Runs as ``python audit/verify``, as ``python -m audit.verify`` and from a copy of this folder under another name."""

import importlib
import sys
from pathlib import Path

if __package__:
    package = __package__
else:
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here.parent))
    package = here.name

if __name__ == "__main__":
    sys.exit(importlib.import_module(f"{package}.cli").main(sys.argv[1:]))
