"""Which mappings khugepaged looks at, through which scan, and by which switch."""

import msgspec
import pytest

from secondsight.live.read.backing import Backing
from secondsight.live.read.eligible import judge
from support.mappings import HERE, vma

MEMFD, TMPFS, QUIET = vma(), vma("/dev/shm/a", "00:20"), vma("/mnt/b", "00:21")


@pytest.mark.parametrize(
    ("mapping", "changes", "allowed", "by"),
    [
        (MEMFD, {}, True, "shmem_enabled=advise"),
        (vma(flags=()), {}, False, "shmem_enabled=advise"),
        (MEMFD, {"shmem_enabled": "never"}, False, "shmem_enabled=never"),
        (vma(flags=()), {"shmem_enabled": "always"}, True, "shmem_enabled=always"),
        (
            MEMFD,
            {"shmem_enabled": "never", "shmem_size": "always"},
            True,
            "hugepages-2048kB/shmem_enabled=always",
        ),
        (MEMFD, {"shmem_size": "never"}, False, "hugepages-2048kB/shmem_enabled=never"),
        (MEMFD, {"shmem_enabled": "deny", "shmem_size": "always"}, False, "shmem_enabled=deny"),
        (MEMFD, {"shmem_enabled": "force"}, True, "shmem_enabled=force"),
        (MEMFD, {"shmem_enabled": "force", "shmem_size": "always"}, False, "shmem_enabled=force"),
        (TMPFS, {"shmem_enabled": "never"}, True, "huge=always of its mount"),
        (QUIET, {"shmem_enabled": "always"}, False, "huge=never of its mount"),
        (QUIET, {"shmem_enabled": "force", "shmem_size": "always"}, True, "shmem_enabled=force"),
        # Before the sizes' own switches khugepaged did not run at all with enabled=never.
        (MEMFD, {"shmem_size": "", "sizes": {}}, True, "shmem_enabled=advise"),
    ],
)
def test_shared_memory_by_its_switch(mapping, changes, allowed, by):
    """shmem_allowable_huge_orders of 7.3.4, read; shmem_is_huge of 6.1 where the size has no switch."""
    judged = judge(mapping, "madvise", msgspec.structs.replace(HERE, **changes))
    assert (not judged.refused, judged.by) == (allowed, by), judged
    assert bool(judged.forced) == (changes.get("shmem_enabled") == "deny"), (
        "MADV_COLLAPSE ignores the switches, but deny"
    )


def test_what_madv_collapse_would_make_of_it_is_said_as_it_is():
    never = msgspec.structs.replace(HERE, shmem_enabled="never")

    def said(**changes):
        return judge(msgspec.structs.replace(MEMFD, **changes), "madvise", never).refused.partition("; ")[2]

    assert said() == "MADV_COLLAPSE would"
    assert said(perms="rw-p") == "MADV_COLLAPSE would, where no page was copied"
    assert "not map it so" in said(flags=frozenset({"hg", "uw"}))


def test_before_the_sizes_switches_never_is_never():
    old = msgspec.structs.replace(HERE, shmem_size="", sizes={})
    assert judge(MEMFD, "never", old).refused == "khugepaged does not run (enabled=never)"
    assert judge(MEMFD, "never", HERE).refused == ""


def test_a_mapping_misaligned_against_its_file():
    """QEMU 7.2 puts its memfd at …fff000: no PMD can map its huge pages, and MADV_COLLAPSE is EINVAL."""
    judged = judge(vma(offset=0x1000), "madvise", HERE)
    assert (
        "misaligned against the file" in judged.refused
        and "2,044 KiB" in judged.refused
        and judged.forced == judged.refused
    )
    assert judge(vma(offset=0x200000), "madvise", HERE).refused == ""
    assert (
        judge(vma("", "00:00", "rw-p", inode=0, offset=0x7F0000000000 + 0x1000), "madvise", HERE).refused
        == ""
    )


@pytest.mark.parametrize("offset", [0, 0x3000])
@pytest.mark.parametrize(("eligible", "refused"), [(True, False), (False, True), (None, True)])
def test_a_file_is_what_the_kernel_says_it_is(eligible, refused, offset):
    judged = judge(
        vma("/usr/bin/python", "fd:01", "r-xp", flags=(), eligible=eligible, offset=offset), "always", HERE
    )
    # That a program lies misaligned against its file is nobody's to mend.
    assert "misaligned" not in judged.refused
    assert bool(judged.refused) == refused and judged.backing is Backing.FILE


@pytest.mark.parametrize(
    ("more", "refused", "forced"),
    [
        ({"eligible": True}, "", ""),
        ({"eligible": False}, "no MADV_HUGEPAGE", ""),
        ({"eligible": False, "flags": ("hg",)}, "makes no folios of 2 MiB", "makes no folios of 2 MiB"),
        ({"eligible": None, "flags": ("hg",)}, "was not read", "was not read"),
        (
            {"eligible": False, "offset": 0x3000},
            "2,036 KiB modulo 2 MiB",
            "map it at an address that is aligned as",
        ),
        ({"eligible": False, "flags": ("nh",)}, "MADV_NOHUGEPAGE", "MADV_NOHUGEPAGE"),
    ],
)
def test_a_file_where_the_kernel_collapses_files(more, refused, forced):
    """7.3: the global switch decides for khugepaged, and MADV_COLLAPSE does not ask it."""
    judged = judge(
        vma("/usr/bin/python", "fd:01", "r-xp", **{"flags": (), **more}), "madvise", HERE, files=True
    )
    assert (refused in judged.refused, bool(judged.refused)) == (True, bool(refused))
    assert (forced in judged.forced, bool(judged.forced)) == (True, bool(forced))


@pytest.mark.parametrize(
    ("eligible", "any_size", "refused"), [(True, True, False), (True, False, True), (False, True, True)]
)
def test_a_smaller_size_is_enough_for_shared_memory_up_to_6_16(eligible, any_size, refused):
    """Booted, 6.12.118: hugepages-64kB/shmem_enabled alone, and khugepaged makes 2 MiB of it."""
    off = msgspec.structs.replace(HERE, shmem_enabled="never")
    judged = judge(vma(flags=(), eligible=eligible), "madvise", off, any_size=any_size)
    assert bool(judged.refused) == refused


def test_the_kernels_no_has_the_last_word():
    assert "THPeligible: 0" in judge(vma(eligible=False), "madvise", HERE).refused
    assert judge(vma(flags=("nh",)), "madvise", HERE).refused == "MADV_NOHUGEPAGE"
    assert judge(vma("/anon_hugepage", flags=("ht", "de")), "always", HERE).refused == "hugetlb"
