"""`secure-embed keys`: which keys a deployment has, without a byte of them; rotating them while the service answers."""

import time
from pathlib import Path
from typing import Any

import click

from secure_embed.cli.client import Client, client_options_beside
from secure_embed.cli.environment import prepare_for_keys
from secure_embed.cli.output import as_json, emit, root_option
from secure_embed.errors import SecureEmbedError

__all__ = ["keys"]


@click.group()
def keys() -> None:
    """Show the state of the keys, and rotate them."""


@keys.command()
@root_option
@as_json
def status(root: Path, json_: bool) -> None:
    """Open the root key and the keyring, and describe them."""
    prepare_for_keys()
    from dataclasses import asdict

    from secure_embed.core import open_keys
    from secure_embed.settings import Settings

    with open_keys(Settings.load(root, dev=True)) as (provider, keyring):
        described = provider.describe()
        data = {**asdict(described), "deployment": str(keyring.deployment_id)}
    lines = [
        f"deployment {data['deployment']}",
        f"root key   {described.key_id}, provider {described.kind}",
        *(f"  {name} = {value}" for name, value in described.parameters.items()),
        *(f"  lacks: {what}" for what in described.lacks),
    ]
    emit(data, json_, lines)


poll_s = 0.5


@keys.command()
@click.option("--to", "kind", required=True, type=click.Choice(["passphrase", "pkcs11", "vault"]))
@root_option
@as_json
def move(root: Path, kind: str, json_: bool) -> None:
    """Put the root key of a stopped service into another provider: every key is wrapped anew, the old root destroyed.

    The settings already have the section of the new provider (docs/key-providers.md).
    """
    prepare_for_keys()
    from secure_embed.core import Core
    from secure_embed.settings import Settings

    with Core(Settings.load(root, dev=True)) as core:
        moved = core.move_root(kind)
    lines = [
        f"the root key is {moved['key_id']}, provider {kind}",
        f'now set provider = "{kind}" under [keys] in {root / "secure-embed.toml"}, then start the service',
    ]
    if not moved["old_root_destroyed"]:
        lines.append("the old root key could not be destroyed; the next start tries again")
    emit(moved, json_, lines)


@keys.command()
@click.option("--root", "kind", flag_value="root", help="The root key: every collection key is wrapped anew.")
@click.option("--log", "kind", flag_value="log", help="The log's signing key; the old key signs the new one in.")
@click.option("--store", "kind", flag_value="store", help="The keys of the three databases.")
@click.option("--collection", "-C", help="A collection's key: its record keys are wrapped anew, the old key destroyed.")
@click.option("--reseal", is_flag=True, help="With --collection: also write every value anew under new record keys.")
@click.option("--records-per-second", type=click.IntRange(1), help="With --reseal: not faster than this.")
@click.option("--no-wait", is_flag=True, help="Return once it has begun.")
@client_options_beside("--deployment")
@as_json
def rotate(
    client: Client,
    kind: str | None,
    collection: str | None,
    reseal: bool,
    records_per_second: int | None,
    no_wait: bool,
    json_: bool,
) -> None:
    """Rotate keys of a running service. It goes on answering meanwhile."""
    if (kind is None) == (collection is None):
        raise click.UsageError("name one of --root, --collection, --log, --store")
    if reseal and collection is None:
        raise click.UsageError("--reseal goes with --collection")
    asked: dict[str, Any] = {"kind": kind or "collection", "reseal": reseal}
    if collection is not None:
        asked["collection"] = collection
    if records_per_second is not None:
        asked["records_per_second"] = records_per_second
    rotation = client.call("POST", "/v1/keys/rotations", asked).value()
    if not no_wait:
        rotation = _ended(client, rotation)
    emit(rotation, json_, [f"rotation {rotation['id']} ({rotation['kind']}): {rotation['state']}"])


def _ended(client: Client, rotation: dict[str, Any]) -> dict[str, Any]:
    """Ask until it is over, showing how far it is. Raises ``SecureEmbedError`` with the code it failed with."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(rotation["kind"], total=rotation["total"] or None)
        while rotation["state"] == "running":
            time.sleep(poll_s)
            rotation = client.call("GET", f"/v1/keys/rotations/{rotation['id']}").value()
            progress.update(bar, completed=rotation["done"])
    if rotation["state"] == "failed":
        raise SecureEmbedError(
            "the rotation failed; nothing is lost, and it can be begun again", code=rotation["error"]
        )
    return rotation
