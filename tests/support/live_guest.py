"""What a program of tests/support/guests takes into the lab's guest, and a guest booted to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.mm import profiles

SUPPORT = Path(__file__).parent
GUESTS = SUPPORT / "guests"


def files(program: str) -> dict[str, bytes | Path]:
    """The guest program *program* with all that it imports of ours and of the tests'.

    Numba is played by plain Python; what writes Parquet and reads compressed files stays outside. A profile's series is a module of
    its own, found in its folder and imported by no name.
    """
    return {
        **agent_files(),
        **initramfs.program(GUESTS / program),
        "/app/numba.py": GUESTS / "numba.py",
        "/app/operators.py": SUPPORT / "operators.py",
        "/app/patterns.py": SUPPORT / "patterns.py",
        "/app/secondsight/trace/__init__.py": b"",
        "/app/secondsight/trace/writer.py": GUESTS / "writer.py",
        "/app/secondsight/trace/recording.py": GUESTS / "recording.py",
        "/app/zstandard.py": b"",
        **{
            f"/app/secondsight/mm/profiles/{file.name}": file
            for file in Path(profiles.__file__).parent.glob("v*.py")
        },
    }


@contextmanager
def answered(program: str, kernel: str, seconds: float, memory_mib: int = 1024) -> Iterator[Any]:
    """What *program* answers first in a guest of *kernel* on NPT within *seconds*; the test is skipped where the kernel is not here."""
    try:
        booted = kernels.resolve(kernel)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    # A host that others use starves the emulated timer until the kernel, checking it, gives up.
    with machine("npt").boot(
        booted, files(program), main=["/app/main.py"], append="no_timer_check", memory_mib=memory_mib
    ) as guest:
        yield guest.receive(seconds)
