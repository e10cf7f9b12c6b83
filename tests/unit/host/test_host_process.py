"""host.py on this process and this host. What cannot be undone is done in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from secure_embed import host
from secure_embed.errors import ConfigurationError

KNOWN = {"SECURE_EMBED_SERVER__TLS_KEY", "SECURE_EMBED_KEYS__PASSPHRASE_FILE", "SECURE_EMBED_SERVER__PORT"}
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI\n-----END PRIVATE KEY-----"
OVERWRITING = {"GLIBC_TUNABLES": "glibc.malloc.perturb=85:glibc.malloc.tcache_count=0", "PYTHONMALLOC": "malloc"}
glibc = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another C library")


def run(code, **environment):
    clean = {n: v for n, v in os.environ.items() if n not in OVERWRITING}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=clean | environment,
    )
    return ran.stdout.strip()


def test_hardening_takes_effect_and_the_kernel_says_so():
    code = (
        "import os, resource\n"
        "from secure_embed.host import harden\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
        "os.umask(0)\n"
        "done = harden()\n"
        "assert harden() == done\n"
        "print(done.lacking, oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE))\n"
        "print([l for l in open('/proc/self/status') if l.startswith('NoNewPrivs')])\n"
    )
    first, second = run(code, **OVERWRITING).splitlines()
    assert first == "() 0o77 (0, 0)"
    assert "1" in second


def test_what_does_not_take_effect_is_named():
    assert run("from secure_embed.host import harden; print(harden().lacking)") == "('freed_memory_overwritten',)"


@glibc
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"PYTHONMALLOC": "malloc"}, False),
        ({"GLIBC_TUNABLES": OVERWRITING["GLIBC_TUNABLES"]}, False),
        ({"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.perturb=85"}, False),
        ({"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}, False),
        (OVERWRITING, True),
    ],
    ids=["nothing", "python alone", "glibc alone", "with its caches", "without overwriting", "all"],
)
def test_whether_freed_memory_is_overwritten_is_tried_not_read(environment, expected):
    code = "from secure_embed.host import freed_memory_is_overwritten as f; print(f(), f(), f())"
    assert run(code, **environment) == " ".join([str(expected)] * 3)


@glibc
def test_a_program_starts_anew_once_with_an_allocator_that_overwrites(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from secure_embed import host\n"
        "print('began', os.getpid(), flush=True)\n"
        "host.overwrite_freed_memory()\n"
        "print(host.freed_memory_is_overwritten(), os.environ['GLIBC_TUNABLES'], sys.argv[1:])\n"
    )
    ran = subprocess.run(
        [sys.executable, str(program), "an argument"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={n: v for n, v in os.environ.items() if n not in OVERWRITING}
        | {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"},
    )
    *began, ended = ran.stdout.splitlines()
    assert len(began) == 2
    assert len(set(began)) == 1  # the same process: what systemd handed it is still its own
    assert ended.startswith("True ")
    assert "arena_max=4" in ended  # what the operator set stays
    assert ended.endswith("['an argument']")


@glibc
def test_a_system_that_refuses_the_new_start_is_no_crash(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "execve", refuse)
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    host.overwrite_freed_memory()


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({"SECURE_EMBED_PASSPHRASE": "x"}, []),
        ({"SECURE_EMBED_KEYS__ROOT_KEY": "x"}, []),
        ({"SECURE_EMBED_TOKEN": "x"}, []),
        ({"SECURE_EMBED_DB_PASSWORD": "x"}, []),
        ({"SECURE_EMBED_KEYS__PKCS11__PIN": "x"}, []),
        ({"SECURE_EMBED_SERVER__TLS_KEY": PEM}, []),
        ({"SECURE_EMBED_SERVER__PORT": JWT}, []),
        ({}, ["query", "--token-file", JWT]),
        ({}, ["serve", PEM]),
    ],
)
def test_a_secret_in_environment_or_arguments_is_refused_and_not_repeated(environment, arguments):
    with pytest.raises(ConfigurationError) as refused:
        host.refuse_secrets(environment, arguments, known=KNOWN)
    assert refused.value.code == "secret_in_environment"
    assert all(value not in refused.value.detail for value in (*environment.values(), *arguments))


def test_settings_and_what_is_not_ours_pass():
    host.refuse_secrets(
        {
            "SECURE_EMBED_SERVER__TLS_KEY": "/etc/tls/key.pem",
            "SECURE_EMBED_KEYS__PASSPHRASE_FILE": "root-passphrase",
            "SECURE_EMBED_SERVER__PORT": "9443",
            "SECURE_EMBED_ROOT": "/srv/eyJdeployment",
            "CI_TOKEN": JWT,  # another program's: not ours to judge
        },
        ["serve", "--root", "/srv/deployment"],
        known=KNOWN,
    )


def test_swap_lock_and_clock_are_read():
    assert all(device.startswith("/") for device in host.swap())
    limit = host.memlock_bytes()
    assert limit is None or limit >= 0
    assert host.clock_synchronised() in {True, False, None}


@pytest.mark.parametrize("file", ["systemd/secure-embed.service", "container/Containerfile"])
def test_unit_and_image_set_what_serve_would_set_itself(file):
    """Or it would start twice, and where the system forbids that, go without."""
    text = (Path(__file__).parents[3] / "deploy" / file).read_text()
    assert all(f"{name}={value}" in text for name, value in OVERWRITING.items())
    assert OVERWRITING["GLIBC_TUNABLES"] == ":".join(f"{name}={value}" for name, value in host.tunables.items())
