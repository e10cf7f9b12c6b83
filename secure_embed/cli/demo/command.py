"""`secure-embed demo`: the scenario, told to a person."""

import shutil
import sys
from pathlib import Path

import click

from secure_embed.cli.output import as_json
from secure_embed.errors import ConfigurationError

__all__ = ["demo"]

MARK = ".secure-embed-demo"
columns_without_terminal = 120


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-deployment"),
    show_default=True,
    help="Where the demo's deployment is made; an earlier demo there is replaced.",
)
@as_json
def demo(root: Path, json_: bool) -> None:
    """Show the main job end to end, on real parts: nothing is simulated, nothing leaves this machine."""
    from rich.console import Console

    from secure_embed.cli.demo.scenario import Scenario

    _clear(root)
    root.mkdir(parents=True)
    (root / MARK).touch()
    console = Console(stderr=json_, highlight=False)
    if not console.is_terminal:
        console.width = columns_without_terminal
    scenario = Scenario(root / "deployment", console)
    try:
        rows = scenario.run()
    finally:
        scenario.end()
    if json_:
        import json

        click.echo(json.dumps([{"step": step, "what": what, "ok": ok} for step, what, ok in rows], indent=2))
    if not all(ok for _, _, ok in rows):
        sys.exit(1)


def _clear(root: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    if not root.exists():
        return
    if any(root.iterdir()) and not (root / MARK).is_file():
        raise ConfigurationError(f"{root} is there and is no earlier demo", code="deployment_exists")
    shutil.rmtree(root)
