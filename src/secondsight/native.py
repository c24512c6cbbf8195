"""How the hot loops are compiled: by Numba, kept on disk, and without counting references.

Where a function takes a tuple of arrays, Numba counts a reference for each array it touches, atomically, at every call. A page fault
goes through half a dozen such functions: counting was nine tenths of its 1.4 µs, and half of the time to compile it. A function
under :data:`native` or :data:`inlined` borrows what its caller holds. It can therefore make no array, slice assignment or slice operation
of its own: Numba refuses it ("NRT required but not enabled"). One that must is :data:`allocating`.

Numba keeps a compiled function until its own file changes, the code it calls having been compiled into it. So the stamp kept
with each is of every file here that native code may come from: a change to one compiles all anew. Where neither the place beside the
source nor the user's cache can be written (a daemon's user without a home, a read-only image), nothing is kept and every run compiles.

Processes that want the same function at once (a sweep's, a test run's) compile it once: one does, and the others wait and load it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import njit

#: The packages that native code lies in, and the module of the constants that is compiled into it.
NATIVE = ("bits", "mm", "mmu", "predict", "replay", "trace", "whatif", "geometry.py")


def _stamp() -> str:
    """A digest of the names, sizes and times of the files that native code lies in."""
    here = Path(__file__).parent
    # In a guest of the lab only some of them are there.
    files = sorted(
        path
        for name in NATIVE
        for path in ((here / name).rglob("*.py") if (here / name).is_dir() else [here / name])
        if path.exists() and path.parent.name != "profiles"  # data, which compiled code is handed
    )
    identities = [
        (str(path.relative_to(here)), path.stat().st_mtime_ns, path.stat().st_size) for path in files
    ]
    return hashlib.sha256(repr(identities).encode()).hexdigest()


STAMP = _stamp()


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    def decorate(function: Callable[..., Any]) -> Any:
        try:
            dispatcher: Any = njit(cache=True, **options)(function)
        except RuntimeError:  # "no locator available": nowhere to keep it
            dispatcher = njit(**options)(function)
        kept = getattr(
            getattr(dispatcher, "_cache", None), "_cache_file", None
        )  # neither under NUMBA_DISABLE_JIT
        if kept is not None:
            # Compared before anything else is read, and so before a class that is gone is looked for.
            kept._version = f"{kept._version} {STAMP}"
            _compile_once(dispatcher, Path(kept._cache_path))
        return dispatcher

    return decorate


#: Seconds to wait for whoever compiles a function: longer than any takes, for one may have been stopped.
_PATIENCE = 120.0


def _compile_once(dispatcher: Any, folder: Path) -> None:
    """Let one process at a time compile *dispatcher*, whose code is kept in *folder*: Numba asks there before it compiles."""
    compiled = dispatcher.compile
    place = zlib.crc32(f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}".encode())

    def compile_once(signature: Any) -> Any:
        with _alone(folder, place):
            return compiled(signature)

    dispatcher.compile = compile_once


@functools.cache
def _lock_file(folder: Path) -> int:
    """The lock file of *folder*, open as long as the process lives (closing it would let go of every lock on it); -1: there can be none."""
    try:
        return os.open(folder / "compiling.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return -1


@contextlib.contextmanager
def _alone(folder: Path, place: int) -> Iterator[None]:
    """Hold byte *place* of the lock file of *folder*, which no other process then does; after :data:`_PATIENCE`, or without a file, do not.

    Threads beside the first do without: Numba's own lock is theirs, and two locks in two orders would never end.
    """
    first = threading.current_thread() is threading.main_thread()
    lock = _lock_file(folder) if first else -1
    held = False
    until = time.monotonic() + _PATIENCE
    while lock >= 0 and not held and time.monotonic() < until:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            held = True
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # a file system without locks
            break
    try:
        yield
    finally:
        if held:
            fcntl.lockf(lock, fcntl.LOCK_UN, 1, place)


@contextlib.contextmanager
def on_compile(on_start: Callable[[], None]) -> Iterator[None]:
    """Within the block, *on_start* is called when a function begins to be compiled, which one kept on disk is not."""
    # Here: in a guest of the lab plain Python plays Numba, and has no events.
    from numba.core import event

    listener: Any = type(
        "Listener", (event.Listener,), {"on_start": lambda *_: on_start(), "on_end": lambda *_: None}
    )
    with event.install_listener("numba:compile", listener()):
        yield


native = _compiled(_nrt=False)
#: The same, copied into its callers: for a few lines in a hot loop.
inlined = _compiled(_nrt=False, inline="always")
#: The same by LLVM, wherever it is called, in native code: for what is on the way of every fault. A call hands over every array of every
#: tuple, seven words each, on the stack: half a dozen calls deep that was most of what a fault took.
merged = _compiled(_nrt=False, forceinline=True)
#: With counting: for what makes arrays of its own; called from Python alone, for what native code calls is compiled like itself.
allocating = _compiled(nogil=True)
