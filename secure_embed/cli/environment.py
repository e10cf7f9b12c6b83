"""What a command makes of its process before it opens a key: docs/decisions/0015-memory-and-host.md."""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from secure_embed.host import Hardened

__all__ = ["harden_this_process", "prepare_for_keys", "refuse_secrets_here"]


def harden_this_process(*, anew: bool) -> "Hardened":
    """Harden for good. ``anew``: first start this process again, so that freed memory is overwritten from here on."""
    from secure_embed import host

    if anew:
        host.overwrite_freed_memory()
    return host.harden()


def prepare_for_keys() -> None:
    """First thing of a command that opens keys in its own process: harden it, say what the host does not give, refuse
    secrets where others can read them. May start the process anew."""
    if lacking := harden_this_process(anew=True).lacking:
        click.echo(f"secure-embed: this host does not give: {', '.join(lacking)} (docs/operations.md)", err=True)
    refuse_secrets_here()


def refuse_secrets_here() -> None:
    """Raises ``ConfigurationError`` (``secret_in_environment``) for one in argv or in our part of the environment."""
    from secure_embed.host import refuse_secrets
    from secure_embed.settings import Settings

    refuse_secrets(os.environ, sys.argv, known=frozenset(_variables(Settings, "SECURE_EMBED_")))


def _variables(model: "type[BaseModel]", prefix: str) -> Iterator[str]:
    """Names of the variables that are settings."""
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _variables(part, variable + "__")
