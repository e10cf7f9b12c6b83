"""A small file system that can be filled, emptied, broken and cut off: ext4 on a loop device, else tmpfs. Needs root.

A power cut is ext4's own: EXT4_IOC_SHUTDOWN without flushing its journal (fs/ext4/ioctl.c, as xfstests use it). What was not
synced by then is on no medium when the disk is mounted again.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Disk", "NoDisk", "small_disk"]

block_bytes = 64 * 1024
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_NO_LOG_FLUSH = struct.pack("=I", 2)


class NoDisk(Exception):
    """This environment lets nobody mount."""


class Disk:
    def __init__(self, folder: Path, device: str | None) -> None:
        self.folder = folder
        self._device = device  # of ext4; None: tmpfs
        self._ballast = folder / "ballast"

    @property
    def breaks(self) -> bool:
        """Whether :meth:`go_read_only` can be done here."""
        return self._device is not None and self._trigger().exists()

    def fill(self, leave: int) -> None:
        """Leave about so many bytes, at least what the file system keeps for itself."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while self.free() > leave:
                file.write(bytes(min(block_bytes, max(self.free() - leave, 4_096))))

    def free(self) -> int:
        now = os.statvfs(self.folder)
        return now.f_bavail * now.f_frsize

    def release(self) -> None:
        self._ballast.unlink()

    def _trigger(self) -> Path:
        assert self._device is not None
        return Path("/sys/fs/ext4") / Path(self._device).name / "trigger_fs_error"

    def go_read_only(self) -> None:
        """As a failing disk makes it: ext4 meets an error and goes read-only under open files (errors=remount-ro)."""
        self._trigger().write_text("campaign\n")

    def cut_power(self) -> None:
        """From now on nothing is written any more, and what was not synced is lost; :meth:`mend` brings the rest back."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(handle)

    def mend(self, *, check: bool = True) -> None:
        """Check and mount again; nothing may have it open."""
        assert self._device is not None
        _run("umount", str(self.folder))
        if check:
            subprocess.run(["e2fsck", "-p", "-f", self._device], capture_output=True, check=False)
        _run("mount", "-o", "errors=remount-ro", self._device, str(self.folder))

    @property
    def cuts(self) -> bool:
        return self._device is not None


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as fault:
        raise NoDisk(f"{command[0]}: {fault}") from None


@contextmanager
def small_disk(within: Path, *, mebibytes: int) -> Iterator[Disk]:
    """Mounted below ``within``, and gone behind the block. Raises :class:`NoDisk`."""
    folder, image = within / "disk", within / "disk.img"
    folder.mkdir(parents=True)
    device = _loop_device(image, mebibytes)
    if device is None:
        _run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "tmpfs", str(folder))
    try:
        if device is not None:
            _run("mount", "-o", "errors=remount-ro", device, str(folder))
        yield Disk(folder, device)
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
        if device is not None:
            subprocess.run(["losetup", "-d", device], capture_output=True, check=False)


def _loop_device(image: Path, mebibytes: int) -> str | None:
    try:
        with image.open("wb") as file:
            file.truncate(mebibytes * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        return _run("losetup", "--find", "--show", str(image))
    except NoDisk:
        return None
