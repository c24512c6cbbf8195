"""The mappings in question, found as the reader of all mappings finds them."""

from pathlib import Path

import msgspec
import pytest

from secondsight.host.areas import areas_of, guest_ram
from secondsight.live.read.eligible import ineligible
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import parse_smaps
from support.area import area

VMA = """{range} {perms} {offset:08x} {device} {inode}                      {name}
Size:              20480 kB
Rss:                {rss} kB
Pss:                {rss} kB
Referenced:        0 kB
Anonymous:         0 kB
AnonHugePages:     0 kB
ShmemPmdMapped:    0 kB
Swap:              0 kB
THPeligible:           {eligible}
VmFlags: {flags}
"""


def switches(enabled="madvise", shmem="never", shm_mount="never"):
    return Switches(enabled=enabled, shmem_enabled=shmem, mounts={"00:09": shm_mount})


def text(
    name="",
    flags="rd wr mr mw me ac",
    perms="rw-p",
    rss=8192,
    eligible=1,
    inode=0,
    device="",
    offset=0x100000,
):
    span = "7f0000100000-7f0001500000"
    return VMA.format(
        offset=offset,
        device=device or ("00:01" if inode else "00:00"),
        range=span,
        perms=perms,
        inode=inode,
        name=name,
        rss=rss,
        eligible=eligible,
        flags=flags,
    ).encode()


def test_our_own_as_the_whole_reader_has_them():
    memory, _ = area(range(512))
    smaps = Path("/proc/self/smaps").read_bytes()
    now, then = switches("madvise"), switches("always", "always")
    by_start = {each.vma.start: each for each in areas_of(smaps, now, then) if not each.shmem}
    for vma in parse_smaps(smaps):
        wanted = vma.anonymous and vma.first_block < vma.block_end and (vma.kb["Rss"] or vma.kb["Swap"])
        wanted = wanted and not vma.flags & {"ht", "io", "pf", "mm"}
        assert (vma.start in by_start) == bool(wanted), vma
        if wanted:
            assert by_start[vma.start].now == ineligible(vma, "madvise")
            assert by_start[vma.start].vma.kb["Rss"] == vma.kb["Rss"]
    del memory


@pytest.mark.parametrize(
    ("given", "now", "then"),
    [
        ({}, "not advised (enabled=madvise, no MADV_HUGEPAGE)", ""),
        ({"flags": "rd wr hg"}, "", ""),
        ({"flags": "rd wr nh"}, "MADV_NOHUGEPAGE", "MADV_NOHUGEPAGE"),
        (
            {"name": "/memfd:ram (deleted)", "perms": "rw-s", "inode": 5},
            "shared memory: not allowed (shmem_enabled=never); MADV_COLLAPSE would",
            "",
        ),
        (
            {"name": "/memfd:ram (deleted)", "perms": "rw-s", "inode": 5, "flags": "rd nh"},
            "MADV_NOHUGEPAGE",
            "MADV_NOHUGEPAGE",
        ),
    ],
)
def test_why_not(given, now, then):
    areas = areas_of(text(**given), switches("madvise"), switches("always", "always"))
    assert [(each.now, each.then) for each in areas] == [(now, then)]
    assert areas[0].ranges == 9


def test_tmpfs_asks_its_mount_and_the_kernels_word():
    shared = {"name": "/dev/shm/x", "perms": "rw-s", "inode": 5, "device": "00:09"}
    advise, always = switches(shm_mount="advise"), switches(shm_mount="always")
    assert "huge=advise of its mount" in areas_of(text(**shared, eligible=0), advise, always)[0].now
    assert areas_of(text(**shared, flags="rd hg"), advise, always)[0].now == ""
    assert "THPeligible" in areas_of(text(**shared, eligible=0), always, always)[0].now
    assert areas_of(text(**shared, eligible=0), advise, always)[0].then == ""
    # shmem_enabled is not asked about a mount.
    assert (
        "huge=never" in areas_of(text(**shared, eligible=0), switches(), switches("always", "always"))[0].then
    )


def test_a_containers_mount_is_asked_once_and_only_for_a_shared_file():
    asked = []

    def mounts():
        asked.append(1)
        return {"00:77": "always"}

    theirs = text(name="/dev/shm/x", perms="rw-s", inode=5, device="00:77", eligible=1)
    disk = text(name="/var/lib/x", perms="rw-s", inode=6, device="08:01", eligible=0)
    areas = areas_of(disk + theirs + theirs, switches(), switches(), mounts)
    assert [(each.vma.name, each.now) for each in areas] == [("/dev/shm/x", "")] * 2
    assert len(asked) == 1
    areas_of(text(), switches(), switches(), mounts)
    assert len(asked) == 1


def test_misaligned_shared_memory_is_never_huge():
    shared = {"name": "/memfd:ram (deleted)", "perms": "rw-s", "inode": 5, "offset": 0x1000}
    (shared_area,) = areas_of(text(**shared), switches("always", "always"), switches("always", "always"))
    assert "misaligned" in shared_area.now and "misaligned" in shared_area.then


@pytest.mark.parametrize(
    "given", [{"rss": 0}, {"name": "/usr/lib/libx.so", "inode": 9}, {"flags": "rd ht"}, {"flags": "rd pf io"}]
)
def test_not_in_question(given):
    assert areas_of(text(**given), switches(), switches()) == []


def test_a_name_that_looks_like_a_field():
    both = text(name="/tmp/VmFlags: hg", perms="rw-s", inode=5) + text(flags="rd hg")
    assert [each.vma.name for each in areas_of(both, switches(), switches())] == [""]


def test_guest_ram():
    marked, other = (
        areas_of(text(flags=flags), switches(), switches())[0] for flags in ("rd wr dc", "rd wr")
    )
    assert guest_ram([marked, other], "qemu-system-x86_64") == [marked]


def test_what_lies_beside_guest_ram_is_none_as_in_explain():
    """QEMU marks VGA memory and its ACPI tables as it marks RAM: small mappings beside one four times as large."""

    def marked(blocks):
        (guest_area,) = areas_of(text(flags="rd wr dc"), switches(), switches())
        vma = msgspec.structs.replace(guest_area.vma, start=0, end=blocks << 21)
        return msgspec.structs.replace(guest_area, vma=vma)

    tables, less, large = map(marked, (1, 3, 8))
    assert guest_ram([tables, less, large], "qemu-system-x86_64") == [less, large]
    assert guest_ram([tables, less], "qemu-system-x86_64") == [tables, less]
