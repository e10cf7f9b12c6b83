"""`secure-embed keys`: which keys a deployment has, without a byte of them. Rotation comes with a later version."""

from pathlib import Path

import click

from secure_embed.cli.output import as_json, emit, root_option

__all__ = ["keys"]


@click.group()
def keys() -> None:
    """Show the state of the keys."""


@keys.command()
@root_option
@as_json
def status(root: Path, json_: bool) -> None:
    """Open the root key and the keyring, and describe them."""
    from dataclasses import asdict

    from secure_embed.deployment import open_keys
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
