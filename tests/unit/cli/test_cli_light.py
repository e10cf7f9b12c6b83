"""`--help` and every command's help load nothing heavy; each command has `--json` or prints lines of JSON already."""

import subprocess
import sys

import pytest

from secure_embed.cli.main import _COMMANDS

HEAVY = (
    "torch",
    "faiss",
    "fastapi",
    "sentence_transformers",
    "pydantic",
    "numpy",
    "cryptography",
    "cedarpy",
    "httpx",
    "sqlcipher3",
)


def loaded_by(*arguments):
    code = (
        "import sys; sys.argv = ['secure-embed', *sys.argv[1:]]\n"
        "from secure_embed.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout.splitlines()[-1].split()[1:], ran.stdout


def test_help_loads_nothing_heavy():
    heavy, shown = loaded_by("--help")
    assert heavy == []
    assert all(name in shown for name in _COMMANDS)


@pytest.mark.parametrize("name", sorted(set(_COMMANDS) - {"demo"}))
def test_a_commands_help_loads_nothing_heavy(name):
    heavy, _ = loaded_by(name, "--help")
    assert heavy == []


def test_errors_go_to_stderr_with_their_exit_status(tmp_path):
    command = [sys.executable, "-m", "secure_embed.cli", "keys", "status", "--root", str(tmp_path), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (78, "")
    assert '"code": "deployment_missing"' in ran.stderr


def leaves(group, context, path=()):
    import click

    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, context, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_that_prints_data_has_json():
    """All but `serve`, which prints none."""
    import click

    from secure_embed.cli.main import group

    without = [
        name
        for name, command in leaves(group, click.Context(group))
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == ["serve"]
