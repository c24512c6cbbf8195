"""maps and smaps: real lines, odd names, and noise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError
from secondsight.live.read.vma import clip, parse_maps, parse_smaps

MAPS = b"""\
55d0c0a00000-55d0c0a21000 r-xp 00002000 fe:00 26723                      /usr/bin/with space (deleted)
7f5c40000000-7f5c40600000 rw-p 00000000 00:00 0 
7ffd3f000000-7ffd3f021000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""  # noqa: W291 - the kernel ends a nameless mapping with a blank

SMAPS = b"""\
7f5c40000000-7f5c40600000 rw-p 00000000 00:00 0 
Size:               6144 kB
Rss:                2052 kB
Referenced:           24 kB
AnonHugePages:      2048 kB
THPeligible:           1
ProtectionKey:         0
VmFlags: rd wr mr mw me ac hg 
7f5c40700000-7f5c40800000 rw-s 00000000 00:01 77                         /dev/shm/x
Rss:                   0 kB
VmFlags: rd wr sh mr mw me ms
"""  # noqa: W291


def test_maps():
    program, heap, stack, vsyscall = parse_maps(MAPS)
    assert program.name == "/usr/bin/with space (deleted)"
    assert not program.anonymous
    assert (heap.first_block, heap.block_end) == (heap.start, heap.end)
    assert heap.anonymous and heap.flags == frozenset()
    assert stack.first_block >= stack.block_end, "a mapping below 2 MiB holds no whole block"
    assert vsyscall.end == 0xFFFFFFFFFF601000


def test_smaps():
    heap, shared = parse_smaps(SMAPS)
    assert heap.kb["Referenced"] == 24 and heap.kb["AnonHugePages"] == 2048
    assert "hg" in heap.flags and heap.eligible is True
    assert not shared.anonymous and shared.eligible is None


def test_own_smaps_agree_with_maps():
    from pathlib import Path

    maps, smaps = (
        parse_maps(Path("/proc/self/maps").read_bytes()),
        parse_smaps(Path("/proc/self/smaps").read_bytes()),
    )

    # What is read of files does not move between the two readings; our own memory may.
    def files(vmas):
        return [(v.start, v.end, v.name) for v in vmas if v.name.startswith("/")]

    assert files(maps) == files(smaps) != []
    assert {v.name for v in maps if v.name.startswith("[")} == {
        v.name for v in smaps if v.name.startswith("[")
    }
    assert all("Rss" in v.kb and v.flags for v in smaps if v.name != "[vsyscall]")


@pytest.mark.parametrize(
    "text",
    [b"Rss: 4 kB\n", b"zz-yy rw-p 0 0 0\n", b"2000-1000 rw-p 0 00:00 0\n", b"1000-2000 rw 0 00:00 0\n"],
)
def test_refused_with_its_place(text):
    with pytest.raises(InputError, match="smaps: line 1"):
        parse_smaps(text)


@given(st.binary(max_size=400))
def test_noise_is_refused_or_read(noise):
    for text in (noise, SMAPS[: len(noise)], SMAPS[:200] + noise):
        try:
            assert all(vma.start < vma.end for vma in parse_smaps(text))
        except InputError:
            continue


def test_a_range_cuts_mappings():
    vmas = parse_maps(
        b"1000-3000 rw-p 00000000 00:00 0\n3000-6000 r--p 00000000 00:00 0 [heap]\n8000-9000 rw-p 00000000 00:00 0\n"
    )
    assert [(v.start, v.end) for v in clip(vmas, (0x2000, 0x4000))] == [(0x2000, 0x3000), (0x3000, 0x4000)]
    assert clip(vmas, (0x6000, 0x8000)) == [] and clip(vmas, None) == vmas


def test_a_part_of_a_file_begins_at_its_own_offset():
    (vma,) = parse_maps(b"7f0000200000-7f0000a00000 rw-s 00400000 00:01 7 /memfd:ram\n")
    (part,) = clip([vma], (0x7F0000201000, 0x7F0000800000))
    assert part.start - part.offset == vma.start - vma.offset, "or it would look misaligned against its file"
    (anonymous,) = clip(parse_maps(b"1000-3000 rw-p 00000000 00:00 0\n"), (0x2000, 0x3000))
    assert anonymous.offset == 0
