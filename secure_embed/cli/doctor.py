"""`secure-embed doctor`: what a deployment and its host lack."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secure_embed.cli import doctor_host
from secure_embed.cli.doctor_host import Finding
from secure_embed.cli.environment import harden_this_process
from secure_embed.cli.output import as_json, emit, root_option
from secure_embed.errors import ConfigurationError, SecureEmbedError

if TYPE_CHECKING:
    from secure_embed.settings import Settings

__all__ = ["doctor"]


@click.command()
@root_option
@as_json
def doctor(root: Path, json_: bool) -> None:
    """Check settings, keys, permissions, model files and host. Exits 1 when something is wrong."""
    hardened = harden_this_process(anew=True)  # it opens keys, and what took effect is part of the answer
    findings = [*_findings(root), *doctor_host.environment(), *doctor_host.process(hardened), *doctor_host.machine()]
    data = [{"level": level, "check": what, "detail": detail} for level, what, detail in findings]
    emit(data, json_, [f"{level:>5}  {what}: {detail}" for level, what, detail in findings])
    if any(level == "wrong" for level, _, _ in findings):
        raise click.exceptions.Exit(1)


def _findings(root: Path) -> Iterator[Finding]:
    from secure_embed.settings import Settings

    try:
        settings = Settings.load(root, dev=False)
        yield "ok", "settings", "fit for production"
    except ConfigurationError as refused:
        if refused.code != "insecure_setting":
            yield "wrong", "settings", refused.detail
            return
        yield "lacks", "settings", refused.detail
        settings = Settings.load(root, dev=True)
    yield from doctor_host.files(settings)
    yield from _keys(settings)
    yield from _model(settings)


def _keys(settings: "Settings") -> Iterator[Finding]:
    from secure_embed.core import open_keys

    try:
        with open_keys(settings) as (provider, _):
            provider.check()
            described = provider.describe()
    except SecureEmbedError as refused:
        yield "wrong", "keys", f"provider {settings.keys.provider}: {refused.detail} ({refused.code})"
        return
    where = ", ".join(f"{name} {value}" for name, value in described.parameters.items())
    yield "ok", "keys", f"provider {described.kind}, root key {described.key_id}, {where}; it answers"
    for what in described.lacks:
        yield "lacks", "keys", what


def _model(settings: "Settings") -> Iterator[Finding]:
    from secure_embed.deployment import chosen_model
    from secure_embed.embed import verify_model

    try:
        described, folder = chosen_model(settings)
        verify_model(folder, described)
        yield "ok", "model", f"{described.name}, every file as its manifest says"
    except SecureEmbedError as refused:
        yield "wrong", "model", refused.detail
