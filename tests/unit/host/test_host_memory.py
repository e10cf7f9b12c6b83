"""How much memory there is: the machine's, or less where a control group says so (cgroups(7), both versions)."""

import os
from pathlib import Path

import pytest

from secure_embed import host

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def group(root: Path, files: dict[str, str]) -> Path:
    for name, said in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(said)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/b/memory.max": "1000\n", "a/memory.max": "max\n"}, [1_000]),
        ({"a/b/memory.max": "2000\n", "a/memory.max": "1000\n"}, [2_000, 1_000]),
        ({"memory.max": "500\n"}, [500]),  # a container sees its own group at the top
        ({"a/b/memory.max": "max\n"}, []),
        ({}, []),
    ],
)
def test_each_group_above_counts_and_no_limit_is_none(tmp_path, files, expected):
    assert list(host._group_limits(group(tmp_path, files), "/a/b", "memory.max")) == expected


def test_here_it_is_no_more_than_the_machine_has():
    assert 0 < host.memory_bytes() <= MACHINE
