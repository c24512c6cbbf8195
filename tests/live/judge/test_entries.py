"""Entries that are not swap, areas that only look like files, processes that khugepaged may not know: what is said of them."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import secondsight
from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.errors import MissingDependency
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from secondsight.live.read.process import Process
from secondsight.mm.config import Knobs
from support import laid_out
from support.snapshots import BLOCK, KNOWN, START, columns, snapshot


def entry(kind, offset):
    return swap.swp_entry(np.array([kind], np.uint64), np.array([offset], np.uint64))[0]


def used(blocks=1):
    memory = columns(blocks)
    memory.pte[:] |= bits.ACCESSED
    return memory


GUARD, POISON = entry(31, 4), entry(31, 2)


@pytest.mark.parametrize(("marker", "named"), [(GUARD, "1 guard page"), (POISON, "1 page poisoned")])
def test_a_marker_fails_in_every_pass(marker, named):
    """Booted, 7.2.13 and 6.18.15: ``failed`` in four full passes, and nothing huge."""
    memory = used()
    memory.pte[0, 100] = marker
    (block,) = explain(snapshot(memory)).blocks
    assert (block.status, block.known, block.swapped) == ("failed", True, 0)
    assert named in block.reason and block.at == START + 100 * 4096 and block.bloat == 0


def test_a_refusal_by_the_scan_comes_before_the_marker():
    memory = columns(1)
    memory.pte[0, 100] = GUARD
    (block,) = explain(snapshot(memory)).blocks
    assert block.status == "lack_referenced_page" and block.known


def test_many_guards_are_no_swap():
    memory = used()
    memory.pte[0, 100:165] = GUARD
    (block,) = explain(snapshot(memory)).blocks
    assert (block.status, block.known, block.swapped, block.entries) == (
        "exceed_swap_pte",
        True,
        0,
        {"guard": 65},
    )
    assert "65 guard pages" in block.reason and "never collapses" in block.reason
    assert "swapped out" not in block.reason


def test_what_userfaultfd_protects_ends_the_scan_where_it_stands():
    memory = used(3)
    memory.pte[0, 9] = entry(31, 1)
    memory.pte[1, 9] = entry(2, 7) | swap.SWP_UFFD_WP
    memory.pte[2, 3], memory.pte[2, 9] = 0, entry(31, 1)
    blocks = explain(snapshot(memory, limits=Knobs(max_ptes_none=0))).blocks
    assert [b.status for b in blocks] == ["pte_uffd_wp", "pte_uffd_wp", "exceed_none_pte"]
    assert [b.at for b in blocks[:2]] == [START + 9 * 4096, START + BLOCK + 9 * 4096] and all(
        b.known for b in blocks
    )


def test_an_entry_of_a_kind_that_was_not_read_is_neither_swap_nor_certain():
    memory = used(2)
    memory.pte[:, 100] = entry(0, 0)
    memory.page_known[:, 100] = False
    memory.pte[1, 101:170], memory.page_known[1, 101:170] = entry(0, 0), False
    few, many = explain(snapshot(memory)).blocks
    assert (few.status, few.known, few.swapped, few.entries) == ("succeeded", False, 0, {"unread": 1})
    assert few.others == ("failed",) and any("not present" in what for what in few.unread)
    assert (many.status, many.known) == ("exceed_swap_pte", True), "whatever they are, they are too many"
    assert "of a kind that could not be read" in many.reason and "swapped out" not in many.reason


def test_a_special_type_is_waited_for_or_fails_by_the_kernels_own_numbers():
    memory = used()
    memory.pte[0, 5] = entry(24, 1 << 20)
    taken = snapshot(memory)
    for devices, status, known in ((3, "failed", True), (4, "succeeded", True), (None, "succeeded", False)):
        facts = msgspec.structs.replace(taken.header.facts, device_types=devices)
        header = msgspec.structs.replace(taken.header, facts=facts)
        (block,) = explain(dataclasses.replace(taken, header=header)).blocks
        assert (block.status, block.known) == (status, known), devices


def test_no_hole_is_tolerated_while_userfaultfd_is_armed():
    memory = used()
    memory.pte[0, 511] = 0
    (block,) = explain(snapshot(memory, flags=("hg", "um"))).blocks
    assert (block.status, block.known) == ("exceed_none_pte", True)
    assert "while userfaultfd is armed" in block.reason and "max_ptes_none" not in block.reason


def test_a_droppable_area_is_exempt_from_page_lazyfree():
    """VM_DROPPABLE (MAP_DROPPABLE, 6.11); booted, 7.2.13: succeeded, where the same pages in another area are page_lazyfree."""
    memory = used()
    memory.flags[:] &= ~kpf.SWAPBACKED
    memory.pte[:] &= ~bits.DIRTY
    assert [b.status for b in explain(snapshot(memory)).blocks] == ["page_lazyfree"]
    (block,) = explain(snapshot(memory, flags=("hg", "dp"))).blocks
    assert (block.status, block.known) == ("succeeded", True)


@pytest.mark.parametrize(
    ("registered", "status", "known"),
    [(True, "succeeded", True), (None, "succeeded", False), (False, "unregistered", True)],
)
def test_a_process_that_khugepaged_does_not_know(registered, status, known):
    taken = snapshot(used())
    header = msgspec.structs.replace(
        taken.header, surroundings=msgspec.structs.replace(KNOWN, registered=registered)
    )
    answer = explain(dataclasses.replace(taken, header=header))
    (block,) = answer.blocks
    assert (block.status, block.known) == (status, known) and answer.registered is registered
    assert answer.totals.collapsible == (registered is True)
    if registered is False:
        assert (
            "does not know this process" in block.reason and "MADV_HUGEPAGE, makes it known" in block.reason
        )
    if registered is None:
        assert "unregistered" in block.others and block.unread == ("khugepaged's list",)


@pytest.fixture(scope="module")
def process():
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(secondsight.__file__).parents[1]), *sys.path])
    }
    command = [sys.executable, laid_out.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        yield child.pid, json.loads(child.stdout.readline())
        child.kill()


@pytest.fixture(scope="module")
def explained(process):
    """{case: block} of the process as procfs shows it here, and what could not be laid out."""
    pid, answer = process
    try:
        with Process.open(pid) as target:
            within = (laid_out.libc.AREA, laid_out.NEXT[0] + (1 << 30))
            explained = explain(capture.take(target, None, "not asked for", within))
    except MissingDependency as missing:
        pytest.skip(str(missing))
    blocks = {block.address: block for block in explained.blocks}
    mappings = {mapping.start: mapping for mapping in explained.mappings}
    return {name: (blocks.get(at), mappings.get(at)) for name, at in answer["laid"].items()}, answer[
        "problems"
    ]


def block_of(explained, name):
    laid, problems = explained
    if name not in laid:
        pytest.skip(f"{name}: {problems[name]}")
    return laid[name]


def frames_are_seen():
    """Whether pagemap shows frames, and the types of entries with them."""
    return os.geteuid() == 0


@pytest.mark.parametrize(("name", "count"), [("guard", 1), ("guard65", 65)])
def test_a_guard_here_is_told_as_one(explained, name, count):
    block, _ = block_of(explained, name)
    assert block.swapped == 0
    assert (
        block.entries == {"guard": count} if frames_are_seen() else set(block.entries) <= {"guard", "unread"}
    )


@pytest.mark.skipif(not frames_are_seen(), reason="the kinds of entries are shown to root")
def test_a_poisoned_page_here_is_told_as_one(explained):
    block, _ = block_of(explained, "poison")
    assert block.entries == {"poison": 1} and block.swapped == 0


def test_here_userfaultfd_leaves_no_hole(explained):
    block, _ = block_of(explained, "uffd_hole")
    assert block.status in ("exceed_none_pte", "exceed_shared_pte", "ineligible")
    assert block.status != "exceed_none_pte" or "while userfaultfd is armed" in block.reason


def test_a_private_mapping_of_dev_zero_here_is_anonymous(explained):
    block, mapping = block_of(explained, "devzero")
    plain, plainly = block_of(explained, "plain")
    # khugepaged may have been there: of the plain one, or of both.
    assert mapping.refused == plainly.refused and "ineligible" not in (block.status, plain.status)


def test_from_procfs_no_collapse_is_promised(explained):
    laid, _ = explained
    assert not [
        name for name, (block, _) in laid.items() if block and block.known and block.status == "succeeded"
    ]
