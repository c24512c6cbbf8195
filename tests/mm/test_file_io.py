"""Regular files: what reading and writing bring into the page cache, what fadvise makes of it, and every count."""

from __future__ import annotations

import pytest

from secondsight.errors import UsageError
from secondsight.mm import page as pg
from secondsight.mm.file_io import calls, file_drop, file_read, file_sync, file_write
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from support.model import holds, pages
from support.regular_files import mapping, orders


def test_a_kernel_that_collapses_no_file_and_one_that_is_too_long_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^6\.12: regular files are modelled from 7\.2 on.*READ_ONLY_THP"):
        Host("6.12").regular_file("data", 1)
    with pytest.raises(UsageError, match="at most two"):
        Host("7.3").regular_file("data", 3)


def test_a_call_ends_where_a_block_does() -> None:
    assert list(calls(500, 1100)) == [(500, 512), (512, 1024), (1024, 1100)]


def test_written_folios_are_as_large_as_alignment_and_what_is_there_allow() -> None:
    host, memory, _ = mapping()
    file_write(host, memory, 3, 12)
    # 3, then 4 to 7, then 8 to 11.
    assert orders(host, memory) == [0, 2, 2]
    host, memory, _ = mapping()
    file_read(host, memory, 5, 6)
    file_write(host, memory, 0, 8)
    # Four fit before what is there; page 4; page 5 was there; two pages as one.
    assert orders(host, memory) == [2, 0, 0, 1]
    holds(host)
    host, memory, _ = mapping()
    file_write(host, memory, 0, 512)
    assert orders(host, memory) == [9]
    holds(host)


@pytest.mark.parametrize("mglru", [False, True])
def test_drop_takes_what_nobody_uses_and_is_wholly_inside(mglru) -> None:
    host, memory, a = mapping(mglru=mglru)
    file_write(host, memory, 0, 8)
    file_read(host, memory, 8, 12)
    host.drain()
    a.cpu_access(pages(0, 9), write=False)
    madvise(a, 0, 8, "dontneed")
    file_drop(host, memory, 2, 12)
    # The large folio is cut by the range; 8 to 11 are mapped.
    assert orders(host, memory) == [3, 0, 0, 0, 0]
    f = host.frames.arrays
    assert not f.flags[int(memory.cache[0])] & pg.DIRTY, "what the range touches was written"
    assert bool(f.flags[int(memory.cache[9])] & pg.REFERENCED) == (not mglru)
    madvise(a, 0, 512, "dontneed")
    file_drop(host, memory, 0, 512)
    assert not memory.cache.any()
    holds(host)


def test_a_page_that_is_held_ends_the_scan_and_its_buffer_heads_do_not() -> None:
    host, memory, a = mapping()
    file_write(host, memory, 0, 16)
    file_sync(host, memory)
    host.drain()
    assert madvise(a, 0, 512, "collapse") is None, "buffer heads are let go of"
    host, memory, a = mapping()
    file_read(host, memory, 0, 16)
    a.pin(pages(0, 3), "p")
    host.drain()
    assert madvise(a, 0, 512, "collapse") == "EAGAIN"
    holds(host)
