"""Which mappings MADV_COLLAPSE refuses, and which the administrator would not have: private memory, shared memory, and prctl."""

import msgspec
import pytest

from secondsight.live.act.unfit import ALONE, PRCTL, Beside, unfit
from support.mappings import HERE, vma


class Cache:
    """Shared memory whose page cache was opened; *aligned* with its file or not."""

    def __init__(self, aligned=True):
        self.aligned = aligned

    def of(self, mapping):
        return self


def private(*flags, eligible=None):
    return vma("", "00:00", "rw-p", inode=0, flags=flags, eligible=eligible)


@pytest.mark.parametrize(
    ("mapping", "enabled", "hard", "soft"),
    [
        (private("hg"), "madvise", "", ""),
        (private(), "always", "", ""),
        (private(), "madvise", "", "no MADV_HUGEPAGE"),
        (private("hg"), "never", "", "enabled=never"),
        (private("nh"), "always", "MADV_NOHUGEPAGE", ""),
        (private("nh", "hg"), "always", "MADV_NOHUGEPAGE", ""),
        (private("ht"), "always", "hugetlb", ""),
        # What the kernel itself says counts for the administrator's wish alone.
        (private(eligible=False), "always", "", "THPeligible: 0"),
    ],
)
def test_private_memory(mapping, enabled, hard, soft):
    said = unfit(mapping, enabled, ALONE, msgspec.structs.replace(HERE, enabled=enabled))
    for part, expected in zip(said, (hard, soft), strict=True):
        assert expected.lower() in part.lower() and bool(part) == bool(expected), said


def test_prctl_stands_against_everything_that_nothing_else_does():
    spared, forbidden = Beside(thp_enabled=True), Beside(thp_enabled=False)
    assert unfit(private("hg"), "madvise", spared) == unfit(private("hg"), "madvise", ALONE) == ("", "")
    assert unfit(private(), "never", forbidden) == (PRCTL, "")
    hard, _ = unfit(private("nh"), "always", forbidden)
    assert hard and hard != PRCTL


def test_shared_memory_is_left_alone_where_its_page_cache_was_not_asked():
    hard, soft = unfit(vma(), "always", ALONE, HERE)
    assert "could not be asked" in hard and soft == ""
    hard, soft = unfit(vma(perms="rw-p"), "always", ALONE, HERE)
    assert hard.startswith("a private mapping of shared memory") and soft == ""


@pytest.mark.parametrize(
    ("switch", "flags", "eligible", "hard", "soft"),
    [
        ("advise", ("hg",), True, "", ""),
        ("advise", ("hg",), None, "", "shmem_enabled=advise"),
        ("advise", (), None, "", "shmem_enabled=advise, no MADV_HUGEPAGE"),
        ("always", (), None, "", ""),
        ("within_size", (), None, "", ""),
        ("force", (), None, "", ""),
        ("never", ("hg",), None, "", "shmem_enabled=never"),
        ("", ("hg",), None, "", "shmem_enabled=unknown"),
        ("always", (), False, "", "shmem_enabled=always"),
        # Only deny binds MADV_COLLAPSE.
        ("deny", ("hg",), True, "shmem_enabled=deny", ""),
        ("always", ("nh",), True, "MADV_NOHUGEPAGE", ""),
    ],
)
def test_shared_memory_by_its_switch(switch, flags, eligible, hard, soft):
    said = unfit(vma(flags=flags, eligible=eligible), "never", Beside(cache=Cache(), shmem_enabled=switch))
    for part, expected in zip(said, (hard, soft), strict=True):
        assert expected in part and bool(part) == bool(expected), said


def test_shared_memory_that_lies_askew_of_its_file_cannot_be_mapped_huge():
    hard, soft = unfit(
        vma(eligible=True), "always", Beside(cache=Cache(aligned=False), shmem_enabled="always")
    )
    assert hard.startswith("misaligned against its file") and soft == ""
