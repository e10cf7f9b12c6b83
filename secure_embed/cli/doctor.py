"""`secure-embed doctor`: what a deployment and its host lack."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secure_embed.cli import doctor_host
from secure_embed.cli.doctor_host import Finding
from secure_embed.cli.environment import harden_this_process
from secure_embed.cli.output import as_json, emit, root_option
from secure_embed.errors import ConfigurationError, SecureEmbedError

if TYPE_CHECKING:
    from secure_embed.settings import Settings

__all__ = ["doctor"]

health_timeout_s, health_bytes_max = 3.0, 65_536


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
    yield from _memory(settings)


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


def _memory(settings: "Settings") -> Iterator[Finding]:
    """The budget, and what the running service says about the collections: doctor itself opens no database."""
    from secure_embed.core import budget_bytes
    from secure_embed.host import memory_bytes

    budget, machine = budget_bytes(settings) >> 20, memory_bytes() >> 20
    share = "index.memory_mib_max" if settings.index.memory_mib_max else "half of it; index.memory_mib_max sets another"
    what = f"collections may take {budget} MiB of {machine} MiB ({share})"
    if budget > machine:
        yield "wrong", "memory", f"{what}: more than there is"
        return
    said = _said_by_service(settings.server.health_port)
    if said is None:
        yield "ok", "memory", f"{what}; whether they fit is what the running service says, and it does not answer"
        return
    memory, warming = said["memory"], said["warming"]
    fit = f"all in memory would take {memory['needed_mib']} MiB, the largest {memory['largest_mib']}"
    if memory["largest_mib"] > budget:
        yield "wrong", "memory", f"{what}; {fit}: that one is refused (collection_over_budget)"
    elif memory["needed_mib"] > budget:
        yield "lacks", "memory", f"{what}; {fit}: they take turns, and the one used longest ago goes"
    else:
        yield "ok", "memory", f"{what}; {fit}"
    if missed := warming["unknown"] + warming["refused"]:
        yield "lacks", "warm-up", f"{missed} of {warming['named']} in index.warm_up are not there or did not fit"


def _said_by_service(port: int) -> dict[str, Any] | None:
    import http.client
    import json

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=health_timeout_s)
    try:
        connection.request("GET", "/readyz")
        said = json.loads(connection.getresponse().read(health_bytes_max))
        return said if {"memory", "warming"} <= said.keys() else None
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return None
    finally:
        connection.close()
