"""What a command prints: data on stdout, one line of error on stderr, JSON for both when `--json` is given."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from secure_embed.errors import SecureEmbedError

__all__ = ["as_json", "deployment_option", "emit", "fail", "root_option"]

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON.")


def root_option(function: F) -> F:
    return deployment_option("--root")(function)


def deployment_option(name: str) -> Callable[[F], F]:
    """The deployment's folder, as ``root``. ``--root`` but where a command means something else by that."""
    return click.option(
        name,
        "root",
        envvar="SECURE_EMBED_ROOT",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("secure-embed-deployment"),
        show_default=True,
        help="The deployment's folder.",
    )


def emit(data: Any, json_: bool, lines: Iterable[str]) -> None:
    """``data`` as JSON, or ``lines`` for people."""
    if json_:
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)


def fail(error: SecureEmbedError, *, as_json: bool) -> int:
    """Print the error where people look for it; gives the exit status of its kind."""
    if as_json:
        click.echo(json.dumps({"error": {"code": error.code, "detail": error.detail, **error.members}}), err=True)
    else:
        click.echo(f"secure-embed: {error.detail} [{error.code}]", err=True)
    return error.exit_status
