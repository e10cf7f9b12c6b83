"""host.py: every file and folder of a deployment is ours, closed to others and nowhere else."""

import os
import socket
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError
from secure_embed.host import check_files, faults_of_files


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "deployment"
    made.mkdir(mode=0o700)
    for folder in ("keys", "data", "tls", "data/deeper"):
        (made / folder).mkdir(mode=0o700)
    for name in ("secure-embed.toml", "keys/keys.db", "data/data.db", "data/deeper/file", "tls/key.pem"):
        (made / name).touch(mode=0o600)
    return made


def hard_link(root):
    os.link(root / "keys" / "keys.db", root.parent / "kept")


def link_out(root):
    (root.parent / "elsewhere").mkdir(mode=0o700)
    (root / "log").symlink_to(root.parent / "elsewhere")


def dangling(root):
    (root / "log").symlink_to("/nowhere/at/all")


def another_owner(root):
    os.chown(root / "keys" / "keys.db", 65_534, -1)


def unix_socket(root):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(root / "data" / "socket"))
    (root / "data" / "socket").chmod(0o600)


CASES = [
    ("the root is open to its group", lambda r: r.chmod(0o750), "."),
    ("a folder that others can list", lambda r: (r / "data" / "deeper").chmod(0o705), "data/deeper"),
    ("a folder that the group can enter", lambda r: (r / "keys").chmod(0o710), "keys"),
    ("a file that others can read", lambda r: (r / "keys" / "keys.db").chmod(0o604), "keys/keys.db"),
    ("a file that the group can write", lambda r: (r / "secure-embed.toml").chmod(0o620), "secure-embed.toml"),
    ("a fifo", lambda r: os.mkfifo(r / "data" / "pipe", 0o600), "data/pipe"),
    ("a socket", unix_socket, "data/socket"),
    ("a link to a folder outside", link_out, "log"),
    ("a link that leads nowhere, outside", dangling, "log"),
    ("a second name outside", hard_link, "keys/keys.db"),
]


def test_a_deployment_as_it_is_made_has_no_fault(root):
    check_files(root)
    assert list(faults_of_files(root)) == []


@pytest.mark.parametrize(("change", "named"), [(c, n) for _, c, n in CASES], ids=[name for name, _, _ in CASES])
def test_what_is_refused_and_named(root, change, named):
    change(root)
    with pytest.raises(ConfigurationError) as refused:
        check_files(root)
    assert refused.value.code == "file_permissions"
    assert f"{named} " in f"{refused.value.detail} "
    assert str(root) not in refused.value.detail  # relative: a path may say who the customer is


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_file_of_another_user_is_refused(root):
    another_owner(root)
    assert list(faults_of_files(root)) == ["keys/keys.db belongs to another user"]


def test_every_fault_is_listed_for_doctor(root):
    (root / "keys").chmod(0o755)
    (root / "data" / "data.db").chmod(0o644)
    hard_link(root)
    assert len(list(faults_of_files(root))) == 3


def test_links_and_second_names_within_the_deployment_are_nobody_elses(root):
    (root / "current").symlink_to("data/deeper")
    os.link(root / "data" / "data.db", root / "data" / "also.db")
    check_files(root)


def test_a_link_is_not_followed(root):
    """What lies behind a link is judged at its own place, and a loop ends."""
    (root / "data" / "deeper" / "up").symlink_to("../..")
    check_files(root)


@pytest.fixture
def outside(root):
    folder = root.parent / "certificates"
    folder.mkdir(mode=0o755)
    for name in ("certificate.pem", "key.pem"):
        (folder / name).write_text("pem")
        (folder / name).chmod(0o600)
    return folder


def test_a_certificate_and_key_that_the_settings_name_may_lie_outside(root, outside):
    (outside / "certificate.pem").chmod(0o644)
    (root / "tls" / "key.pem").unlink()
    (root / "tls" / "key.pem").symlink_to(outside / "key.pem")
    check_files(root, secret=[root / "tls" / "key.pem"], trusted=[outside / "certificate.pem"])
    with pytest.raises(ConfigurationError, match="leads out"):
        check_files(root)  # not named


@pytest.mark.parametrize(
    ("mode", "secret", "refused"),
    [
        (0o600, True, False),
        (0o640, True, True),
        (0o604, True, True),
        (0o644, False, False),
        (0o664, False, True),
        (0o646, False, True),
    ],
)
def test_what_is_asked_of_a_named_file_outside(root, outside, mode, secret, refused):
    one = outside / "key.pem"
    one.chmod(mode)
    os.chown(one, -1, 65_534) if os.geteuid() == 0 else None  # root's own group would look like a credential
    faults = list(faults_of_files(root, **{"secret" if secret else "trusted": [one]}))
    assert bool(faults) == refused


@pytest.mark.skipif(os.geteuid() != 0, reason="credentials are root's files")
@pytest.mark.parametrize(("mode", "refused"), [(0o440, False), (0o400, False), (0o444, True), (0o460, True)])
def test_a_credential_of_systemd_is_roots_and_readable_by_its_own_group(root, outside, mode, refused):
    one = outside / "key.pem"
    os.chown(one, 0, 0)
    one.chmod(mode)
    assert bool(list(faults_of_files(root, secret=[one]))) == refused


def test_a_named_file_that_is_absent_is_its_readers_to_miss(root):
    check_files(root, secret=[root / "secrets" / "none"], trusted=[Path("/nowhere/at/all")])
