"""`secure-embed hold`: legal holds, which keep erasures and retention dates off what they name."""

from typing import Any
from urllib.parse import quote

import click

from secure_embed.cli.client import Client, client_options
from secure_embed.cli.output import as_json, emit

__all__ = ["hold"]


@click.group()
def hold() -> None:
    """Place, list and release legal holds."""


@hold.command("place")
@click.option("--subject", help="A data subject, in every collection.")
@click.option("--record", nargs=2, metavar="COLLECTION ID", help="One record.")
@click.option("--reason", required=True, help="Shown to who lists holds, and to whose erasure it refuses.")
@client_options
@as_json
def place(client: Client, subject: str | None, record: tuple[str, str] | None, reason: str, json_: bool) -> None:
    """Hold a data subject or one record: from then on nothing ends it."""
    if (subject is None) == (record is None):
        raise click.UsageError("name --subject or --record")
    what = {"subject": subject} if record is None else {"collection": record[0], "record": record[1]}
    placed = client.call("POST", "/v1/holds", what | {"reason": reason}).value()
    emit(placed, json_, [f"hold {placed['id']} placed; it holds {placed['records']} records now"])


@hold.command("release")
@click.argument("identifier")
@client_options
@as_json
def release(client: Client, identifier: str, json_: bool) -> None:
    """Release the hold with this id."""
    released = client.call("DELETE", f"/v1/holds/{quote(identifier, safe='')}").value()
    emit(released, json_, [f"hold {released['id']} released"])


@hold.command("list")
@client_options
@as_json
def list_holds(client: Client, json_: bool) -> None:
    """List the holds in force, the oldest first."""
    listed = client.call("GET", "/v1/holds").value()
    emit(listed, json_, [_line(each) for each in listed["holds"]])


def _line(each: dict[str, Any]) -> str:
    what = f"record {each['record']} of {each['collection']}" if each["record"] else f"subject {each['subject']}"
    return f"{each['id']}  {each['placed_at']}  {what}  ({each['placed_by']}): {each['reason']}"
