"""`secure-embed backup` and `restore`: copies of a deployment, taken from the running service, put back into an empty place."""

from pathlib import Path

import click

from secure_embed.cli.client import Client, client_options
from secure_embed.cli.environment import prepare_for_keys
from secure_embed.cli.output import as_json, emit, root_option

__all__ = ["backup", "restore"]

_folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--to", required=True, type=_folder, help="Below a folder that the setting backup.folders names.")
@click.option("--keys-to", type=_folder, help="Where the keys' part goes; default: beside the data.")
@client_options
@as_json
def backup(client: Client, to: Path, keys_to: Path | None, json_: bool) -> None:
    """Take a backup of a running service, and open all of it again before it counts."""
    asked = {"to": str(to.absolute())} | ({} if keys_to is None else {"keys_to": str(keys_to.absolute())})
    taken = client.call("POST", "/v1/backups", asked, timeout_s=None).value()
    lines = [
        f"{taken['records']} records opened again in the copy",
        f"{taken['bytes_copied']:,} bytes copied, {taken['bytes_linked']:,} unchanged",
        f"data  {taken['data']}",
        f"keys  {taken['keys']}   (keep these apart, and for a shorter time)",
    ]
    emit(taken, json_, lines)


@click.command()
@click.option("--from", "data", type=_folder, help="A backup's data part.")
@click.option("--keys-from", "keys", type=_folder, help="A backup's keys part, or the keys folder of today.")
@click.option("--passphrase-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The root's.")
@click.option("--acknowledge-rollback", is_flag=True, help="An older state was put back on purpose: write that down.")
@root_option
@as_json
def restore(
    root: Path,
    data: Path | None,
    keys: Path | None,
    passphrase_file: Path | None,
    acknowledge_rollback: bool,
    json_: bool,
) -> None:
    """Put a backup in place at --root, which must be empty; or acknowledge that an older state is there."""
    from secure_embed import restoring
    from secure_embed.settings import Settings

    if acknowledge_rollback:
        if data is not None or keys is not None:
            raise click.UsageError("--acknowledge-rollback is about a deployment that is there already")
        prepare_for_keys()
        found = restoring.acknowledge_rollback(Settings.load(root, dev=True))
        emit(
            {"acknowledged": found},
            json_,
            [f"written into the log: {found}" if found else "nothing is older than it should be"],
        )
        return
    if data is None or keys is None:
        raise click.UsageError("name both parts: --from and --keys-from")
    prepare_for_keys()
    done = restoring.restore(data, keys, root, passphrase_file=passphrase_file)
    lines = [
        f"backup {done.backup} of {done.taken} is in place at {root}: {done.records} records open",
        "its tls/ folder is empty: put the certificate and key there, then start the service",
    ]
    emit({"backup": done.backup, "taken": done.taken, "records": done.records, "log_size": done.log_size}, json_, lines)
