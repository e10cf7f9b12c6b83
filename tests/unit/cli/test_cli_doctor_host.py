"""`doctor` on files, process and host; and what `serve` and every command do not take: a secret in argv."""

import json
import os
import resource
import subprocess
import sys

import click
import pytest

from secure_embed.cli.main import group


def doctor(root, status, before=None, **environment):
    ran = subprocess.run(
        [sys.executable, "-m", "secure_embed.cli", "doctor", "--root", str(root), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
        preexec_fn=before,
    )
    assert ran.returncode == status, ran.stderr
    return {finding["check"]: finding for finding in json.loads(ran.stdout)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from secure_embed.founding import create

    root = tmp_path_factory.mktemp("doctor") / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    return root


def test_every_line_of_the_host_is_there_and_nothing_is_wrong(made):
    found = doctor(made, 0)
    host = {"permissions", "environment", "core dumps", "dumpable", "new privileges", "freed memory"}
    assert host | {"swap", "memory lock", "clock"} <= set(found)
    assert {found[check]["level"] for check in host} == {"ok"}


def test_a_small_lock_limit_is_said(made):
    def lower():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (4_096, 4_096))

    found = doctor(made, 0, before=lower)
    assert found["memory lock"]["level"] == "lacks"
    assert "up to 4 KiB" in found["memory lock"]["detail"]


def test_an_allocator_that_was_chosen_otherwise_is_said(made):
    found = doctor(made, 0, PYTHONMALLOC="pymalloc")
    assert found["freed memory"]["level"] == "lacks"


def test_every_open_file_counts_and_three_are_named(made):
    folders = ["keys", "data", "log", "tls", "policies"]
    for name in folders:
        (made / name).chmod(0o755)
    try:
        found = doctor(made, 1)
    finally:
        for name in folders:
            (made / name).chmod(0o700)
    assert found["permissions"]["level"] == "wrong"
    assert "and 2 more" in found["permissions"]["detail"]


def test_a_secret_in_the_environment_is_wrong_and_not_shown(made):
    found = doctor(made, 1, SECURE_EMBED_PASSPHRASE="correct horse battery staple")
    assert found["environment"]["level"] == "wrong"
    assert "SECURE_EMBED_PASSPHRASE" in found["environment"]["detail"]
    assert "horse" not in json.dumps(found)


@pytest.mark.parametrize(
    ("change", "environment", "code"),
    [
        (lambda root: (root / "data").chmod(0o750), {}, "file_permissions"),
        (lambda root: None, {"SECURE_EMBED_ROOT_KEY": "x"}, "secret_in_environment"),
    ],
    ids=["open folder", "secret"],
)
def test_serve_does_not_start(tmp_path, change, environment, code):
    from secure_embed.founding import create

    root = tmp_path / "deployment"
    create(root, dev=True, model="all-minilm-l6-v2")
    change(root)
    ran = subprocess.run(
        [sys.executable, "-m", "secure_embed.cli", "serve", "--root", str(root), "--dev"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
    )
    assert ran.returncode == 78
    assert code in ran.stderr


def options(command, path=()):
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from options(command.get_command(context, name), (*path, name))
        return
    for parameter in command.params:
        yield " ".join((*path, parameter.name)), parameter


def test_no_option_takes_a_secret_itself():
    """A secret in argv stands in /proc/PID/cmdline, in shell histories and in process lists."""
    named_so = {
        name: parameter
        for name, parameter in options(group)
        if any(word in parameter.name for word in ("pass", "secret", "token", "pin", "credential", "password"))
        and not parameter.name.startswith(("spin", "pinned"))
    }
    assert named_so  # --token-file and --passphrase-file at least
    takes = {name for name, parameter in named_so.items() if not isinstance(parameter.type, (click.File, click.Path))}
    assert takes <= {"init token_label"}  # a token's name (PKCS#11), not what opens it


LOOK = """
import ctypes, resource, sys
from secure_embed import core, founding, restoring
from secure_embed.cli.main import group
from secure_embed.host import freed_memory_is_overwritten

def look(*_, **__):
    cores = resource.getrlimit(resource.RLIMIT_CORE)
    print(cores, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), freed_memory_is_overwritten())
    raise SystemExit(0)

core.open_keys = core.Core = founding.create = restoring.restore = restoring.acknowledge_rollback = look
group(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command",
    [
        ["keys", "status"],
        ["keys", "move", "--to", "passphrase"],
        ["restore", "--acknowledge-rollback"],
        ["restore", "--from", "data", "--keys-from", "keys"],
        ["init", "--encoder", "all-minilm-l6-v2"],
    ],
    ids=" ".join,
)
def test_a_command_that_opens_keys_hardens_its_process_before(made, command):
    """No core, not dumpable, freed memory overwritten: looked at where the keys would be opened next."""
    asked = [sys.executable, "-c", LOOK, *command, "--root", str(made)]
    plain = {n: v for n, v in os.environ.items() if n not in {"PYTHONMALLOC", "GLIBC_TUNABLES"}}
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120, env=plain)
    assert (ran.stdout.strip(), ran.returncode) == ("(0, 0) 0 True", 0), ran.stderr
    refused = subprocess.run(
        asked, capture_output=True, text=True, check=False, timeout=120, env=plain | {"SECURE_EMBED_TOKEN_KEY": "x"}
    )
    assert "SECURE_EMBED_TOKEN_KEY holds a secret" in refused.stderr
