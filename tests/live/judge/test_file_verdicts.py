"""What is said of blocks in the page cache: shared memory, and regular files of 7.2 and later."""

import dataclasses

import msgspec
import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.cli import explained
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import PAGE_CACHE, PINS, SHMEM_SWAP, USERFAULTFD
from secondsight.live.read.capture import save
from secondsight.live.read.columns import CachePage
from secondsight.live.read.switches import Switches
from support.snapshots import BLOCK, FACTS_61, columns, snapshot


def used(blocks=1):
    memory = columns(blocks)
    memory.pte[:] |= bits.ACCESSED
    return memory


def shared(pages=512, here=512, **mapping):
    """A block of a memfd of which *pages* are in the page cache and *here* mapped, each once."""
    memory = used()
    memory.pte[0, here:] = 0
    memory.mapcount[0, here:] = memory.folio_mapcount[0, here:] = 0
    memory.refcount[0, :here] = 2
    memory.flags[:] = kpf.LRU | kpf.UPTODATE | kpf.SWAPBACKED
    memory.cached[0] = pages
    taken = snapshot(memory)
    switches = Switches(
        shmem_enabled="advise", shmem_size="inherit", sizes={2048: "inherit"}, internal="00:01"
    )
    vma = msgspec.structs.replace(
        taken.header.mappings[0],
        name="/memfd:ram (deleted)",
        inode=7,
        device="00:01",
        **{"kb": {"Swap": 0}, "perms": "rw-s", **mapping},
    )
    header = msgspec.structs.replace(taken.header, mappings=(vma,), switches=switches)
    return dataclasses.replace(taken, header=header)


def test_shared_memory_by_the_scan_of_the_page_cache():
    """collapse_scan_file: present pages against max_ptes_none, references against mappings and cache; nobody need have used a page."""
    (whole,) = explain(shared()).blocks
    assert (whole.status, whole.known, whole.cached, whole.bloat) == ("succeeded", True, 512, 0)
    (elsewhere,) = explain(shared(here=3)).blocks
    assert (elsewhere.status, elsewhere.known, elsewhere.unread) == ("succeeded", False, (PINS,))
    (empty,) = explain(shared(pages=0, here=0)).blocks
    assert (empty.status, empty.known) == ("exceed_none_pte", True)
    pinned = shared()
    pinned.columns.refcount[0, 5] = 3
    (block,) = explain(pinned).blocks
    assert (block.status, block.known) == ("not_suitable_page_count", True)
    huge = shared()
    huge.columns.flags[0, 0] |= kpf.COMPOUND_HEAD
    huge.columns.flags[0, 1:] |= kpf.COMPOUND_TAIL
    (block,) = explain(huge).blocks
    assert block.status == "pte_mapped_hugepage" and "huge in the page cache" in block.reason
    answer = explain(shared())
    assert answer.totals.coverage == 0.0 and answer.mappings[0].backing == "memfd"
    assert answer.mappings[0].cached == BLOCK and answer.mappings[0].by == "shmem_enabled=advise"


def test_use_of_pages_that_are_not_mapped_here_is_unknown(capsys, tmp_path):
    """Another process filled the memfd: nothing here shows who uses its pages, and no verdict on it asks."""
    elsewhere = shared(here=0)
    elsewhere.columns.pmd[0] = 0
    answer = explain(elsewhere)
    (block,) = answer.blocks
    assert (block.primary, block.referenced, block.secondary) == (None, None, None)
    assert set(answer.channels.values()) == {"unknown: no page is mapped here, 512 are in the page cache"}
    assert (answer.totals.eligible_blocks, answer.totals.coverage) == (1, None)
    save(elsewhere, tmp_path / "snapshot.npz")
    explained.explain(tmp_path / "snapshot.npz")
    text = capsys.readouterr().out
    assert "1 eligible, 0 huge; no page of the eligible blocks is mapped here" in text
    assert "used ? ? ?" in text and "no eligible memory" not in text
    answer = explain(shared(here=3))
    (partly,) = answer.blocks
    assert partly.primary is None
    assert answer.channels["PRIMARY"] == "known; 509 in the page cache are not mapped here: unknown"
    (whole,) = explain(shared()).blocks
    assert (whole.primary, whole.referenced, whole.secondary) == (512, 0, 0)


