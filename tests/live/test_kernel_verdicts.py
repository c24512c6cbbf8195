"""On booted kernels: what explain says of a process, captured while khugepaged sleeps, is what khugepaged then does."""

import base64
import os
import zlib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs, kernels
from secondsight.lab.agent import libc
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.judge.explain import explain
from secondsight.live.judge.view import to_view
from secondsight.live.read import capture
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.scenario.results import BlockPass
from support import random_blocks

pytestmark = pytest.mark.kernel

PROGRAM = Path(__file__).parents[1] / "support/guests/verdicts.py"
SEED = int(os.environ.get("SECONDSIGHT_SEED", "1"))
#: Blocks that khugepaged must have judged: of QEMU's guests, and of Bochs', which are slow. docs/live.md has the figures of 500.
WANTED = int(os.environ.get("SECONDSIGHT_BLOCKS", "100"))
SLOW = min(WANTED, 50)
#: kernel, machine, blocks that khugepaged must have judged, blocks and processes of a batch
CASES = [
    ("6.1", "npt", WANTED, 120, 3),
    ("6.1", "shadow", WANTED, 120, 3),
    ("6.12", "npt", WANTED, 120, 3),
    ("newest", "npt", WANTED, 120, 3),
    ("6.1", "ept", SLOW, 40, 2),
    ("6.1", "ept-noad", SLOW, 40, 2),
]


class Tally:
    """What was compared, and every difference in words.

    *disturbed* counts differences in blocks that share a page (fork, KSM) with one that khugepaged tried to collapse earlier in the
    very pass: that changed the page's marks, or left it in an LRU batch, after the capture.
    """

    def __init__(self):
        self.visited = 0
        self.sure = 0
        self.disturbed = 0
        self.wasted = 0
        self.statuses = Counter()
        self.wrong = []

    def __str__(self):
        return (
            f"{self.visited} blocks, {self.sure} certain, {self.wasted} wasted passes, {self.disturbed} disturbed; "
            f"{dict(self.statuses.most_common())}"
        )

    def add(self, title, taken, visits, folder):
        """Compare the processes captured as *taken* with what khugepaged did to their blocks, *visits* in its order."""
        snapshots = {each["space"]: load(each, folder) for each in taken}
        rows = {}
        for space, snapshot in snapshots.items():
            for row, block in enumerate(zip(explain(snapshot).blocks, scanned(snapshot), strict=True)):
                rows[space, (block[0].address - libc.AREA) >> 21] = (row, *block)
        tried = set()
        for visit in visits:
            # What holds no page at all is in no snapshot: nothing may become of it.
            if (visit.space, visit.block) not in rows:
                if visit.status not in ("pmd_null", "pmd_none", "no_pte_table", "exceed_none_pte"):
                    self.wrong.append(
                        f"{title} {visit.space}:{visit.block}: not captured, kernel {visit.status}"
                    )
                continue
            row, block, numbers = rows.pop((visit.space, visit.block))
            folios = set(snapshots[visit.space].columns.folio[row].tolist()) - {-1}
            problem = compare(block, numbers, visit)
            if problem and folios & tried:
                self.disturbed += 1
            elif problem:
                self.wrong.append(f"{title} {visit.space}:{visit.block}: {problem}")
            if visit.collapse is not None:
                tried |= folios
            self.visited += 1
            self.sure += block.known
            self.wasted += block.wasted
            self.statuses[visit.status] += 1
        for (space, number), (_, block, _) in rows.items():
            if block.status != "ineligible":
                self.wrong.append(f"{title} {space}:{number}: {block.status}, kernel did not look")


def load(taken, folder):
    """The snapshot, read from kernel memory, which changed nothing."""
    path = folder / "snapshot.npz"
    path.write_bytes(base64.b64decode(taken["snapshot"]))
    snapshot = capture.load(path)
    assert snapshot.header.source == "kernel memory"
    assert taken["moved"] == [], f"reading moved {taken['moved']}"
    return snapshot


def compare(block, numbers, visit):
    """What differs between what was said of a block and what became of it; empty if nothing does."""
    if visit.status != block.status:
        if not block.known and visit.status in block.others:
            return ""
        return f"{block.status} {' '.join(block.others)}, kernel {visit.status}; {block.reason}"
    theirs = [visit.referenced, visit.none_or_zero, visit.unmapped]
    # Where the LRU batch decides, it also decides which page isolate stops at.
    if visit.isolate and block.known:
        theirs += [visit.isolate.referenced, visit.isolate.none_or_zero]
    return "" if theirs == numbers[: len(theirs)] else f"{visit.status}, counted {numbers}, kernel {theirs}"


def scanned(snapshot):
    """Of each block: the tracepoints' numbers, as the likeliest reading of the rules counts them."""
    header = snapshot.header
    view = to_view(snapshot.columns, list(header.mappings), header.enabled)
    rules = choose_profiles(header.facts).rules[0]
    judged = verdict(view, header.limits, rules, mglru=header.facts.mglru)
    scan, isolate = judged.scan, judged.isolate
    columns = (scan.referenced, scan.none_or_zero, scan.unmapped, isolate.referenced, isolate.none_or_zero)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@pytest.mark.parametrize(("kernel", "mmu", "wanted", "blocks", "spaces"), CASES)
def test_explain_says_what_khugepaged_then_does(kernel, mmu, wanted, blocks, spaces, tmp_path):
    try:
        found = kernels.resolve(kernel)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    where, tally, seed = machine(mmu), Tally(), SEED * 1000 + zlib.crc32(f"{kernel}/{mmu}".encode()) % 900
    files = {**agent_files(), **initramfs.program(PROGRAM)}
    memory = 1024 if where.slow > 1 else 3072
    with where.boot(found, files, main=["/app/main.py"], memory_mib=memory) as guest:
        assert guest.receive(120 * where.slow)["missing"] == {}
        while tally.visited < wanted:
            seed += 1
            mglru = bool(seed % 2)
            scenario = random_blocks.scenario(seed, mmu, blocks, spaces, mglru=mglru, age=kernel != "6.1")
            guest.send({"scenario": msgspec.to_builtins(scenario)})
            answer = guest.receive(240 * where.slow)
            assert "failed" not in answer, answer
            visits = msgspec.convert(answer["blocks"], list[BlockPass])
            tally.add(f"seed {seed}{' MGLRU' * mglru}", answer["taken"], visits, tmp_path)
    print(f"{kernel}/{mmu}: {tally}")
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.disturbed <= tally.visited // 50
    assert tally.sure >= tally.visited * 0.9
    assert len(tally.statuses) >= (6 if wanted >= 100 else 4), "the blocks were too much alike"
