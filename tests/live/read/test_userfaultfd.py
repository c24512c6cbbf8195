"""Which shared memory somebody has registered for missing pages: the mappings of its file, laid out by hand."""

import pytest

pytest.importorskip("drgn")

from secondsight.live.read.userfaultfd import missing_waited_for
from support.fake_kernel import STRUCTS, FakeKernel

MISSING, WRITE_PROTECTED = 0x200, 0x1000
TMPFS, EXT4 = 0x01021994, 0xEF53
NOWHERE = 0xFFFF_A000_0000_0000


@pytest.fixture
def kernel():
    of_trees = {
        "rb_node": {"__rb_parent_color": "u64", "rb_right": "rb_node*", "rb_left": "rb_node*"},
        "rb_root": {"rb_node": "rb_node*"},
        "rb_root_cached": {"rb_root": "rb_root", "rb_leftmost": "rb_node*"},
        "shared": {"rb": "rb_node"},
        "super_block": {"s_magic": "u64"},
        "address_space": {"i_mmap": "rb_root_cached"},
    }
    more = {
        "vm_area_struct": {**STRUCTS["vm_area_struct"], "shared": "shared"},
        "inode": {**STRUCTS["inode"], "i_sb": "super_block*"},
        "file": {**STRUCTS["file"], "f_mapping": "address_space*"},
    }
    return FakeKernel({**of_trees, **STRUCTS, **more})


def file(kernel, magic=TMPFS):
    """(struct file, its struct address_space), which nobody maps."""
    cache = kernel.make("address_space")
    inode = kernel.make("inode", i_sb=kernel.make("super_block", s_magic=magic))
    return kernel.make("file", f_inode=inode, f_mapping=cache), cache


def area(kernel, of, first, pages, flags=0, start=0x7F00_0000_0000, **more):
    """A mapping of *pages* pages of the file from page *first* on."""
    return kernel.make(
        "vm_area_struct", vm_start=start, vm_end=start + pages * 4096, vm_pgoff=first, vm_file=of, vm_flags=flags, **more
    )  # fmt: skip


def mapped_by(kernel, cache, middle, left=None, right=None):
    """Hang mappings into the file's tree."""
    node = [each and kernel.member("vm_area_struct", each, "shared") for each in (middle, left, right)]
    kernel.change("rb_node", node[0], rb_left=node[1] or 0, rb_right=node[2] or 0)
    for each in node[1:]:
        if each:
            kernel.change("rb_node", each, __rb_parent_color=node[0])
    kernel.change("rb_root", kernel.member("address_space", cache, "i_mmap"), rb_node=node[0])


def test_what_anybody_registered_is_told_by_our_addresses(kernel):
    of, cache = file(kernel)
    mine = area(kernel, of, 100, 50)
    theirs = area(kernel, of, 90, 20, MISSING, start=0x5000_0000)
    beside = area(kernel, of, 150, 10, MISSING, start=0x6000_0000)
    mapped_by(kernel, cache, mine, theirs, beside)
    mm = kernel.make("mm_struct", mmap=mine)
    start = 0x7F00_0000_0000
    assert missing_waited_for(kernel, mm) == ((start, start + 10 * 4096),)
    kernel.change("vm_area_struct", theirs, vm_flags=WRITE_PROTECTED)
    assert missing_waited_for(kernel, mm) == ()
    kernel.change("vm_area_struct", mine, vm_flags=MISSING)
    assert missing_waited_for(kernel, mm) == ((start, start + 50 * 4096),)


def test_two_mappings_of_one_file_are_each_told(kernel):
    of, cache = file(kernel)
    second = area(kernel, of, 0, 8, start=0x7F00_0010_0000)
    first = area(kernel, of, 0, 4, vm_next=second)
    theirs = area(kernel, of, 3, 2, MISSING, start=0x5000_0000)
    mapped_by(kernel, cache, theirs, first, second)
    assert missing_waited_for(kernel, kernel.make("mm_struct", mmap=first)) == (
        (0x7F00_0000_3000, 0x7F00_0000_4000), (0x7F00_0010_3000, 0x7F00_0010_5000),
    )  # fmt: skip


def test_files_that_are_no_shared_memory_and_anonymous_memory_are_not_looked_at(kernel):
    of, cache = file(kernel, EXT4)
    mine = area(kernel, of, 0, 8, vm_next=area(kernel, 0, 0, 8, MISSING))
    mapped_by(kernel, cache, mine, area(kernel, of, 0, 8, MISSING))
    assert missing_waited_for(kernel, kernel.make("mm_struct", mmap=mine)) == ()


def test_what_would_not_hold_still_is_unknown(kernel):
    of, cache = file(kernel)
    mine = area(kernel, of, 0, 8)
    mapped_by(kernel, cache, mine)
    mm = kernel.make("mm_struct", mmap=mine)
    kernel.change("rb_node", kernel.member("vm_area_struct", mine, "shared"), rb_right=NOWHERE)
    assert missing_waited_for(kernel, mm) is None
    assert missing_waited_for(kernel, kernel.make("mm_struct", mmap=NOWHERE)) is None


def test_a_tree_that_leads_in_circles_is_unknown(kernel, monkeypatch):
    monkeypatch.setattr("secondsight.live.read.userfaultfd.MOST_MAPPINGS", 2)
    of, cache = file(kernel)
    mine, *others = (area(kernel, of, 0, 8) for _ in range(3))
    mapped_by(kernel, cache, mine, *others)
    assert missing_waited_for(kernel, kernel.make("mm_struct", mmap=mine)) is None
