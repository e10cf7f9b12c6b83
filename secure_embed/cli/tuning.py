"""`secure-embed collection tune`: how far searches of a collection have to go, measured by the running service."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from secure_embed.cli.client import Client, client_options
from secure_embed.cli.output import as_json
from secure_embed.errors import InvalidRequest, SecureEmbedError

__all__ = ["tune"]

poll_s = 1.0
texts_max = 200


@click.command("tune")
@click.argument("name")
@click.option("--target", default=0.99, show_default=True, help="Recall against exact search, 0.5 to 0.999.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 100), help="How many hits are compared.")
@click.option(
    "--queries",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts that are searched with as well, one on each line, 20 to 200. They are not kept.",
)
@click.option("--bits", type=click.IntRange(1, 4), help="Measure codes of so many bits a dimension.")
@click.option(
    "--filtered/--unfiltered",
    default=True,
    show_default=True,
    help="Whether the target has to be met behind a filter that leaves a tenth, too.",
)
@click.option("--apply/--dry-run", default=False, show_default=True, help="Queries use what is chosen from then on.")
@client_options
@as_json
def tune(
    client: Client,
    name: str,
    target: float,
    k: int,
    file: Path | None,
    bits: int | None,
    filtered: bool,
    apply: bool,
    json_: bool,
) -> None:
    """Measure which effort searches of a collection need, and with --apply keep it. Opens every vector of it."""
    asked: dict[str, Any] = {"target": target, "k": k, "filtered": filtered, "apply": apply}
    if file is not None:
        asked["queries"] = _texts(file)
    if bits is not None:
        asked["bits"] = bits
    path = f"/v1/collections/{quote(name, safe='')}/tunings"
    tuning = _ended(client, path, client.call("POST", path, asked).value())
    if json_:
        import json

        click.echo(json.dumps(tuning, indent=2))
        return
    _show_table(tuning)
    for line in _said(tuning):
        click.echo(line)


def _texts(file: Path) -> list[str]:
    try:
        texts = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InvalidRequest("the file of queries is not UTF-8", code="text_invalid") from None
    if len(texts) > texts_max:
        raise InvalidRequest(f"the file has more than {texts_max} queries", code="tuning_invalid")
    return texts


def _ended(client: Client, path: str, tuning: dict[str, Any]) -> dict[str, Any]:
    """Ask until it is over, showing how far it is. Raises ``SecureEmbedError`` with the code it failed with."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("opening and measuring", total=tuning["total"] or None)
        while tuning["state"] == "running":
            time.sleep(poll_s)
            tuning = client.call("GET", f"{path}/{tuning['id']}").value()
            progress.update(bar, completed=tuning["done"], total=tuning["total"] or None)
    if tuning["state"] == "failed":
        raise SecureEmbedError(
            "the tuning failed; `collection show` says what is in force, and it can be begun again",
            code=tuning["error"],
        )
    return tuning


def _show_table(tuning: dict[str, Any]) -> None:
    """For people, on stderr; what was chosen is on stdout."""
    from rich.console import Console
    from rich.table import Table

    report = tuning["report"]
    table = Table("candidates", "lists", "margin", f"recall@{tuning['k']}", "at least", "opened", "codes", "")
    table.box, table.padding = None, (0, 1, 0, 0)  # eighty columns are enough
    others = [
        (title, name)
        for title, name in (("filtered", "recall_filtered"), ("queries", "recall_queries"))
        if any(each[name] is not None for each in report["measured"])
    ]
    for title, _ in others:
        table.add_column(title)
    for each in report["measured"]:
        effort = each["effort"]
        mark = "chosen" if _same(each, report["chosen"]) else "in force" if _same(each, report["before"]) else ""
        cells = [
            str(effort["candidates"]),
            "all" if effort["all_lists"] else str(effort["lists"] or "1/8"),
            f"{effort['margin']:g}",
            f"{each['recall']:.3f}",
            f"{each['recall_low']:.3f}",
            str(each["openings"]),
            str(each["codes"]),
            mark or ("" if each["meets"] else "-"),
        ]
        table.add_row(*cells, *("" if each[name] is None else f"{each[name]:.3f}" for _, name in others))
    Console(stderr=True).print(table)


def _same(one: dict[str, Any], other: dict[str, Any] | None) -> bool:
    return other is not None and one["effort"] == other["effort"]


def _lists(effort: dict[str, Any], lists: int) -> str:
    if effort["all_lists"]:
        return f"all {lists}"
    return "an eighth" if effort["lists"] is None else f"{effort['lists']} of {lists}"


def _said(tuning: dict[str, Any]) -> list[str]:
    report, name = tuning["report"], tuning["collection"]
    chosen = report["chosen"]
    if chosen is None:
        more = report["bits_recommended"]
        hint = f"; try --bits {more}" if more else ""
        return [f"{name}: no effort meets {tuning['target']:g} with {tuning['bits']} bits a dimension{hint}"]
    lines = [
        (
            f"{name}: {chosen['effort']['candidates']} candidates, lists {_lists(chosen['effort'], report['lists'])}, "
            f"margin {chosen['effort']['margin']:g}, {tuning['bits']} bits: recall {chosen['recall']:.3f}, "
            f"{chosen['openings']} vectors opened a query ({report['before']['openings']} before)"
        )
    ]
    if chosen["recall_filtered"] is not None:
        lines.append(
            f"behind a filter that leaves a tenth: recall {chosen['recall_filtered']:.3f}, "
            f"{chosen['openings_filtered']} vectors opened a query"
        )
    lines.append("queries use it from now on" if tuning["applied"] else "nothing was changed; --apply keeps it")
    return lines
