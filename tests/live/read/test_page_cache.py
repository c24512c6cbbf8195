"""What is in the page cache of a process's shared memory, mapped by it or not."""

import os

import pytest

from secondsight.live.read.page_cache import PageCache
from secondsight.live.read.process import Process
from secondsight.live.read.vma import clip, parse_smaps
from support.operators import BLOCK, MIB, operated


@pytest.fixture(params=["shared", "segment"])
def shared(request):
    if os.geteuid() != 0:
        pytest.skip("following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE")
    with operated(request.param) as process, Process.open(process.pid) as held:
        yield process, held, parse_smaps(held.read_file("smaps"))


def test_every_block_is_found_whoever_maps_it(shared):
    process, held, vmas = shared
    with PageCache(held, vmas) as cache:
        (vma,) = [vma for vma in vmas if vma.start == process.start]
        file = cache.of(vma)
        assert file is not None and file.aligned
        blocks, pages = file.blocks(vma.start, vma.end)
        assert blocks.tolist() == list(range(process.start, process.end, BLOCK))
        assert set(pages.tolist()) == {512} and cache.cached(process.start) == 512
        assert cache.cached(process.end) is None
    after = {vma.start: vma for vma in parse_smaps(held.read_file("smaps"))}[process.start]
    assert not after.kb.get("ShmemPmdMapped"), "looking changed nothing"


def test_a_part_of_a_mapping_is_of_the_same_file(shared):
    process, held, vmas = shared
    with PageCache(held, vmas) as cache:
        (part,) = clip(vmas, (process.start + 3 * MIB, process.start + 7 * MIB))
        file = cache.of(part)
        assert file is not None and file.aligned, "the mapping is, whatever part of it is asked about"
        blocks, _ = file.blocks(part.start, part.end)
        assert blocks.tolist() == [process.start + 4 * MIB]


def test_private_memory_is_none(shared):
    _, held, vmas = shared
    with PageCache(held, vmas) as cache:
        assert all(cache.of(vma) is None for vma in vmas if vma.perms.endswith("p"))


def test_a_file_shorter_than_its_mapping_has_nothing_beyond(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE")
    import mmap

    fd = os.memfd_create("short")
    os.ftruncate(fd, 16 * MIB)
    with mmap.mmap(fd, 16 * MIB, mmap.MAP_SHARED) as ours, Process.open(os.getpid()) as held:
        ours[: 9 * MIB] = b"x" * (9 * MIB)
        os.ftruncate(fd, 8 * MIB + 4096)
        vmas = [v for v in parse_smaps(held.read_file("smaps")) if "memfd:short" in v.name]
        with PageCache(held, vmas) as cache:
            (vma,) = vmas
            file = cache.of(vma)
            assert file is not None
            assert int(file.pages(vma.start, vma.end).sum()) == 2048 + 1
    os.close(fd)
