"""`init`, `keys status`, `audit`, `doctor`, `models`: the commands that open a deployment themselves."""

import json
import stat
import subprocess
import sys

import pytest


def run(*arguments, status=0):
    ran = subprocess.run(
        [sys.executable, "-m", "secure_embed.cli", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == status, ran.stderr
    return ran


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli") / "deployment"
    run("init", "--root", str(root), "--dev", "--encoder", "all-minilm-l6-v2")
    return root


def test_init_leaves_nothing_that_others_can_reach(made):
    assert all(not p.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) for p in (made, *made.rglob("*")))
    assert not list(made.parent.glob(".deployment-*"))


def test_init_does_not_touch_what_is_there(made):
    before = (made / "keys" / "root.json").read_bytes()
    refused = run("init", "--root", str(made), "--dev", "--encoder", "all-minilm-l6-v2", status=78)
    assert "deployment_exists" in refused.stderr
    assert (made / "keys" / "root.json").read_bytes() == before


def test_a_failed_init_leaves_nothing(tmp_path):
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("a passphrase that everyone can read")
    passphrase.chmod(0o644)
    root = tmp_path / "deployment"
    refused = run(
        "init",
        "--root",
        str(root),
        "--dev",
        "--encoder",
        "all-minilm-l6-v2",
        "--passphrase-file",
        str(passphrase),
        status=78,
    )
    assert "passphrase_file_permissions" in refused.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["passphrase"]


def test_bge_m3_has_to_be_somewhere(tmp_path):
    assert "--model-folder" in run("init", "--root", str(tmp_path / "d"), status=2).stderr


def test_keys_status_shows_no_key(made):
    shown = json.loads(run("keys", "status", "--root", str(made), "--json").stdout)
    assert shown["kind"] == "passphrase"
    assert shown["lacks"]
    secret = (made / "secrets" / "root.passphrase").read_text().strip()
    assert secret not in json.dumps(shown)


def test_the_log_is_verified_shown_and_exported(made, tmp_path):
    assert "as signed" in run("audit", "verify", "--root", str(made)).stdout
    run("audit", "show", "--root", str(made))
    run("audit", "export", "--root", str(made), "--to", str(tmp_path / "copy"))
    refused = run("audit", "export", "--root", str(made), "--to", str(tmp_path / "copy"), status=5)
    assert "export_target_not_empty" in refused.stderr


def test_doctor_names_what_is_lacking(made):
    findings = json.loads(run("doctor", "--root", str(made), "--json").stdout)
    assert {"settings", "permissions", "keys", "model", "swap", "core dumps"} <= {f["check"] for f in findings}
    settings = next(f for f in findings if f["check"] == "settings")
    assert settings["level"] == "lacks"  # the development issuer


def test_doctor_fails_on_open_permissions(made):
    key = made / "keys" / "root.json"
    key.chmod(0o644)
    try:
        findings = json.loads(run("doctor", "--root", str(made), "--json", status=1).stdout)
    finally:
        key.chmod(0o600)
    assert [f["level"] for f in findings if f["check"] == "permissions"] == ["wrong"]


def test_models_are_listed_and_verified():
    listed = {m["name"] for m in json.loads(run("models", "list", "--json").stdout)}
    assert listed == {"all-minilm-l6-v2", "bge-m3"}
    assert json.loads(run("models", "verify", "all-minilm-l6-v2", "--json").stdout)["files"] == 10


def test_a_model_that_is_not_there_is_refused(tmp_path):
    assert "model_file_missing" in run("models", "verify", "bge-m3", "--folder", str(tmp_path), status=7).stderr


def test_the_passphrase_as_a_credential_of_the_service_manager(made, tmp_path):
    """A bare name is looked up among systemd's credentials; absent there it is refused, whatever lies elsewhere."""
    import os

    def status(credentials):
        env = os.environ | {
            "SECURE_EMBED_KEYS__PASSPHRASE_FILE": "root-passphrase",
            "CREDENTIALS_DIRECTORY": str(credentials),
        }
        command = [sys.executable, "-m", "secure_embed.cli", "keys", "status", "--root", str(made)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)

    absent = status(tmp_path)
    assert absent.returncode == 78
    assert "passphrase_file_missing" in absent.stderr
    credential = tmp_path / "root-passphrase"
    credential.write_bytes((made / "secrets" / "root.passphrase").read_bytes())
    credential.chmod(0o400)
    assert status(tmp_path).returncode == 0
