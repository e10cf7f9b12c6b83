"""The units parse, are hardened as docs/operations.md says, and keep what the service needs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError, IntegrityFailure, Unavailable

SYSTEMD = Path(__file__).parents[3] / "deploy" / "systemd"
EXAMPLES = sorted((SYSTEMD / "secure-embed.service.d.examples").glob("*.conf"))
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def settings(*files):
    """Name -> values in their order, over several files; sections do not matter here."""
    read = {}
    for file in files:
        for line in file.read_text().splitlines():
            if "=" in line and not line.startswith(("#", "[")):
                name, value = line.split("=", 1)
                read.setdefault(name, []).append(value)
    return read


@pytest.fixture
def service():
    return settings(SYSTEMD / "secure-embed.service")


def analyze(*arguments):
    return subprocess.run([ANALYZE, "--no-pager", *arguments], capture_output=True, text=True, check=False)


def with_drop_in(folder, drop_in):
    """The unit as it is with a drop-in: later lines win or add, as in systemd."""
    made = folder / "secure-embed.service"
    text = (SYSTEMD / "secure-embed.service").read_text()
    made.write_text(text + (drop_in.read_text() if drop_in else ""))
    return made


@needs_systemd
def test_exposure_is_at_most_1_5(tmp_path):
    scored = analyze("security", "--offline=true", "--threshold=15", str(with_drop_in(tmp_path, None)))
    assert scored.returncode == 0, scored.stdout + scored.stderr


@needs_systemd
def test_the_threshold_can_fail(tmp_path):
    made = with_drop_in(tmp_path, None)
    lines = made.read_text().splitlines()
    made.write_text(
        "\n".join(line for line in lines if not line.startswith(("SystemCallFilter", "Capability", "Protect")))
    )
    assert analyze("security", "--offline=true", "--threshold=15", str(made)).returncode != 0


@needs_systemd
def test_without_network_exposure_is_at_most_0_5(tmp_path):
    made = with_drop_in(tmp_path, SYSTEMD / "secure-embed.service.d.examples" / "private-network.conf")
    scored = analyze("security", "--offline=true", "--threshold=5", str(made))
    assert scored.returncode == 0, scored.stdout


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, *EXAMPLES], ids=lambda d: d.name if d else "as it is")
def test_systemd_understands_every_line(tmp_path, drop_in):
    made = with_drop_in(tmp_path, drop_in)
    # The program of a machine that has it, so that only the unit's own faults are left.
    made.write_text(made.read_text().replace("/opt/secure-embed/.venv/bin/secure-embed", "/bin/true"))
    shutil.copy(SYSTEMD / "secure-embed.socket", tmp_path)
    verified = analyze("verify", str(made), str(tmp_path / "secure-embed.socket"))
    assert verified.returncode == 0, verified.stderr
    assert str(tmp_path) not in verified.stderr


@needs_systemd
def test_systemd_would_say_so_of_an_unknown_line(tmp_path):
    made = with_drop_in(tmp_path, None)
    made.write_text(made.read_text().replace("LimitCORE=0", "LimitCOER=0"))
    assert "LimitCOER" in analyze("verify", str(made)).stderr


def test_it_is_not_restarted_after_a_refusal(service):
    never = {int(status) for status in service["RestartPreventExitStatus"][0].split()}
    assert service["Restart"] == ["on-failure"]
    assert {ConfigurationError.exit_status, IntegrityFailure.exit_status} == never
    assert Unavailable.exit_status not in never


def test_memory_reaches_no_disk(service):
    assert service["LimitCORE"] == ["0"]
    assert service["MemorySwapMax"] == ["0"]


def test_the_passphrase_is_a_credential_that_the_settings_name(service):
    name = service["LoadCredentialEncrypted"][0].split(":")[0]
    assert f"SECURE_EMBED_KEYS__PASSPHRASE_FILE={name}" in service["Environment"]
    assert "/" not in name  # a name with a folder would not be looked up among the credentials


def test_code_can_be_compiled_at_run_time_and_nothing_else_is_loosened(service):
    assert service["MemoryDenyWriteExecute"] == ["no"]  # torch and OpenVINO
    loosened = [name for name, values in service.items() if values == ["no"]]
    assert loosened == ["MemoryDenyWriteExecute"]


def test_the_system_call_filter_allows_takes_away_and_gives_back_in_this_order(service):
    allowed, denied, given_back = service["SystemCallFilter"]
    assert allowed == "@system-service"
    assert denied.startswith("~")
    assert {"@privileged", "@debug", "@mount", "bpf", "userfaultfd", "io_uring_setup"} <= set(denied[1:].split())
    assert {"mlock", "sched_getaffinity"} <= set(given_back.split())
    assert service["SystemCallErrorNumber"] == ["EPERM"]


def test_no_shell_can_be_run(service):
    assert service["NoExecPaths"] == ["/"]
    allowed = service["ExecPaths"][0].split()
    assert not {"/usr/bin", "/bin", "/bin/sh", "/usr/bin/sh", "/usr"} & set(allowed)


def test_files_are_the_owners_alone(service):
    assert service["UMask"] == ["0077"]
    assert service["StateDirectoryMode"] == ["0700"]
    assert service["User"] == ["secure-embed"]


def test_the_socket_is_one_listener_for_one_process():
    socket = settings(SYSTEMD / "secure-embed.socket")
    assert len(socket["ListenStream"]) == 1  # serve takes exactly one
    assert socket["ReusePort"] == ["no"]
    assert "Accept" not in socket  # no process for each connection


def test_the_gpu_drop_in_opens_only_the_gpu():
    opened = settings(SYSTEMD / "secure-embed.service.d.examples" / "nvidia.conf")
    assert set(opened) == {"PrivateDevices", "DeviceAllow", "ProcSubset"}
    assert all(device.startswith("/dev/nvidia") for device in opened["DeviceAllow"])
