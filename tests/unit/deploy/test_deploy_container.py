"""The container file and the compose file, as far as text can show it: no engine runs where these tests do."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from secure_embed.settings import Settings

ROOT = Path(__file__).parents[3]
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
KNOWN = {"ARG", "FROM", "RUN", "COPY", "ENV", "LABEL", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL"}
KNOWN |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}


def stages():
    """Stage name -> its instructions, in order; what stands before the first FROM is under ''."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    made = {"": []}
    stage = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        assert word in KNOWN, word
        if word == "FROM":
            stage = rest.split(" AS ")[1]
            made[stage] = []
        made[stage].append((word, rest.strip()))
    return made


def copied():
    """What the build stage takes from the repository."""
    return [path for word, rest in stages()["build"] if word == "COPY" for path in rest.split()[:-1]]


def of(stage, word):
    return [rest for instruction, rest in stages()[stage] if instruction == word]


def test_two_stages_on_one_base_that_can_be_pinned():
    assert list(stages()) == ["", "build", "run"]
    (base,) = of("", "ARG")
    assert re.fullmatch(r"BASE=python:3\.11-\S+", base)
    assert "latest" not in base
    assert all(of(stage, "FROM")[0].startswith("${BASE}") for stage in ("build", "run"))
    assert "@sha256:<digest>" in CONTAINERFILE.read_text()


def test_what_is_copied_is_there_and_passes_the_ignore_file():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "**" in ignored
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_versions_come_from_the_lock():
    (install,) = [rest for rest in of("build", "RUN") if "pip install" in rest]
    assert "--constraint requirements.lock" in install
    assert all("==" in line for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:1].isalnum())


def test_it_runs_as_nobody_and_runs_nothing_as_root_at_run_time():
    assert of("run", "USER") == ["65532:65532"]
    assert not of("run", "RUN")  # nothing that needs a shell in the stage that is shipped
    assert not [rest for rest in of("run", "COPY") if not rest.startswith("--from=build")]


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_commands_need_no_shell(word):
    (command,) = of("run", word)
    assert all(isinstance(part, str) for part in json.loads(command))


def test_the_health_check_needs_no_shell_and_asks_the_health_listener():
    (check,) = of("run", "HEALTHCHECK")
    command = json.loads(check.split(" CMD ")[1])
    compile(command[2], "healthcheck", "exec")
    port = Settings.of({}, root=Path("/nowhere"), dev=True).server.health_port
    assert f"http://127.0.0.1:{port}/readyz" in command[2]


def test_the_environment_is_one_that_the_settings_know(monkeypatch):
    """A misspelt variable would leave the service on loopback inside its container, unreachable."""
    named = dict(re.findall(r"(SECURE_EMBED_\w+__\w+)=(\S+)", CONTAINERFILE.read_text()))
    named |= yaml.safe_load(COMPOSE.read_text())["services"]["secure-embed"]["environment"]
    assert len(named) == 2
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    settings = Settings.of({}, root=Path("/nowhere"), dev=True)
    assert settings.server.host == "0.0.0.0"
    assert str(settings.keys.passphrase_file) == "/run/secrets/root-passphrase"


def test_the_wheel_builds_from_exactly_what_is_copied(tmp_path):
    """And carries the corpus, the policies and the auditors' program."""
    for source in copied():
        target = tmp_path / "build" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")]
    built = subprocess.run(command, cwd=tmp_path / "build", capture_output=True, text=True, check=False, env=os.environ)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for inside in (
        "secure_embed/cli/demo/data/clinical-notes/corpus.jsonl",
        "secure_embed/cli/demo/phrases/complaints.de.toml",
        "secure_embed/policies/schema.cedarschema",
    ):
        assert inside in names
    assert any(name.startswith("secure_embed/auditors/verify/") for name in names)


@pytest.fixture
def compose():
    return yaml.safe_load(COMPOSE.read_text())


def test_every_compose_service_is_hardened(compose):
    assert set(compose["services"]) == {"secure-embed", "door"}
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] != "0", name
        assert service["ulimits"]["core"] == 0, name
        assert service["pids_limit"] > 0, name
        assert service["memswap_limit"] == service["mem_limit"], name
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service), name


def test_the_service_has_no_way_out_and_only_loopback_is_published(compose):
    assert compose["services"]["secure-embed"]["networks"] == ["inside"]
    assert compose["networks"]["inside"]["internal"] is True
    assert "ports" not in compose["services"]["secure-embed"]  # engines publish none of an internal network
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["door"]["ports"])


def test_the_temporary_folder_runs_nothing(compose):
    (tmp,) = compose["services"]["secure-embed"]["tmpfs"]
    assert {"noexec", "nosuid", "nodev"} <= set(tmp.split(":")[1].split(","))


def test_the_passphrase_is_a_secret_and_no_variable(compose):
    assert compose["services"]["secure-embed"]["secrets"] == ["root-passphrase"]
    assert compose["secrets"]["root-passphrase"]["file"] == "./secrets/root-passphrase"
    assert "/secrets/" in (COMPOSE.parent / ".gitignore").read_text().splitlines()


def test_compose_names_files_that_are_there(compose):
    build = compose["services"]["secure-embed"]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]) == CONTAINERFILE
    assert (COMPOSE.parent / compose["configs"]["door"]["file"]).exists()


def test_the_door_opens_no_tls():
    text = (COMPOSE.parent / "haproxy.cfg").read_text()
    assert "mode tcp" in text
    assert "ssl" not in text
    assert "secure-embed:8443" in text
