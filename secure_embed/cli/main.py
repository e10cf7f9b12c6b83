"""The command's tree. Each command's module is imported when the command is called, so that `--help` is quick."""

import importlib
import sys
from typing import NoReturn

import click

from secure_embed import __version__
from secure_embed.cli.output import fail
from secure_embed.errors import SecureEmbedError

__all__ = ["main"]

# name -> (module, attribute, one line of help)
_COMMANDS = {
    "demo": (
        "secure_embed.cli.demo.command",
        "demo",
        "The main job end to end, on real parts, in a folder of its own.",
    ),
    "init": ("secure_embed.cli.init", "init", "Make a deployment: keys, databases, log, policies, settings."),
    "serve": ("secure_embed.cli.serve", "serve", "Run the service over TLS."),
    "token": ("secure_embed.cli.token", "token", "Mint a token from the development issuer (with --dev only)."),
    "collection": ("secure_embed.cli.records", "collection", "Create, list, show and tune collections."),
    "ingest": ("secure_embed.cli.records", "ingest", "Ingest records from a JSON-lines file."),
    "query": ("secure_embed.cli.records", "query", "Search a collection with a text."),
    "erase": ("secure_embed.cli.erase", "erase", "Erase a subject, a record or a collection; show an erasure."),
    "hold": ("secure_embed.cli.holds", "hold", "Place, list and release legal holds."),
    "keys": ("secure_embed.cli.keys", "keys", "Show the state of the keys, and rotate them."),
    "backup": ("secure_embed.cli.backup", "backup", "Take a backup of a running service, and open it again."),
    "restore": ("secure_embed.cli.backup", "restore", "Put a backup in place, or acknowledge an older state."),
    "models": ("secure_embed.cli.models", "models", "List the models, and verify one's files by digest."),
    "audit": ("secure_embed.cli.audit", "audit", "Verify, show and export the audit log of a stopped service."),
    "doctor": ("secure_embed.cli.doctor", "doctor", "Check a deployment and its host, and say what is lacking."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="secure-embed")
def group() -> None:
    """secure_embed: an on-premises embedding store for regulated workloads."""


def main() -> NoReturn:
    """Run the command; our errors become one line for people (or JSON) and the exit status of their kind."""
    try:
        code = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(2)
    except SecureEmbedError as error:
        sys.exit(fail(error, as_json="--json" in sys.argv))
    sys.exit(code if isinstance(code, int) else 0)
