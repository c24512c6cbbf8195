"""On booted kernels: what explain says of a process, captured while khugepaged sleeps, is what khugepaged then does."""

import base64
import os
import zlib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.errors import MissingDependency
from secondsight.geometry import PMD_ORDER
from secondsight.lab import initramfs, kernels
from secondsight.lab.agent import libc
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.live.judge import inputs
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import KERNEL_RULE
from secondsight.live.judge.view import to_view
from secondsight.live.read import capture
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.scenario.results import BlockPass
from support import random_blocks

pytestmark = pytest.mark.kernel

SUPPORT = Path(__file__).parents[1] / "support"
PROGRAM = SUPPORT / "guests/verdicts.py"
SEED = int(os.environ.get("SECONDSIGHT_SEED", "1"))
#: Blocks that khugepaged must have judged: of QEMU's guests, and of Bochs', which are slow. docs/live.md has the figures of 500.
WANTED = int(os.environ.get("SECONDSIGHT_BLOCKS", "100"))
SLOW = min(WANTED, 50)
SHADOW = max(min(WANTED, 100), WANTED // 3)
#: kernel, machine, blocks that khugepaged must have judged, blocks and processes of a batch
CASES = [
    ("6.1", "npt", WANTED, 120, 3),
    ("6.1", "shadow", SHADOW, 120, 3),
    ("6.12", "npt", WANTED, 120, 3),
    ("newest", "npt", WANTED, 120, 3),
    ("6.1", "ept", SLOW, 40, 2),
    ("6.1", "ept-noad", SLOW, 40, 2),
]


#: what file blocks that no snapshot has may be answered: nothing of them is in the page cache
NOTHING = ("pmd_null", "pmd_none", "no_pte_table", "exceed_none_pte")
#: or all of it is in swap, which leaves no page that a snapshot could show a block for (docs/live.md)
NOTHING_OF_A_FILE = (*NOTHING, "exceed_swap_pte")


class Row:
    """Blocks of one state or backing: how many, how many certain, and how many open for nothing that kernel memory shows.

    *open_for*: the inputs that kernel memory shows and that were not known, by how many blocks they left open.
    """

    def __init__(self):
        self.blocks = self.certain = self.unshown = self.wrong = 0
        self.open_for = Counter()

    def __str__(self):
        hidden = f" ({self.unshown} open for what kernel memory does not show)" if self.unshown else ""
        hidden += "".join(f"; {count} open for {name}" for name, count in self.open_for.most_common())
        return f"{self.blocks:5} blocks, {self.certain:5} certain, {self.wrong} wrong{hidden}"


class Tally:
    """What was compared, by what the blocks are, and every difference in words.

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
        self.rows = {}

    def __str__(self):
        lines = [
            f"{self.visited} blocks judged by khugepaged, {self.sure} certain, {len(self.wrong)} wrong, {self.wasted} wasted passes, "
            f"{self.disturbed} disturbed; {dict(self.statuses.most_common())}",
            *(f"  {name:24} {row}" for name, row in sorted(self.rows.items())),
        ]
        return "\n".join(lines)

    def add(self, title, answer, folder):
        """Compare the processes captured in *answer* with what khugepaged did to their blocks, its visits in their order."""
        taken = answer["taken"]
        snapshots = {each["space"]: load(each, folder) for each in taken}
        kinds = {each["space"]: each["kinds"] for each in taken}
        blocks, numbers, places = {}, {}, {}
        for space, snapshot in snapshots.items():
            for row, (block, counted) in enumerate(
                zip(explain(snapshot).blocks, scanned(snapshot), strict=True)
            ):
                at = space, (block.address - libc.AREA) >> 21
                blocks[at], numbers[at], places[at] = block, counted, row
        tried = set()
        unseen = dict(blocks)
        for visit in msgspec.convert(answer["blocks"], list[BlockPass]):
            at = visit.space, visit.block
            # What holds no page at all is in no snapshot: nothing may become of it.
            if at not in blocks:
                if visit.status not in NOTHING:
                    self.wrong.append(f"{title} {at}: not captured, kernel {visit.status}")
                continue
            block = unseen.pop(at)
            folios = set(snapshots[visit.space].columns.folio[places[at]].tolist()) - {-1}
            problem = compare(block, numbers[at], visit)
            if problem and folios & tried:
                self.disturbed += 1
                problem = ""
            if visit.collapse is not None:
                tried |= folios
            self.count(
                title, at, block, problem, visit.status, self.names(kinds, snapshots, at, block, places[at])
            )
        for visit in answer["files"]:
            at = visit["space"], visit["block"]
            if at not in blocks:
                if visit["status"] not in NOTHING_OF_A_FILE:
                    self.wrong.append(f"{title} {at}: not captured, kernel {visit['status']}")
                continue
            block = unseen.pop(at)
            names = self.names(kinds, snapshots, at, block, places[at])
            self.count(title, at, block, compare_file(block, visit["status"]), visit["status"], names)
        for at, block in unseen.items():
            passed = {"ineligible", "unregistered"}
            foretold = block.status in passed or (not block.known and passed & set(block.others))
            if "khugepaged would skip the mapping" in block.reason:
                foretold = True
            problem = "" if foretold else f"{block.status} ({block.reason}), kernel did not look"
            self.count(title, at, block, problem, "", self.names(kinds, snapshots, at, block, places[at]))

    def names(self, kinds, snapshots, at, block, place):
        """The rows that the block *at* is of."""
        space, number = at
        if kinds.get(space):
            known = snapshots[space].header.surroundings.registered
            return [kinds[space].get(str(number)) or kinds[space].get(number) or "beside"] + [
                "unregistered"
            ] * (known is False)
        return ["scenario: " + name for name in states(snapshots[space], place, block)]

    def count(self, title, at, block, problem, status, names):
        """Count *block*, whose difference from what the kernel did is *problem*."""
        if problem:
            self.wrong.append(f"{title} {at} {' '.join(names)}: {problem}")
        if status:
            self.visited += 1
            self.sure += block.known
            self.wasted += block.wasted
            self.statuses[status] += 1
        for name in names:
            row = self.rows.setdefault(name, Row())
            row.blocks += 1
            row.certain += block.known
            row.wrong += bool(problem)
            # What code does that stands in no interface (KERNEL_RULE), memory does not show either.
            unread = [name for name in block.unread if name != KERNEL_RULE]
            shown = [
                each
                for each in map(inputs.named, unread)
                if each is None or each.kernel_memory != "not shown"
            ]
            row.unshown += not block.known and not shown
            row.open_for.update(() if block.known else {each.name if each else "?" for each in shown})


def states(snapshot, place, block):
    """What a block of a scenario's process has, in words of the table of inputs."""
    columns = snapshot.columns
    flags, mapped = columns.flags[place], columns.mapcount[place] > 0
    lazy = ((flags & kpf.ANON) != 0) & ((flags & kpf.SWAPBACKED) == 0)
    states_there = {
        "huge": block.mapping == "huge",
        "in swap": block.swapped,
        "holes": block.mapping != "huge" and block.populated + block.swapped < 512,
        "shared": block.shared,
        "pinned": block.pinned,
        "KSM": (flags & kpf.KSM).any(),
        "lazyfree": bool((lazy & mapped).any()),
        "used by a VM": block.secondary,
        "read-only": mapped.any() and not (columns.pte[place] & bits.RW).any(),
        "large folios": bool((columns.order[place][mapped] > 0).any()),
        "locked": bool((flags & kpf.MLOCKED).any()),
        "ineligible": block.status == "ineligible",
    }
    return [name for name, there in states_there.items() if there] or ["plain"]


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
    if any(each.order < PMD_ORDER or each.begun > 1 for each in block.attempts):
        return ""  # parts of it were tried: what the tracepoints count is of one of them
    theirs = [visit.referenced, visit.none_or_zero, visit.unmapped]
    # Where the LRU batch decides, it also decides which page isolate stops at.
    if visit.isolate and block.known:
        theirs += [visit.isolate.referenced, visit.isolate.none_or_zero]
    return "" if theirs == numbers[: len(theirs)] else f"{visit.status}, counted {numbers}, kernel {theirs}"


def compare_file(block, status):
    """The same of a block that the scan of the page cache visits, which does not ask whether a PMD maps it."""
    if status == block.status or status in block.others:
        return ""
    if (block.status, status) == ("page_pmd_mapped", "pte_mapped_hugepage"):
        return ""
    return f"{block.status} {' '.join(block.others)}, kernel {status}; {block.reason}"


def scanned(snapshot):
    """Of each block: the tracepoints' numbers, as the likeliest reading of the rules counts them."""
    header = snapshot.header
    rules = choose_profiles(header.facts).rules[0]
    # Where parts may be collapsed the scan tolerates every hole.
    view = to_view(
        snapshot.columns, list(header.mappings), header.enabled, header.switches, parts=rules.mthp_collapse
    )
    judged = verdict(view, header.limits, rules, mglru=header.facts.mglru)
    scan, isolate = judged.scan, judged.isolate
    columns = (scan.referenced, scan.none_or_zero, scan.unmapped, isolate.referenced, isolate.none_or_zero)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@pytest.mark.parametrize(("kernel", "mmu", "wanted", "blocks", "spaces"), CASES)
def test_explain_says_what_khugepaged_then_does(kernel, mmu, wanted, blocks, spaces, tmp_path):
    try:
        booted = kernels.resolve(kernel)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    where, tally, seed = machine(mmu), Tally(), SEED * 1000 + zlib.crc32(f"{kernel}/{mmu}".encode()) % 900
    files = dict(agent_files())
    for name in ("laid_out", "backings", "backings_anonymous", "backings_cached", "backings_common"):
        files |= {**initramfs.program(SUPPORT / f"{name}.py"), f"/app/{name}.py": SUPPORT / f"{name}.py"}
    files |= initramfs.program(PROGRAM)
    memory = 1024 if where.slow > 1 else 3072
    with where.boot(booted, files, main=["/app/main.py"], memory_mib=memory) as guest:
        assert guest.receive(120 * where.slow)["missing"] == {}
        while tally.visited < wanted:
            seed += 1
            mglru = bool(seed % 2)
            scenario = random_blocks.scenario(
                seed, mmu, blocks, spaces, mglru=mglru, age=kernel != "6.1", sizes=kernel == "newest"
            )
            beside = random_blocks.beside(seed, blocks // 5)
            guest.send({"scenario": msgspec.to_builtins(scenario), "beside": beside})
            answer = guest.receive(240 * where.slow)
            assert "failed" not in answer, answer
            tally.add(f"seed {seed}{' MGLRU' * mglru}", answer, tmp_path)
    print(f"\n{booted.release} {mmu}: {tally}")
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.disturbed <= tally.visited // 50
    assert tally.sure >= tally.visited * 0.9
    for name, row in tally.rows.items():
        open_ones = row.blocks - row.certain - row.unshown
        assert open_ones <= row.blocks * 0.1 or row.blocks < 10, f"{name}: {row}"
    assert len(tally.statuses) >= (6 if wanted >= 100 else 4), "the blocks were too much alike"
