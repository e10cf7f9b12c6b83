"""`secure-embed doctor`: what a deployment and its host lack."""

import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secure_embed.cli.output import as_json, emit, root_option
from secure_embed.errors import ConfigurationError, SecureEmbedError

if TYPE_CHECKING:
    from secure_embed.settings import Settings

__all__ = ["doctor"]

Finding = tuple[str, str, str]  # level (ok, lacks, wrong), what, how it stands


@click.command()
@root_option
@as_json
def doctor(root: Path, json_: bool) -> None:
    """Check settings, keys, permissions, model files and host. Exits 1 when something is wrong."""
    findings = list(_findings(root))
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
    yield from _permissions(root)
    yield from _keys(settings)
    yield from _model(settings)
    yield from _host()


def _permissions(root: Path) -> Iterator[Finding]:
    open_to_others = [p for p in (root, *root.rglob("*")) if p.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    named = ", ".join(str(p.relative_to(root)) for p in open_to_others[:3])
    yield (
        ("wrong", "permissions", f"others can reach {named}") if open_to_others else ("ok", "permissions", "owner only")
    )


def _keys(settings: "Settings") -> Iterator[Finding]:
    from secure_embed.deployment import open_keys

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


def _host() -> Iterator[Finding]:
    swaps = Path("/proc/swaps").read_text().splitlines()[1:]
    yield ("lacks", "swap", "is on: keys and codes may reach a disk") if swaps else ("ok", "swap", "off")
    core, _ = resource.getrlimit(resource.RLIMIT_CORE)
    yield (
        ("lacks", "core dumps", "are allowed here; the unit in deploy/ forbids them")
        if core
        else ("ok", "core dumps", "off")
    )
