"""The processes with the most memory: those that khugepaged's decisions are most likely to be about, so that a watch can name them."""

from __future__ import annotations

import os
from pathlib import Path

from secondsight.errors import SecondSightError
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.live.read.process import Process


def largest_processes(most: int = 32, proc: Path = Path("/proc")) -> list[Process]:
    """The *most* processes by resident memory, ours left out, opened (the caller closes them); those that may not be opened are missing."""
    resident = []
    for folder in proc.glob("[0-9]*"):
        try:
            pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError, ValueError):
            continue
        # Less than a block holds nothing for khugepaged.
        if pages >= HPAGE_PMD_NR and int(folder.name) != os.getpid():
            resident.append((pages, int(folder.name)))
    opened = []
    for _, pid in sorted(resident, reverse=True)[:most]:
        try:
            opened.append(Process.open(pid))
        except SecondSightError:
            continue
    return opened
