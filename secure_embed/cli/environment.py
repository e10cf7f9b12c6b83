"""What a command makes of its process before it opens a key: docs/decisions/0015-memory-and-host.md."""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel

    from secure_embed.host import Hardened

__all__ = ["harden_this_process", "variables"]


def harden_this_process(*, anew: bool) -> "Hardened":
    """Harden, and refuse secrets in argv and environment. ``anew``: start again first, with freed memory overwritten.

    Raises ``ConfigurationError`` (``secret_in_environment``).
    """
    from secure_embed import host
    from secure_embed.settings import Settings

    if anew:
        host.overwrite_freed_memory()
    hardened = host.harden()
    host.refuse_secrets(os.environ, sys.argv, known=frozenset(variables(Settings, "SECURE_EMBED_")))
    return hardened


def variables(model: "type[BaseModel]", prefix: str) -> Iterator[str]:
    """Names of the variables that are settings."""
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from variables(part, variable + "__")
