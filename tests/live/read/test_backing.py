"""What stands behind a mapping: a name proves nothing, flags, device and inode do."""

import pytest

from secondsight.live.read.backing import Backing, backing
from support.mappings import HERE, vma


@pytest.mark.parametrize(
    ("mapping", "kind"),
    [
        (vma(), Backing.MEMFD),
        (vma("/dev/zero (deleted)"), Backing.SHARED_ANONYMOUS),
        (vma("/SYSV00000000 (deleted)"), Backing.SYSV),
        # The first segment's number is 0, and so is its inode's.
        (vma("/SYSV00000000 (deleted)", inode=0), Backing.SYSV),
        (vma("/dev/shm/PostgreSQL.1", "00:20"), Backing.TMPFS),
        (vma("/memfd:looks-like-one", "fd:01"), Backing.FILE),
        (vma("/usr/lib/libc.so", "fd:01", "r-xp"), Backing.FILE),
        (vma("", "00:00", "rw-p", inode=0), Backing.ANONYMOUS),
        (vma("/dev/zero", "00:06", "rw-p", zero_device=True), Backing.ZERO_DEVICE),
        (vma("/anon_hugepage (deleted)", "00:0e", flags=("ht", "de")), Backing.HUGETLB),
        (vma("/dev/nvidia0", "00:06", flags=("io", "pf")), Backing.DEVICE),
        (vma("/anon_inode:[kvm-gmem]", "00:0f"), Backing.GUEST_MEMFD),
        (vma("[vdso]", "00:00", "r-xp", inode=0), Backing.SPECIAL),
    ],
)
def test_what_stands_behind(mapping, kind):
    assert backing(mapping, HERE) is kind
