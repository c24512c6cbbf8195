"""What is in the page cache of a process's shared memory, mapped by it or not."""

import mmap
import os
import subprocess
import sys

import pytest

from secondsight.geometry import PAGE_SIZE
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from secondsight.live.read.cached_blocks import CachedBlocks
from secondsight.live.read.columns import Columns
from secondsight.live.read.page_cache import CachedFile, PageCache, local_devices
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


def test_a_range_of_a_mapping_is_judged_as_the_whole_is(shared):
    process, held, _ = shared
    whole = explain(capture.take(held, None))
    # Neither end is a block's.
    within = (process.start + MIB + PAGE_SIZE, process.start + 7 * MIB)
    part = explain(capture.take(held, None, within=within))
    inside = [
        block for block in whole.blocks if within[0] <= block.address and block.address + BLOCK <= within[1]
    ]
    assert [block.cached for block in inside] == [512] * 2
    assert list(part.blocks) == inside
    (mapping,) = part.mappings
    (of_whole,) = [each for each in whole.mappings if each.start == process.start]
    assert (mapping.refused, mapping.forced) == (of_whole.refused, of_whole.forced)
    assert mapping.cached == within[1] - within[0], "its pages beside whole blocks too"


def test_private_memory_is_none(shared):
    _, held, vmas = shared
    with PageCache(held, vmas) as cache:
        assert all(cache.of(vma) is None for vma in vmas if vma.perms.endswith("p"))


def test_a_file_shorter_than_its_mapping_has_nothing_beyond(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE")
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


@pytest.fixture
def mapped_file(tmp_path):
    """A file of 6 MiB on a disk, of which blocks 0 and 1 are in the page cache, mapped private; held, and its aligned mapping."""
    if os.geteuid() != 0:
        pytest.skip("following a link of map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE")
    path = tmp_path / "data"
    path.write_bytes(os.urandom(6 * MIB))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 4 * MIB, 2 * MIB, os.POSIX_FADV_DONTNEED)
    with mmap.mmap(fd, 6 * MIB, mmap.MAP_PRIVATE, mmap.PROT_READ), Process.open(os.getpid()) as held:
        (vma,) = [v for v in parse_smaps(held.read_file("smaps")) if v.name == str(path)]
        if vma.device not in local_devices(held.read_file("mountinfo").decode()):
            pytest.skip("the temporary folder is on no local file system")
        # Where mmap put it need not be aligned: judged as if it were.
        yield fd, held, vma
    os.close(fd)


def test_a_regular_file_is_asked_too(mapped_file):
    fd, held, vma = mapped_file
    file = CachedFile.open(held, vma, local_devices(held.read_file("mountinfo").decode()))
    assert file is not None
    there = file.pages(vma.start, vma.end)
    assert there[:1024].all() and not there[1024:].any()
    counts = file.counts(vma.start, vma.end)
    if counts is not None:
        assert counts == (1024, 0, 0)
        os.pwrite(fd, b"x" * 3 * PAGE_SIZE, 0)
        cached, dirty, evicted = file.counts(vma.start, vma.start + 2 * MIB)
        # A large folio is dirty as a whole.
        assert (cached, evicted) == (512, 0) and 3 <= dirty <= 512
    file.close()


def test_of_a_file_in_columns_each_block_has_what_is_there_and_unwritten(mapped_file):
    fd, held, vma = mapped_file
    os.pwrite(fd, b"x" * 5 * PAGE_SIZE, vma.first_block - vma.start)
    cache = CachedBlocks.of(held, [vma])
    memory = Columns.empty(cache.joined(cache.address[:0]))
    cache.fill(memory)
    assert memory.address.tolist() == cache.address.tolist() and memory.address[0] == vma.first_block
    assert memory.cached[0] == 512
    assert (memory.dirty[0], memory.evicted[0]) == (-1, -1) or (
        5 <= memory.dirty[0] <= 512 and memory.evicted[0] == 0
    )


def test_to_who_neither_owns_nor_may_write_it_nothing_is_told_of_a_file(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    path = tmp_path / "data"
    path.write_bytes(b"x" * 2 * MIB)
    code = (
        "import os, sys; from secondsight.live.read.page_cache import CachedFile;"
        f"fd = os.open({str(path)!r}, os.O_RDONLY); first = CachedFile(fd, None).honest(); os.setuid(65534);"
        "print(first, CachedFile(fd, None).honest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Before 5.2 mincore tells everybody the truth.
    assert done.stdout.split() == ["True", "False"]


def test_which_devices_are_local():
    text = (
        "21 1 254:0 / / rw - ext4 /dev/vda rw\n22 1 0:33 / /net rw - nfs4 a:/ rw\n23 1 0:34 / /f rw - fuse.sshfs x rw\n"
        "24 1 0:35 / /tmp rw,nosuid shared:3 - tmpfs tmpfs rw,huge=always\n"
    )
    assert local_devices(text) == {"fe:00", "00:23"}
