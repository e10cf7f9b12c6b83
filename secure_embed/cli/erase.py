"""`secure-embed erase`: a data subject, one record, a whole collection; and what became of an erasure."""

from typing import Any
from urllib.parse import quote

import click

from secure_embed.cli.client import Client, Reply, client_options
from secure_embed.cli.output import as_json, emit

__all__ = ["erase"]


@click.command()
@click.option("--subject", help="The data subject whose records end.")
@click.option("--record", nargs=2, metavar="COLLECTION ID", help="One record.")
@click.option("--collection", "-C", "names", multiple=True, help="The whole collection; with --subject: only there.")
@click.option("--status", help="Show what became of an erasure, by its id.")
@click.option("--reason", help="Stands in the receipt: a-z, 0-9, '_', '.' and '-'.")
@click.option("--yes", is_flag=True, help="Erase a whole collection without being asked again.")
@client_options
@as_json
def erase(
    client: Client,
    subject: str | None,
    record: tuple[str, str] | None,
    names: tuple[str, ...],
    status: str | None,
    reason: str | None,
    yes: bool,
    json_: bool,
) -> None:
    """Erase a data subject's records, one record or a whole collection, and print the signed receipt."""
    whole = subject is None and len(names) == 1
    if [subject is not None, record is not None, whole, status is not None].count(True) != 1 or (
        (record or status) and names
    ):
        raise click.UsageError("name one of --subject, --record, --collection and --status")
    if whole and not yes:
        raise click.UsageError("--collection alone erases the collection and everything in it; say --yes")
    why = {} if reason is None else {"reason": reason}
    if status is not None:
        reply = client.call("GET", f"/v1/erasures/{quote(status, safe='')}")
    elif subject is not None:
        reply = client.call(
            "POST", "/v1/erasures", {"subject": subject} | why | ({"collections": list(names)} if names else {})
        )
    else:
        path = f"/v1/collections/{quote(record[0] if record else names[0], safe='')}"
        path += f"/records/{quote(record[1], safe='')}" if record else ""
        reply = client.call("DELETE", f"{path}?reason={quote(reason, safe='')}" if reason else path)
    _show(reply, json_)


def _show(reply: Reply, json_: bool) -> None:
    if reply.status == 409 and not json_ and reply.body.get("code") == "legal_hold":
        click.echo(f"hold {reply.body['hold']}: {reply.body['reason']}", err=True)
    erased: dict[str, Any] = reply.value()
    lines = [f"{erased['records']} records erased; erasure {erased['id']}: {erased['state']}"]
    if erased["note"]:
        lines += ["", erased["note"]]
    else:
        lines.append("its receipt is signed when the old key version is destroyed; ask with --status")
    emit(erased, json_, lines)
