"""Compiles secure_embed/bulk when the package is built or installed from its sources (hatchling's build hook).

It needs a C compiler and OpenSSL's headers (Debian: gcc, libssl-dev), and runs with libcrypto, which Python has anyway.
Without them the package is built without it, and says so, unless SECURE_EMBED_REQUIRE_COMPILED is set.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

room = Path("secure_embed/bulk")
flags = ["-O3", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
link_flags = ["-Wl,-z,relro,-z,now"]


class CompiledBulk(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """``version``: "editable" leaves the library beside its source, where Python looks for it then."""
        with tempfile.TemporaryDirectory() as made:
            try:
                library = self._compiled(Path(made))
            except Exception as fault:
                if os.environ.get("SECURE_EMBED_REQUIRE_COMPILED"):
                    raise
                print(f"secure_embed.bulk was not compiled, vectors open more slowly: {fault}", file=sys.stderr)
                return
            kept = Path(self.root) / (room if version == "editable" else "build") / library.name
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(library, kept)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(kept)] = str(room / library.name)

    def _compiled(self, folder: Path) -> Path:
        from cffi import FFI

        source = Path(self.root) / room
        ffi = FFI()
        ffi.cdef((source / "bulk.h").read_text(encoding="utf-8"))
        ffi.set_source(
            "_bulk",
            '#include "bulk.h"',
            sources=[str(part) for part in sorted(source.glob("*.c"))],
            include_dirs=[str(source)],
            libraries=["crypto"],
            extra_compile_args=flags,
            extra_link_args=link_flags,
        )
        return Path(ffi.compile(tmpdir=str(folder)))