def regular(eligible=True, flags=("hg",), **how):
    """The same of a regular file on 7.3: no page is shmem's."""
    taken = shared(**how)
    taken.columns.flags[:] &= ~kpf.SWAPBACKED
    vma = msgspec.structs.replace(
        taken.header.mappings[0], name="/data/table", device="fd:01", flags=frozenset(flags), eligible=eligible,
        offset=taken.header.mappings[0].start % (2 << 20),
    )  # fmt: skip
    header = msgspec.structs.replace(
        taken.header, mappings=(vma,), facts=msgspec.structs.replace(taken.header.facts, release="7.3.4+deb13-amd64"),
        switches=msgspec.structs.replace(taken.header.switches, enabled="madvise"),
    )  # fmt: skip
    return dataclasses.replace(taken, header=header)


def test_a_regular_file_by_its_dirty_pages():
    (clean,) = explain(regular()).blocks
    assert (clean.status, clean.known) == ("succeeded", True)
    written = regular()
    written.columns.flags[0, 7:9] |= kpf.DIRTY
    (block,) = explain(written).blocks
    assert (block.status, block.known) == ("page_dirty_or_writeback", True)
    assert block.reason.startswith("2 pages are not yet written to the file")
    # Not all of what the page cache has is mapped here: the others may be dirty, or held.
    (block,) = explain(regular(here=3)).blocks
    assert block.status == "succeeded" and set(block.others) == {
        "page_dirty_or_writeback",
        "not_suitable_page_count",
    }


def with_cache(taken, states=CachePage.PRESENT):
    """*taken*, whose page cache was read from kernel memory: *states*, one ``CachePage`` or one a page."""
    taken.columns.cache[0] = states
    return taken


@pytest.mark.parametrize("make", [shared, lambda **how: regular(**how)])
@pytest.mark.parametrize("here", [0, 3, 512])
def test_where_the_page_cache_was_read_who_maps_it_is_no_matter(make, here):
    (block,) = explain(with_cache(make(here=here))).blocks
    assert (block.status, block.known) == ("succeeded", True)


@pytest.mark.parametrize(
    ("changes", "status", "known"),
    [
        ({7: CachePage.PRESENT | CachePage.HELD}, "not_suitable_page_count", True),
        ({7: CachePage.PRESENT | CachePage.OFF_LRU}, "page_not_in_lru", False),
        (
            {7: CachePage.PRESENT | CachePage.OFF_LRU, 3: CachePage.PRESENT | CachePage.HELD},
            "not_suitable_page_count",
            True,
        ),
        ({7: CachePage.PRESENT | CachePage.LOCKED}, "page_locked", False),
        ({7: CachePage.PRESENT | CachePage.DIRTY}, "page_dirty_or_writeback", True),
        (dict.fromkeys(range(512), CachePage.PRESENT | CachePage.HUGE), "pte_mapped_hugepage", True),
        (dict.fromkeys(range(64), CachePage.SWAPPED), "succeeded", True),
        (dict.fromkeys(range(65), CachePage.SWAPPED), "exceed_swap_pte", True),
        # The page that is one too many comes before the one that is held.
        (
            {70: CachePage.PRESENT | CachePage.HELD} | dict.fromkeys(range(65), CachePage.SWAPPED),
            "exceed_swap_pte",
            True,
        ),
        (
            {7: CachePage.PRESENT | CachePage.HELD} | dict.fromkeys(range(100, 165), CachePage.SWAPPED),
            "not_suitable_page_count",
            True,
        ),
        (dict.fromkeys(range(512), 0), "exceed_none_pte", True),
    ],
)
def test_the_scan_of_the_page_cache_page_by_page(changes, status, known):
    """collapse_scan_file's order: entries in swap, huge, the LRU, references; then how many there are; a file's dirty pages last."""
    states = np.full(512, CachePage.PRESENT, np.uint8)
    for page, state in changes.items():
        states[page] = state
    (block,) = explain(with_cache(regular(here=0), states)).blocks
    assert (block.status, block.known) == (status, known), block


def test_shared_memory_in_swap_where_no_drain_follows_is_open():
    """Before 6.4 a page that the collapse reads in waits in a CPU's batch, and cannot be isolated."""
    states = np.full(512, CachePage.PRESENT, np.uint8)
    states[5] = CachePage.SWAPPED
    (block,) = explain(with_cache(shared(here=0), states)).blocks
    assert (block.status, block.known) == ("succeeded", True)
    old = with_cache(shared(here=0), states)
    header = msgspec.structs.replace(old.header, facts=FACTS_61)
    (block,) = explain(dataclasses.replace(old, header=header)).blocks
    assert (block.status, block.others) == ("could_not_delete_page_from_lru", ("succeeded",))


