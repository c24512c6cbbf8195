"""Blocks in the page cache, one function a backing or state: memfd, shared anonymous, System V, tmpfs, and regular files."""

import ctypes
import os
from pathlib import Path

import laid_out
from backings_common import COLLAPSE, NOHUGEPAGE, PAGEOUT, REMOVE, kind, pin, read, some
from laid_out import ANONYMOUS, BLOCK, PRIVATE, SHARED, advise, area, write

from secondsight.lab.agent import libc
from secondsight.lab.agent.disk import path_of

SYS_SHMGET, SYS_SHMAT = 29, 30
#: tmpfs mounts of the guest, by their huge=
MOUNTS = {"always": "/tmp/always", "advise": "/tmp/advise", "never": "/tmp/never"}


def memfd(r, pages, *, flags=SHARED, offset=0, name="ram"):
    """(address, descriptor) of a block of a memfd that has *pages* in the page cache, which nobody maps."""
    fd = os.memfd_create(f"{name}{r.getrandbits(40):x}")
    laid_out.KEPT.append(fd)
    os.ftruncate(fd, BLOCK + offset)
    for page in pages:
        os.pwrite(fd, b"x" * 4096, offset + page * 4096)
    return area(flags, fd, offset=offset), fd


@kind("cached")
def memfd_mapped(r, _):
    at, _ = memfd(r, ())
    write(at, some(r))
    return at


@kind("cached")
def memfd_elsewhere(r, _):
    """In the page cache, and mapped here in part or not at all."""
    pages = list(some(r))
    at, _ = memfd(r, pages)
    read(at, [p for p in pages if r.random() < 0.1])
    return at


@kind("cached", advised=False)
def memfd_unadvised(r, _):
    return memfd_mapped(r, _)


@kind("cached", advised=False)
def memfd_nohugepage(r, _):
    at = memfd_mapped(r, _)
    advise(at, NOHUGEPAGE)
    return at


@kind("cached")
def memfd_private(r, _):
    pages = list(some(r))
    at, _ = memfd(r, pages, flags=PRIVATE)
    read(at, pages[::2])
    write(at, [p for p in pages if r.random() < 0.1])
    return at


@kind("cached")
def memfd_misaligned(r, _):
    at, _ = memfd(r, some(r), offset=4096 * r.randrange(1, 512))
    return at


@kind("cached")
def memfd_pinned(r, _):
    at, _ = memfd(r, range(512))
    read(at)
    pin(at, r.randrange(512))
    return at


@kind("cached")
def memfd_swapped(r, _):
    at, _ = memfd(r, ())
    write(at)
    advise(at, PAGEOUT, 4096 * r.choice([1, 8, 60, 64, 65, 200, 512]))
    return at


@kind("cached")
def memfd_huge(r, _):
    """Huge in the page cache, and not mapped here: another mapping, gone since, was collapsed."""
    fd = os.memfd_create(f"huge{r.getrandbits(40):x}")
    laid_out.KEPT.append(fd)
    os.ftruncate(fd, BLOCK)
    other = area(SHARED, fd)
    write(other)
    advise(other, COLLAPSE)
    libc.munmap(other, BLOCK)
    at = area(SHARED, fd)
    if r.random() < 0.3:
        read(at, [9])
    return at


@kind("cached")
def memfd_holes(r, _):
    at, _ = memfd(r, range(512))
    read(at)
    first = r.randrange(512)
    advise(at + first * 4096, REMOVE, 4096 * r.randint(1, 512 - first))
    return at


@kind("cached")
def shared_anonymous(r, _):
    at = area(SHARED | ANONYMOUS)
    write(at, some(r))
    return at


@kind("cached")
def sysv(r, number):
    key = libc.check(libc.lib.syscall(SYS_SHMGET, 0, ctypes.c_size_t(BLOCK), 0o1600), "shmget")
    at = laid_out.NEXT[0]
    laid_out.NEXT[0] += 3 * BLOCK
    libc.check(0 if libc.lib.syscall(SYS_SHMAT, key, ctypes.c_void_p(at), 0) == at else -1, "shmat")
    # Gone with the last that has it attached.
    libc.lib.shmctl(key, 0, None)
    write(at, some(r))
    return at


def on_tmpfs(r, huge_word):
    path = f"{MOUNTS[huge_word]}/f{r.getrandbits(60):x}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    laid_out.KEPT.append(fd)
    os.ftruncate(fd, BLOCK)
    at = area(SHARED, fd)
    write(at, some(r))
    Path(path).unlink()
    return at


@kind("cached", advised=False)
def tmpfs_always(r, _):
    return on_tmpfs(r, "always")


@kind("cached")
def tmpfs_advise(r, _):
    return on_tmpfs(r, "advise")


@kind("cached")
def tmpfs_never(r, _):
    return on_tmpfs(r, "never")


def on_disk(r, *, written=0, synced=False, touched=None, writable=False, misaligned=False):
    """A block of a file on ext4 of which some is in the page cache."""
    path = path_of(f"f{r.getrandbits(60):x}")
    with path.open("wb", buffering=0) as file:
        file.write(os.urandom(4096) * 1024)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    fd = os.open(path, os.O_RDWR)
    pages = list(some(r))
    for page in pages:
        os.pread(fd, 4096, page * 4096)
    for page in r.sample(range(512), written):
        os.pwrite(fd, b"y" * 4096, page * 4096)
    if synced:
        os.fsync(fd)
    os.close(fd)
    fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    at = laid_out.NEXT[0]
    laid_out.NEXT[0] += 3 * BLOCK
    libc.mmap_file(at, BLOCK, fd, 4096 if misaligned else 0, shared=writable)
    os.close(fd)
    read(at, pages if touched is None else pages[:touched])
    return at


@kind("cached")
def file_clean(r, _):
    return on_disk(r)


@kind("cached")
def file_elsewhere(r, _):
    return on_disk(r, touched=r.choice([0, 0, 3, 40]))


@kind("cached")
def file_dirty(r, _):
    return on_disk(r, written=r.randint(1, 20), writable=r.random() < 0.3)


@kind("cached")
def file_synced(r, _):
    return on_disk(r, written=r.randint(1, 400), synced=True)


@kind("cached")
def file_pinned(r, _):
    at = on_disk(r)
    pin(at, 0)
    return at


@kind("cached")
def file_misaligned(r, _):
    return on_disk(r, misaligned=True)


@kind("cached", advised=False)
def file_unadvised(r, _):
    return on_disk(r)
