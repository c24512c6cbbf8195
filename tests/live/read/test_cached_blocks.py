"""What the page cache holds of a mapping: its whole blocks one by one, and what lies beside them, together to the page."""

import os

import msgspec

from secondsight.cli.explained import describe_backing
from secondsight.geometry import PAGE_SIZE
from secondsight.live.judge.explain import explain
from secondsight.live.read.cached_blocks import CachedBlocks
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.vma import Vma, clip
from support.snapshots import BLOCK, START, columns, snapshot

# 100 pages before the first whole block, one whole block, 200 pages behind it.
BEFORE, BEHIND = 100, 200
MAPPING = Vma(
    START - BEFORE * PAGE_SIZE, START + BLOCK + BEHIND * PAGE_SIZE, "rw-s", 0, "00:01", 7, "/memfd:x (deleted)",
    frozenset({"rd", "wr", "sh"}), {"Rss": 4 * 30},
)  # fmt: skip


class ProcessOf:
    """A process whose one mapping is of the file *fd*."""

    def __init__(self, fd):
        self._fd = fd

    def locate(self, name):
        assert name == f"map_files/{MAPPING.start:x}-{MAPPING.end:x}"
        return os.dup(self._fd)

    def read_file(self, name):
        return b""


def of_a_file(pages):
    """The page cache of MAPPING where the *pages* of its file were written."""
    fd = os.memfd_create("x")
    try:
        os.ftruncate(fd, MAPPING.size)
        for page in pages:
            os.pwrite(fd, b"x", page * PAGE_SIZE)
        return CachedBlocks.of(ProcessOf(fd), [MAPPING])
    finally:
        os.close(fd)


def test_pages_beside_the_whole_blocks_are_counted_too():
    inside = [BEFORE + page for page in (0, 5, 511)]
    cache = of_a_file([0, BEFORE - 1, *inside, BEFORE + 512, BEFORE + 512 + BEHIND - 1])
    assert cache.address.tolist() == [START] and cache.pages.tolist() == [3]
    (marked,) = cache.marked([MAPPING])
    assert marked.cached_beside == 4 * PAGE_SIZE
    assert of_a_file(inside).marked([MAPPING])[0].cached_beside == 0
    assert CachedBlocks.of(ProcessOf(-1), []).marked([MAPPING]) == [MAPPING], "not asked"


def test_explain_tells_both_figures_to_the_page_or_says_that_it_does_not():
    memory = columns(1, secondary=False)
    memory.pte[0, 20:], memory.mapcount[0, 20:] = 0, 0
    memory.cached[:] = 50
    taken = snapshot(memory)

    def explained_with(vma):
        header = msgspec.structs.replace(taken.header, mappings=(vma,))
        (mapping,) = explain(Snapshot(header, memory)).mappings
        return mapping, describe_backing(mapping)

    exact, words = explained_with(msgspec.structs.replace(MAPPING, cached_beside=7 * PAGE_SIZE))
    assert (exact.cached, exact.resident, exact.blocks_only) == (57 * PAGE_SIZE, 30 * PAGE_SIZE, ())
    assert words == "memfd, 228 KiB in the page cache, 120 KiB mapped here:"
    part, words = explained_with(clip([MAPPING], (START, START + BLOCK + PAGE_SIZE))[0])
    assert (part.cached, part.resident) == (50 * PAGE_SIZE, 20 * PAGE_SIZE)
    assert words == (
        "memfd, 200 KiB of whole 2 MiB blocks in the page cache, 80 KiB of whole 2 MiB blocks mapped here:"
    )
    whole, words = explained_with(clip([MAPPING], (START, START + BLOCK))[0])
    assert whole.blocks_only == (), "it has nothing beside its whole blocks"