def test_without_kernel_memory_cachestat_says_what_is_dirty_and_gone():
    taken = regular(here=0)
    taken.columns.dirty[0], taken.columns.evicted[0] = 3, 0
    (block,) = explain(taken).blocks
    assert block.status == "page_dirty_or_writeback" and set(block.others) == {
        "not_suitable_page_count",
        "pte_mapped_hugepage",
    }
    taken = shared(here=512, kb={"Swap": 4})
    taken.columns.evicted[0] = 0
    (block,) = explain(taken).blocks
    assert (block.status, block.known) == ("succeeded", True)
    taken.columns.evicted[0] = 65
    (block,) = explain(taken).blocks
    assert (block.status, block.known) == ("exceed_swap_pte", True)


def test_a_files_page_with_buffer_heads_is_not_taken_for_pinned():
    held = regular()
    held.columns.refcount[0, 5] = 3
    (block,) = explain(held).blocks
    assert (block.status, block.others, block.unread) == ("succeeded", ("not_suitable_page_count",), (PINS,))
    held.columns.refcount[0, 5] = 4
    (block,) = explain(held).blocks
    assert (block.status, block.known) == ("not_suitable_page_count", True)


def test_what_is_mapped_whole_is_in_the_page_cache_whether_that_was_asked_or_not():
    unasked = regular()
    unasked.columns.cached[0] = -1
    (block,) = explain(unasked).blocks
    assert (block.status, block.known, block.pinned) == ("succeeded", True, 0)


def test_pages_that_reclaim_dropped_may_count_as_swapped_out():
    (block,) = explain(regular(pages=440, here=440)).blocks
    assert block.status == "succeeded" and block.others == ("exceed_swap_pte",), (
        "72 are missing, max_ptes_swap is 64"
    )
    (block,) = explain(regular(pages=448, here=448)).blocks
    assert (block.status, block.known) == ("succeeded", True)


def test_a_file_that_nobody_advised_is_madv_collapses_from_7_2_and_nobodys_before():
    (mapping,) = explain(regular(eligible=False, flags=())).mappings
    assert "not allowed (enabled=madvise, no MADV_HUGEPAGE); MADV_COLLAPSE would" in mapping.refused
    (mapping,) = explain(regular(eligible=False)).mappings
    assert "its file system makes no folios of 2 MiB" in mapping.refused
    older = regular(eligible=False, flags=())
    facts = msgspec.structs.replace(older.header.facts, release="6.12.118+deb13-amd64")
    (mapping,) = explain(
        dataclasses.replace(older, header=msgspec.structs.replace(older.header, facts=facts))
    ).mappings
    assert "this kernel collapses none of them" in mapping.refused


def on_6_1(taken, **surroundings):
    """*taken* as a 6.1 has it."""
    header = msgspec.structs.replace(
        taken.header,
        facts=FACTS_61,
        surroundings=msgspec.structs.replace(taken.header.surroundings, **surroundings),
    )
    return dataclasses.replace(taken, header=header)


def test_up_to_6_5_a_collapse_answers_what_became_of_the_page_table_here():
    """retract_page_tables, target_result: booted, 6.1."""
    (block,) = explain(on_6_1(with_cache(shared(here=1)))).blocks
    assert (block.status, block.known) == ("succeeded", True)
    nothing = with_cache(shared(here=0))
    nothing.columns.pmd[0] = 0
    (block,) = explain(on_6_1(nothing)).blocks
    assert (block.status, block.others) == ("pmd_none", ("pmd_null",))
    (block,) = explain(nothing).blocks
    assert (block.status, block.known) == ("succeeded", True)


def test_up_to_6_5_a_private_mapping_that_was_written_to_answers_failed():
    private = with_cache(shared(here=3, perms="rw-p"))
    (block,) = explain(on_6_1(private)).blocks
    assert (block.status, block.known) == ("failed", True) and "private copies" in block.reason
    (block,) = explain(on_6_1(private, without_anon_vma=(private.header.mappings[0].start,))).blocks
    assert (block.status, block.known) == ("succeeded", True)
    (block,) = explain(private).blocks
    assert (block.status, block.known) == ("succeeded", True)


