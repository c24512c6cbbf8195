"""Regular files: an ext4 file system on the third RAM disk, and what a space's process does with a file besides mapping it.

ext4 makes folios as large as a PMD maps. It has no journal here, reads nothing ahead, and writes nothing by itself: a page is dirty until
somebody has it written, and writing is over when the call returns. The file is written in full before a scenario begins, so that each of
its blocks is allocated, and dropped from the page cache again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from secondsight.lab.agent import code, libc
from secondsight.lab.agent.knobs import put
from secondsight.lab.agent.routines import Routines

__all__ = ["Disk", "FileCalls", "path_of"]

_DEVICE, _ROOT = "/dev/ram2", Path("/files")
#: ext4 and what it depends on, in the order to load them in.
_MODULES = ("crc16", "mbcache", "jbd2", "ext4")


def path_of(name: str) -> Path:
    """Where the file *name* is."""
    return _ROOT / name


class Disk:
    """The file system, mounted."""

    def __init__(self) -> None:
        for name in _MODULES:
            if Path(f"/mod/{name}.ko").exists():
                libc.load_module(f"/mod/{name}.ko")
        if "\text4\n" not in Path("/proc/filesystems").read_text():
            raise libc.SysError(
                95, "the kernel was fetched without ext4: `secondsight lab fetch --refresh` brings it"
            )
        # Before anything is opened: a file keeps the readahead that the device had then.
        put(f"/sys/block/{Path(_DEVICE).name}/queue/read_ahead_kb", 0)
        for name, value in (
            ("dirty_writeback_centisecs", 0),
            ("dirty_background_ratio", 90),
            ("dirty_ratio", 95),
        ):
            put(f"/proc/sys/vm/{name}", value)
        subprocess.run(
            ["/bin/busybox", "mke2fs", "-F", "-b", "4096", "-i", "65536", "-m", "0", _DEVICE],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _ROOT.mkdir(exist_ok=True)
        libc.mount(_DEVICE, str(_ROOT), "ext4", libc.MS_NOATIME)

    def create(self, name: str, blocks: int) -> None:
        """The file *name* of *blocks* blocks, on the disk and not in the page cache; nothing, where it is there already."""
        path = path_of(name)
        if path.exists():
            return
        with path.open("wb", buffering=0) as file:
            block = bytes(range(1, 256)) * (libc.BLOCK_BYTES // 255 + 1)
            for i in range(blocks):
                os.pwrite(file.fileno(), memoryview(block)[: libc.BLOCK_BYTES], i * libc.BLOCK_BYTES)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def clear(self) -> None:
        """Remove every file."""
        for path in _ROOT.iterdir():
            if path.is_file():
                path.unlink()


class FileCalls:
    """The file *name* as a space maps it, from byte *offset* on: its calls, each through a descriptor of its own."""

    def __init__(self, routines: Routines, name: str, offset: int) -> None:
        self._routines, self._path, self._offset = routines, path_of(name), offset
        # Shared memory, so that no page of it is copied, nor put on the LRU, in the middle of a call.
        libc.mmap_shared(libc.BUFFER, libc.BLOCK_BYTES, -1, 0)
        routines.touch(code.WRITE, range(libc.BLOCK_BYTES // libc.PAGE), 1 << 31, libc.BUFFER)

    def map(self, address: int, length: int, *, shared: bool) -> None:
        """mmap(2) of *length* bytes, writable if *shared*, else private and read-only."""
        descriptor = os.open(self._path, os.O_RDWR if shared else os.O_RDONLY)
        libc.mmap_file(address, length, descriptor, self._offset, shared=shared)
        os.close(descriptor)

    def read(self, pages: list[int]) -> str | None:
        """pread(2) of each run of *pages*."""
        return self._each(libc.SYS_PREAD64, os.O_RDONLY, pages)

    def write(self, pages: list[int]) -> str | None:
        """pwrite(2) of each run of *pages*."""
        return self._each(libc.SYS_PWRITE64, os.O_WRONLY, pages)

    def sync(self) -> str | None:
        """fsync(2)."""
        descriptor = os.open(self._path, os.O_RDONLY)
        failed = self._routines.failed(libc.SYS_FSYNC, descriptor)
        os.close(descriptor)
        return failed

    def drop(self, pages: list[int]) -> str | None:
        """POSIX_FADV_DONTNEED of each run of *pages*."""
        descriptor = os.open(self._path, os.O_RDONLY)
        errors = [
            self._routines.failed(
                libc.SYS_FADVISE64, descriptor, self._offset + page * libc.PAGE, count * libc.PAGE,
                os.POSIX_FADV_DONTNEED,
            )
            for page, count in libc.runs(pages)
        ]  # fmt: skip
        os.close(descriptor)
        return next((e for e in errors if e), None)

    def _each(self, number: int, flags: int, pages: list[int]) -> str | None:
        """The call *number* on each run of *pages*, cut where a block ends; the first errno, after all were made."""
        errors = []
        for page, count in libc.runs(pages):
            while count:
                part = min(count, libc.BLOCK_BYTES // libc.PAGE - page % (libc.BLOCK_BYTES // libc.PAGE))
                descriptor = os.open(self._path, flags)
                at = self._offset + page * libc.PAGE
                errors.append(self._routines.failed(number, descriptor, libc.BUFFER, part * libc.PAGE, at))
                os.close(descriptor)
                page, count = page + part, count - part
        return next((e for e in errors if e), None)
