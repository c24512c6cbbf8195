"""A snapshot judged as if its switches and limits were others; when khugepaged comes."""

import dataclasses

import msgspec
import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.cli import main
from secondsight.errors import UsageError
from secondsight.live.judge.explain import explain
from secondsight.live.judge.suppose import parse
from secondsight.live.read import capture
from secondsight.live.read.switches import Switches
from support.snapshots import BLOCK, FACTS_61, FACTS_72, KNOWN, START, columns, snapshot, with_vm

FACTS_618 = msgspec.structs.replace(FACTS_72, release="6.18.15-test")


def used(**changes):
    memory = columns(2)
    memory.pte[:] |= bits.ACCESSED
    memory.pte[1, 500:] = 0
    taken = snapshot(memory, **changes)
    switches = Switches(enabled=taken.header.enabled, enabled_size="inherit", shmem_enabled="never")
    header = msgspec.structs.replace(taken.header, switches=switches)
    return dataclasses.replace(taken, header=header)


def statuses(taken, *settings):
    return [block.status for block in explain(taken, list(settings)).blocks]


def test_switches_and_limits():
    never = used(enabled="never")
    assert statuses(never) == ["ineligible"] * 2
    assert statuses(never, "enabled=madvise") == ["succeeded"] * 2
    assert statuses(never, "enabled=always", "max_ptes_none=11") == ["succeeded", "exceed_none_pte"]
    assert statuses(never, "hugepages-2048kB/enabled=always") == ["succeeded"] * 2
    assert statuses(used(), "hugepages-2048kB/enabled=never") == ["ineligible"] * 2
    answer = explain(never, ["enabled=always"])
    assert answer.supposed == ("enabled=always",) and answer.limits["enabled"] == "always"
    assert explain(never).supposed == () and never.header.enabled == "never", "the snapshot stays as it was"


def test_a_switch_makes_no_process_known():
    """The story of a VM that ran before ``enabled`` changed: nothing walks the processes then."""
    taken = used(enabled="never")
    header = msgspec.structs.replace(
        taken.header, surroundings=msgspec.structs.replace(KNOWN, registered=False)
    )
    answer = explain(dataclasses.replace(taken, header=header), ["enabled=always"])
    assert [block.status for block in answer.blocks] == ["unregistered"] * 2 and "never comes" in answer.pace


@pytest.mark.parametrize(("enabled", "status"), [("never", "succeeded"), ("always", "ineligible")])
def test_the_kernels_no_is_kept_where_the_switches_do_not_explain_it(enabled, status):
    taken = used(enabled=enabled)
    mapping = msgspec.structs.replace(taken.header.mappings[0], eligible=False)
    header = msgspec.structs.replace(taken.header, mappings=(mapping,))
    assert statuses(dataclasses.replace(taken, header=header), "enabled=always") == [status] * 2


def test_what_may_collapse_is_counted_with_what_it_would_add(tmp_path, capsys):
    # An idle third block, and a secondary MMU that could not be read.
    unread = columns(3, secondary=False)
    unread.pte[:] |= bits.ACCESSED
    unread.pte[1, 500:] = 0
    unread.pte[2] &= ~np.uint64(bits.ACCESSED)
    unread.pte[2, 100:] = 0
    nothing = np.zeros((3, 512), bool)
    taken = dataclasses.replace(used(), columns=with_vm(unread, nothing, known=nothing, why="no root"))
    mapping = msgspec.structs.replace(taken.header.mappings[0], end=START + 3 * BLOCK)
    taken = dataclasses.replace(
        taken, header=msgspec.structs.replace(taken.header, mappings=(mapping,), facts=FACTS_61)
    )
    totals = explain(taken).totals
    assert (totals.collapsible, totals.bloat) == (2, 12 * 4096)
    assert (totals.collapsible_if, totals.bloat_if) == (1, 412 * 4096)
    capture.save(taken, tmp_path / "s.npz")
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "s.npz")])
    printed = capsys.readouterr().out
    assert "will collapse 2 (adding 48 KiB), may collapse 1 more (adding 1.6 MiB)" in printed
    assert "  2 succeeded\n" in printed and "  1 lack_referenced_page (uncertain)\n" in printed


def test_the_reason_names_the_switch_that_decides():
    never = used(enabled="never")
    assert "(enabled=never)" in explain(never).blocks[0].reason
    reason = explain(used(), ["enabled=always", "hugepages-2048kB/enabled=never"]).blocks[0].reason
    assert "(hugepages-2048kB/enabled=never)" in reason
    reason = explain(never, ["hugepages-2048kB/enabled=inherit"]).blocks[0].reason
    assert "(enabled=never)" in reason


@pytest.mark.parametrize(("facts", "effect"), [(FACTS_618, False), (FACTS_72, True)])
def test_a_size_that_this_kernels_khugepaged_does_not_know_has_no_effect(facts, effect):
    taken = used(facts=facts)
    switches = msgspec.structs.replace(taken.header.switches, sizes={64: "never", 2048: "inherit"})
    taken = dataclasses.replace(taken, header=msgspec.structs.replace(taken.header, switches=switches))
    notes = explain(taken, ["hugepages-64kB/enabled=always"]).notes
    assert [("no effect on khugepaged" in note) for note in notes] == ([] if effect else [True])
    assert explain(taken, ["hugepages-2048kB/enabled=always"]).notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "enabled",
        "enabled=sometimes",
        "max_ptes_none=-1",
        "max_ptes_none=512",
        "nonsense=1",
        "shmem_enabled=inherit",
        "",
    ],
)
def test_what_is_no_switch_is_refused(text):
    with pytest.raises(UsageError, match="--if"):
        explain(used(), [text])


def test_every_name_is_read():
    words, limits = parse(
        ["shmem_enabled=advise", "hugepages-2048kB/shmem_enabled=inherit", "pages_to_scan=8"]
    )
    assert words == {"shmem_enabled": "advise", "shmem_size": "inherit"} and limits == {"pages_to_scan": 8}