@pytest.mark.parametrize("read", [True, False])
def test_where_userfaultfd_waits_for_missing_pages_no_hole_is_filled(read):
    """collapse_file, userfaultfd_missing over the mappings of the file (6.4; a running 6.18 answered exceed_none_pte)."""

    def answer(pages, flags, **how):
        taken = shared(pages=pages, here=pages, flags=frozenset(("hg", *flags)), **how)
        states = np.where(np.arange(512) < pages, CachePage.PRESENT, np.uint8(0))
        return with_cache(taken, states) if read else taken

    (block,) = explain(answer(511, ("um",))).blocks
    assert (block.status, block.known) == ("exceed_none_pte", True)
    assert block.reason == "1 page is not in the page cache, and userfaultfd waits for missing pages"
    for pages, flags in ((512, ("um",)), (511, ("uw",)), (511, ("ui",))):
        (block,) = explain(answer(pages, flags)).blocks
        assert (block.status, block.known) == ("succeeded", True), (pages, flags)
    # Another mapping of the same part of the file is as good; one of another part is not.
    taken = answer(511, ())
    (vma,) = taken.header.mappings
    for offset, status in ((vma.offset, "exceed_none_pte"), (vma.offset + BLOCK, "succeeded")):
        other = msgspec.structs.replace(
            vma, start=vma.end, end=vma.end + BLOCK, flags=frozenset(("um",)), offset=offset
        )
        header = msgspec.structs.replace(taken.header, mappings=(vma, other))
        (block,) = explain(dataclasses.replace(taken, header=header)).blocks
        assert block.status == status
    if read:
        (block,) = explain(on_6_1(answer(511, ("um",)))).blocks
        assert block.status == "succeeded", "6.1 does not ask"


@pytest.mark.parametrize("read", [True, False])
def test_whether_another_process_waits_for_missing_pages_was_read_or_leaves_it_open(read):
    def answer(spans, pages=511, old=False):
        taken = shared(pages=pages, here=pages)
        if read:
            with_cache(taken, np.where(np.arange(512) < pages, CachePage.PRESENT, np.uint8(0)))
        around = msgspec.structs.replace(taken.header.surroundings, missing_waited_for=spans)
        header = msgspec.structs.replace(taken.header, surroundings=around)
        (block,) = explain(
            dataclasses.replace(
                taken, header=msgspec.structs.replace(header, facts=FACTS_61) if old else header
            )
        ).blocks
        return block

    start = shared().header.mappings[0].start
    for spans in (((start, start + 4096),), ((start + BLOCK - 4096, start + 2 * BLOCK),)):
        assert (answer(spans).status, answer(spans).known) == ("exceed_none_pte", True)
    for spans in ((), ((start - BLOCK, start), (start + BLOCK, start + 2 * BLOCK))):
        assert (answer(spans).status, answer(spans).known) == ("succeeded", True)
    block = answer(None)
    assert (block.status, block.others, block.unread) == ("succeeded", ("exceed_none_pte",), (USERFAULTFD,))
    # Where no page is missing, or the kernel does not ask, it is no matter.
    assert answer(None, pages=512).known
    assert USERFAULTFD not in answer(None, old=True).unread


def test_missing_pages_that_were_not_seen_leave_userfaultfds_answer_open():
    taken = shared(here=300, flags=frozenset(("hg", "um")))
    taken.columns.cached[0] = -1
    (block,) = explain(taken).blocks
    assert block.status == "exceed_none_pte" and "succeeded" in block.others and PAGE_CACHE in block.unread


def test_what_keeps_its_page_table_is_not_mapped_whole():
    def after(**how):
        (block,) = explain(shared(**how)).blocks
        assert block.status == "succeeded"
        return block.reason

    assert after().endswith("a touch maps it whole")
    assert after(perms="rw-p").endswith("a touch maps it whole"), "nothing was copied"
    assert "pages of this private mapping were copied" in after(perms="rw-p", kb={"Swap": 0, "Anonymous": 4})
    assert "userfaultfd write-protects the mapping" in after(flags=frozenset(("hg", "uw")))
    guarded = shared(here=511)
    marker = np.array([swap.MARKER_TYPE, swap.MARKER_GUARD], np.uint64)
    guarded.columns.pte[0, 511] = swap.swp_entry(*marker)
    (block,) = explain(guarded).blocks
    assert "guard regions" in block.reason and "a touch maps it whole" not in block.reason


@pytest.mark.parametrize(("perms", "is_open"), [("rw-s", False), ("r--p", False), ("rw-p", True)])
def test_behind_private_copies_smaps_does_not_count_what_is_swapped_out(perms, is_open):
    (block,) = explain(shared(perms=perms)).blocks
    assert ("exceed_swap_pte" in block.others, SHMEM_SWAP in block.unread) == (is_open, is_open)
