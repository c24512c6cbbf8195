"""The table of inputs: its page, its names, and verdicts that name nothing else."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np

from secondsight.bits import pte as bits
from secondsight.live.judge import inputs, open_verdict
from secondsight.live.judge.explain import explain
from secondsight.live.read.surroundings import Surroundings
from support.snapshots import KNOWN, columns, snapshot, with_vm

ROOT = Path(__file__).parents[3]


def test_the_page_is_the_table():
    assert (ROOT / "docs/inputs.md").read_text() == inputs.document(), (
        "python -m secondsight.live.judge.inputs > docs/inputs.md"
    )


def test_evidence_is_a_test_that_exists_or_the_source():
    for each in inputs.INPUTS:
        kind, _, where = each.evidence.partition(": ")
        assert kind in ("booted", "source") and where, each.name
        if kind == "booted":
            assert (ROOT / where).is_file(), each


def test_a_refusal_needs_no_memory():
    taken = snapshot(columns(1))
    header = msgspec.structs.replace(taken.header, surroundings=Surroundings(registered=True))
    (block,) = explain(dataclasses.replace(taken, header=header)).blocks
    assert block.status == "lack_referenced_page" and block.known


def test_a_snapshot_that_read_nothing_names_only_inputs_of_the_table():
    nothing = np.zeros((2, 512), bool)
    memory = with_vm(columns(2), nothing, known=nothing, why="may not look")
    memory.pte_known[:] = memory.page_known[:] = False
    taken = snapshot(dataclasses.replace(memory, counts_known=False))
    header = msgspec.structs.replace(taken.header, surroundings=Surroundings())
    for block in explain(dataclasses.replace(taken, header=header)).blocks:
        assert not block.known and len(block.unread) >= 4
        assert all(inputs.named(name) for name in block.unread), block.unread


def test_a_mapping_that_was_only_read_is_skipped():
    """Zero pages alone make no anon_vma (do_anonymous_page); khugepaged's thp_vma_allowable_order asks for one."""
    memory = columns(1)
    memory.pte[0] = bits.PRESENT | bits.USER | bits.ACCESSED
    taken = snapshot(memory)
    start = taken.header.mappings[0].start
    for without, status, known in (((start,), "ineligible", True), ((), "exceed_none_pte", True)):
        header = msgspec.structs.replace(
            taken.header, surroundings=msgspec.structs.replace(KNOWN, without_anon_vma=without)
        )
        (block,) = explain(dataclasses.replace(taken, header=header)).blocks
        assert (block.status, block.known) == (status, known)
    mapping = msgspec.structs.replace(taken.header.mappings[0], kb={"Anonymous": 0})
    header = msgspec.structs.replace(
        taken.header, mappings=(mapping,), surroundings=msgspec.structs.replace(KNOWN, without_anon_vma=None)
    )
    (block,) = explain(dataclasses.replace(taken, header=header)).blocks
    assert not block.known and block.unread == (open_verdict.ANON_VMA,) and block.others == ("ineligible",)
