"""keys/locked.py: one place for unlocked keys. What the kernel says of its pages is asked of the kernel."""

import mmap
import os
import re
import resource
import threading
from pathlib import Path

import pytest

from secure_embed.errors import Unavailable
from secure_embed.keys import locked
from secure_embed.keys.locked import LockedMemory, secret_bytes_max

needle = bytes(range(7, 39))


def where(secret):
    """(address, flags) of every writable anonymous mapping of this process that holds ``secret``."""
    found = []
    smaps = Path("/proc/self/smaps").read_text()
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for area in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", smaps):
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw.. \S+ 00:00 0\s*\n", area)
            if head is None:
                continue
            start, end = int(head[1], 16), int(head[2], 16)
            memory.seek(start)
            if secret in memory.read(end - start):
                found.append((start, set(re.search(r"VmFlags: (.*)", area)[1].split())))
    return found


def drawn():
    """A secret that stands nowhere else: made in a buffer that is overwritten after use."""
    return bytearray(os.urandom(secret_bytes_max))


def test_a_held_secret_comes_back_until_it_is_wiped():
    with LockedMemory() as memory:
        first, second = memory.hold(needle), memory.hold(b"short")
        assert first.copy() == needle
        assert second.copy() == b"short"
        assert len(second) == 5
        first.wipe()
        first.wipe()
        assert second.copy() == b"short"
        with pytest.raises(Unavailable) as refused:
            first.copy()
        assert refused.value.code == "keys_closed"


def test_a_closed_memory_gives_and_takes_nothing():
    memory = LockedMemory()
    held = memory.hold(needle)
    memory.close()
    memory.close()
    held.wipe()
    with pytest.raises(Unavailable):
        held.copy()
    with pytest.raises(Unavailable):
        memory.hold(needle)


@pytest.mark.parametrize("size", [0, secret_bytes_max + 1])
def test_a_secret_of_another_size_is_refused(size):
    with LockedMemory() as memory, pytest.raises(ValueError, match="1 to 32"):
        memory.hold(bytes(size))


def test_thousands_of_secrets_share_pages_and_places_are_used_again():
    with LockedMemory() as memory:
        held = [memory.hold(n.to_bytes(32, "big")) for n in range(3_000)]
        needed = -(-3_000 * secret_bytes_max // mmap.PAGESIZE) * mmap.PAGESIZE
        assert memory.held_bytes == needed
        for one in held[::2]:
            one.wipe()
        again = [memory.hold(bytes([255]) * 32) for _ in held[::2]]
        assert memory.held_bytes == needed
        assert [int.from_bytes(one.copy(), "big") for one in held[1::2]] == list(range(1, 3_000, 2))
        assert {one.copy() for one in again} == {bytes([255]) * 32}


def test_a_place_that_is_used_again_shows_nothing_of_the_secret_before():
    with LockedMemory() as memory:
        first = memory.hold(bytes([7]) * 32)
        first.wipe()
        assert memory.hold(b"x").copy() == b"x"
        assert memory._pages[0].memory[:].count(7) == 0


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == 0, reason="no page may be locked here")
def test_the_kernel_locks_the_page_leaves_it_out_of_dumps_and_empties_it_in_a_child():
    secret = drawn()
    with LockedMemory() as memory:
        memory.hold(secret)
        wanted = bytes(secret)
        flags = [flags for _, flags in where(wanted) if "wf" in flags]
        assert len(flags) == 1
        assert {"lo", "dd", "wf"} <= flags[0]  # proc(5): locked, do not dump, wipe on fork
        assert memory.locked
        assert memory.unlocked_bytes == 0


def test_closing_takes_the_page_away():
    memory = LockedMemory()
    memory.hold(drawn())
    page = memory._pages[0].memory
    memory.close()
    assert page.closed


def test_a_child_gets_no_key_of_zeros():
    with LockedMemory() as memory:
        held = memory.hold(needle)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if memory._pages[0].memory[:] == bytes(mmap.PAGESIZE):
                    held.copy()
            except Unavailable:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert held.copy() == needle


def test_a_refused_lock_is_said_and_the_secret_held_all_the_same(monkeypatch):
    monkeypatch.setattr(locked._libc, "mlock", lambda *_: -1)
    with LockedMemory() as memory:
        assert memory.locked  # nothing is held yet
        held = memory.hold(needle)
        assert held.copy() == needle
        assert not memory.locked
        assert memory.unlocked_bytes == memory.held_bytes == mmap.PAGESIZE


def test_a_real_limit_refuses_the_lock_and_is_said():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            os.setresuid(65_534, 65_534, 65_534) if os.geteuid() == 0 else None  # root's locks know no limit
            with LockedMemory() as memory:
                status = int(memory.hold(needle).copy() != needle or memory.unlocked_bytes != mmap.PAGESIZE)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_copy_is_whole_or_refused_while_others_wipe():
    """Threads copy while another wipes and holds anew: no copy mixes two secrets, none is zeros."""
    with LockedMemory() as memory:
        current = [memory.hold(b"\x01" * 32)]
        wrong, done = [], threading.Event()

        def read():
            while not done.is_set():
                try:
                    copy = current[0].copy()
                except Unavailable:
                    continue
                if len(set(copy)) != 1 or copy[0] == 0:
                    wrong.append(copy)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for n in range(2_000):
            old, current[0] = current[0], memory.hold(bytes([1 + n % 255]) * 32)
            old.wipe()
        done.set()
        for reader in readers:
            reader.join()
        assert not wrong


def test_a_repr_shows_nothing():
    with LockedMemory() as memory:
        assert "secret" not in repr(memory.hold(b"secret"))
