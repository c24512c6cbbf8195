"""Mappings and switches made by hand."""

from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma

MIB = 1 << 20
#: Shared memory where it is advised; one tmpfs mount with huge pages, one without.
HERE = Switches(
    enabled="madvise", shmem_enabled="advise", shmem_size="inherit", sizes={2048: "inherit"}, internal="00:01",
    mounts={"00:20": "always", "00:21": "never"},
)  # fmt: skip


def vma(name="/memfd:ram (deleted)", device="00:01", perms="rw-s", flags=("hg",), offset=0, inode=7, **more):
    """A mapping of 8 MiB; of a memfd, advised, unless said otherwise."""
    return Vma(
        0x7F0000000000,
        0x7F0000000000 + 8 * MIB,
        perms,
        offset,
        device,
        inode,
        name,
        frozenset(flags),
        {},
        **more,
    )
