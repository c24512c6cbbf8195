"""Short scenarios, each of which tells the values of some rules apart: what ``observable`` does not show, khugepaged's and shared memory's.

    python -m support.rule_scenarios FOLDER 6.12    writes those that a 6.12 can be asked, and ``observable``'s, as files for `lab compare`

``tests/mm/test_rule_scenarios.py`` holds that the model answers each otherwise where one of its rules is turned; what booted kernels
answered is kept in ``examples/answers/*-rules.json.zst``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from secondsight.scenario import verbs as v
from secondsight.scenario.files import write
from support.distinguishing_khugepaged import KHUGEPAGED, LRU, SECONDARY
from support.distinguishing_limits import LIMITS
from support.distinguishing_memory import MEMORY
from support.distinguishing_shared import SHARED_MEMORY
from support.observable import SHOWN

DISTINGUISHING = (*KHUGEPAGED, *SECONDARY, *LRU, *MEMORY, *SHARED_MEMORY, *LIMITS)


def scenarios(release: tuple[int, int], mmu: str = "npt") -> Iterator[v.Scenario]:
    """Every scenario that a kernel of this *release* can be asked on *mmu*."""
    for shown in SHOWN:
        yield shown.scenario()
    for each in DISTINGUISHING:
        if each.since <= release < each.until:
            yield each.scenario()


def main() -> None:
    """Write them to a folder, numbered."""
    folder, major, minor = Path(sys.argv[1]), *map(int, sys.argv[2].split("."))
    folder.mkdir(parents=True, exist_ok=True)
    for number, scenario in enumerate(scenarios((major, minor))):
        write(scenario, folder / f"{number:03}.toml")


if __name__ == "__main__":
    main()
