"""A memory cgroup of one's own, v1 or v2, for as long as a test takes; skips with the reason where none can be made."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.live.read.limits import MemoryCgroup


def kill_all(folder: Path) -> None:
    """End every process in the group."""
    for _ in range(50):
        pids = [int(word) for word in (folder / "cgroup.procs").read_text().split()]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """The directory of a new group under this process's own, limited to *limit* bytes (swap included where it is counted)."""
    try:
        own = MemoryCgroup.of(Path("/proc/self/cgroup").read_text())
    except MissingDependency as missing:
        pytest.skip(str(missing))
    if own is None:
        pytest.skip("this kernel has no memory cgroup")
    # v2 allows processes in leaves only: next to the root, where root may make one.
    folder = (own.folder if own.version == 1 else own.root) / f"secondsight-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"{folder.parent}: {error.strerror}; making a cgroup takes root")
    try:
        name = "memory.max" if own.version == 2 else "memory.limit_in_bytes"
        try:
            (folder / name).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"{folder / name}: {error.strerror}")
        yield folder
    finally:
        kill_all(folder)
        for _ in range(50):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)
