"""Resident memory and how much of it is huge, by regions of PAGEMAP_SCAN laid out by hand; without it by smaps and words."""

from types import SimpleNamespace

import numpy as np
import pytest

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency
from secondsight.live.read.resident import Resident, measure

BLOCK, PAGE = 1 << 21, 4096
REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("categories", "<u8")])
PRESENT, HUGE, ZERO = pm.SCAN_PRESENT, pm.SCAN_PRESENT | pm.SCAN_HUGE, pm.SCAN_PRESENT | pm.SCAN_PFNZERO
MAPS = f"""{BLOCK:x}-{5 * BLOCK:x} rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def process(**files):
    """A process whose files in /proc are *files*."""
    return SimpleNamespace(pid=7, read_file=lambda name: files[name].encode())


def scanned(*regions):
    """A pagemap whose scan answers the part of *regions* inside the range; the ranges asked for are kept."""
    asked = []

    def scan(start, end, wanted, returned):
        asked.append((start, end))
        inside = [(max(a, start), min(b, end), kind) for a, b, kind in regions if a < end and start < b]
        return np.array(inside, REGION)

    return SimpleNamespace(scan=scan, asked=asked)


MEMORY = [
    (BLOCK, 2 * BLOCK, HUGE),
    (2 * BLOCK, 2 * BLOCK + 10 * PAGE, PRESENT),
    (2 * BLOCK + 10 * PAGE, 2 * BLOCK + 15 * PAGE, ZERO),
    (4 * BLOCK, 5 * BLOCK, HUGE),
]


def test_the_zero_page_is_nobodys_memory_and_huge_counts_in_eligible_mappings_alone():
    sums = measure(process(maps=MAPS), scanned(*MEMORY), [(BLOCK, 3 * BLOCK)])
    assert sums == Resident(2 * BLOCK + 10 * PAGE, BLOCK + 10 * PAGE, BLOCK)
    assert sums.coverage == BLOCK / (BLOCK + 10 * PAGE) and sums.share == BLOCK / (2 * BLOCK + 10 * PAGE)


def test_a_range_cuts_regions_and_mappings_to_the_page():
    within = (BLOCK + 100 * PAGE, 2 * BLOCK + 3 * PAGE)
    sums = measure(process(maps=MAPS), scanned(*MEMORY), [(0, 3 * BLOCK)], within)
    assert sums == Resident((412 + 3) * PAGE, (412 + 3) * PAGE, 412 * PAGE)


def test_what_is_asked_ends_with_the_last_mapping_and_vsyscall_is_none():
    memory = scanned(*MEMORY)
    measure(process(maps=MAPS), memory, [])
    assert memory.asked == [(0, 5 * BLOCK)]


def test_nothing_resident_has_no_share():
    assert Resident().coverage is None and Resident().share is None
    assert measure(process(maps=MAPS), scanned(), [(0, 5 * BLOCK)]) == Resident()


SMAPS = f"""{BLOCK:x}-{3 * BLOCK:x} rw-p 00000000 00:00 0
Rss:                3000 kB
AnonHugePages:      2048 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
VmFlags: rd wr hg
{3 * BLOCK:x}-{5 * BLOCK:x} rw-p 00000000 00:00 0
Rss:                 100 kB
AnonHugePages:         0 kB
VmFlags: rd wr
"""


def without_scan(words=None):
    def scan(*asked):
        raise MissingDependency("no PAGEMAP_SCAN before Linux 6.7")

    return SimpleNamespace(scan=scan, read=lambda at, pages: words(at, pages))


def test_before_6_7_smaps_has_the_sums_of_whole_mappings():
    sums = measure(process(maps=MAPS, smaps=SMAPS), without_scan(), [(BLOCK, 3 * BLOCK)])
    assert sums == Resident(3100 << 10, 3000 << 10, 2048 << 10)


@pytest.mark.parametrize(("first", "huge"), [(1 << 20, True), ((1 << 20) + 1, False), (0, False)])
def test_before_6_7_a_mapping_that_the_range_cuts_is_read_by_words(first, huge):
    """A huge page is 512 frames in a row from a multiple of 512; frames that may not be seen are all 0."""

    def words(at, pages):
        page = (at - BLOCK) // PAGE + np.arange(pages)
        frames = first + page % 512 if first else np.zeros(pages)
        return np.where(page < 512, frames.astype(np.uint64) | pm.PRESENT, np.uint64(0))

    within = (BLOCK, 2 * BLOCK + 5 * PAGE)
    sums = measure(process(maps=MAPS, smaps=SMAPS), without_scan(words), [(BLOCK, 3 * BLOCK)], within)
    assert sums == Resident(BLOCK, BLOCK, BLOCK if huge else 0)
