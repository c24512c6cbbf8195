"""``struct page`` in bulk, laid out by hand: flags in our numbers, counts of small and large folios, tails that answer as their heads."""

import pytest

pytest.importorskip("drgn")

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.errors import MissingDependency
from secondsight.live.read.frames import FrameReader
from support.fake_kernel import STRUCTS, VMEMMAP, FakeKernel

#: Numbers as no kernel has them, so that they must come from its own.
FLAGS = {
    "PG_locked": 3, "PG_referenced": 9, "PG_dirty": 1, "PG_lru": 12, "PG_active": 2, "PG_swapbacked": 20, "PG_head": 17,
    "PG_swapcache": 5, "PG_young": 30, "PG_private": 7,
}  # fmt: skip
ANON = 0xFFFF_9000_0000_0001


class Frames:
    """A kernel whose frames are pages of 64 bytes at their places."""

    def __init__(self, without=(), flags=FLAGS, folio=("_large_mapcount", "_entire_mapcount", "_mm_ids")):
        structs = {name: dict(members) for name, members in STRUCTS.items()}
        for name in without:
            del structs["page"][name]
        for name in set(structs["folio"]) - {"flags", "end", *folio}:
            del structs["folio"][name]
        self.kernel = FakeKernel(structs, flags)

    def page(self, pfn, *names, **members):
        word = sum(1 << FLAGS[name] for name in names)
        members = {"_mapcount": 0, "_refcount": 1, "mapping": ANON} | members
        self.kernel.make("page", at=VMEMMAP + 64 * pfn, flags=word, **members)

    def folio(self, pfn, order, *names, entire=-1, large=0, ids=0, own=(), **members):
        """A large folio: *own*: pages that PTEs map; *large*: _large_mapcount + 1; *entire*: _entire_mapcount."""
        for i in range(1 << order):
            head = {"compound_head": VMEMMAP + 64 * pfn | 1} if i else {}
            self.page(
                pfn + i,
                *(("PG_head", *names) if i == 0 else ()),
                _mapcount=0 if i in own else -1,
                **head,
                **members,
            )
        second = VMEMMAP + 64 * (pfn + 1)
        self.kernel.change("page", second, flags=order)
        for name, value in (("_large_mapcount", large - 1), ("_entire_mapcount", entire), ("_mm_ids", ids)):
            if name in self.kernel.offsets["folio"]:
                self.kernel.change("folio", VMEMMAP + 64 * pfn, **{name: value})

    def read(self, *pfns):
        return FrameReader(self.kernel).read(np.array(pfns, np.uint64))


def test_flags_are_translated_by_the_kernels_own_numbers():
    made = Frames()
    made.page(5, "PG_lru", "PG_referenced", "PG_young", "PG_swapbacked")
    made.page(6, "PG_locked", "PG_dirty", "PG_active", mapping=0, _mapcount=-1)
    made.page(7, "PG_swapcache", "PG_private")  # of no swapbacked page: another use of the bit
    made.page(8, "PG_swapcache", "PG_swapbacked", mapping=3)
    flags = made.read(5, 6, 7, 8).flags
    assert flags.tolist() == [
        int(kpf.LRU | kpf.REFERENCED | kpf.YOUNG | kpf.SWAPBACKED | kpf.ANON | kpf.MMAP),
        int(kpf.LOCKED | kpf.DIRTY | kpf.ACTIVE),
        int(kpf.PRIVATE | kpf.ANON | kpf.MMAP),
        int(kpf.SWAPCACHE | kpf.SWAPBACKED | kpf.ANON | kpf.KSM | kpf.MMAP),
    ]


def test_counts_of_small_pages_in_any_order_and_again():
    made = Frames()
    made.page(3, _mapcount=0, _refcount=1)
    made.page(900, _mapcount=2, _refcount=5)
    made.page(4, _mapcount=-129, _refcount=1)  # a page's type, not a count
    columns = made.read(900, 3, 4, 900)
    assert columns.mapcount.tolist() == columns.folio_mapcount.tolist() == [3, 1, 0, 3]
    assert columns.refcount.tolist() == [5, 1, 1, 5] and columns.shared.tolist() == [True, False, False, True]
    assert (
        columns.folio.tolist() == [900, 3, 4, 900]
        and columns.order.tolist() == [0] * 4
        and columns.known.all()
    )


def test_a_tail_answers_with_its_heads_flags_and_its_folios_counts():
    made = Frames()
    made.folio(512, 9, "PG_lru", "PG_referenced", entire=0, large=1, _refcount=7)
    columns = made.read(512, 513, 1023)
    shared = int(kpf.LRU | kpf.REFERENCED | kpf.ANON | kpf.THP | kpf.MMAP)
    assert columns.flags.tolist() == [shared | int(kpf.COMPOUND_HEAD)] + [shared | int(kpf.COMPOUND_TAIL)] * 2
    assert set(columns.folio.tolist()) == {512} and set(columns.order.tolist()) == {9}
    assert set(columns.refcount.tolist()) == {7} and set(columns.mapcount.tolist()) == {1}
    assert not columns.shared.any()


def test_a_heads_address_may_be_a_mask_of_its_own():
    """Since 7.x a tail says by how many bits its address is one too many."""
    made = Frames()
    made.folio(512, 2, "PG_lru", own=range(4), large=4)
    for pfn in range(513, 516):
        made.kernel.change("page", VMEMMAP + 64 * pfn, compound_head=(1 << 64) - 256 | 1)
    assert made.read(513, 515).folio.tolist() == [512, 512]


@pytest.mark.parametrize(
    ("ids", "large", "shared"),
    [
        (0, 1, False),
        (1 << 63, 2, True),
        (1 << 63, 1, False),
        (1 << 31, 4, False),
        (1 << 62, 4, False),
        (0, 4, False),
    ],
)
def test_shared_is_what_mm_ids_say_of_more_than_one_mapping(ids, large, shared):
    made = Frames()
    made.folio(512, 2, own=range(4), large=large, ids=ids)
    assert made.read(512, 514).shared.tolist() == [shared] * 2


@pytest.mark.parametrize(
    ("entire", "large", "own", "shared"),
    [
        (-1, 4, range(4), False),  # every page once
        (-1, 4, range(1, 4), False),
        (0, 1, (), False),  # once as a whole
        (0, 2, (0,), True),
        (-1, 5, range(4), True),  # more mappings than pages
        (1, 2, (), True),
    ],
)
def test_before_mm_ids_it_is_a_guess_from_the_first_page(entire, large, own, shared):
    made = Frames(folio=("_large_mapcount", "_entire_mapcount"))
    made.folio(512, 2, own=own, large=large, entire=entire)
    columns = made.read(513)
    assert columns.shared.tolist() == [shared] and columns.folio_mapcount.tolist() == [large]


def test_of_6_1_each_pages_count_and_the_wholes_are_summed():
    made = Frames(folio=("_entire_mapcount",))
    made.folio(512, 2, own=(1, 2), entire=0)
    columns = made.read(512, 513, 515)
    assert columns.folio_mapcount.tolist() == [3] * 3
    assert columns.mapcount.tolist() == [1, 2, 1] and columns.shared.tolist() == [False, True, False]
    # Of a file's page each page's own count has the whole's in it.
    made.folio(512, 2, own=range(4), entire=0, mapping=0xFFFF_9000_0000_0000)
    assert made.read(512).folio_mapcount.tolist() == [4 + 1 - 4]


def test_the_zero_pages_are_told_by_the_kernels_variables():
    made = Frames()
    made.page(40)
    made.page(41)
    made.folio(1024, 9, entire=0, large=1)
    made.kernel.global_("zero_pfn", made.kernel.words_at(40))
    made.kernel.global_("huge_zero_pfn", made.kernel.words_at(1024))
    zero = made.read(40, 41, 1024, 1500).flags & kpf.ZERO_PAGE
    assert [bool(each) for each in zero] == [True, False, True, True]


def test_frames_that_are_not_there_are_unknown_and_cost_their_neighbours_nothing():
    made = Frames()
    made.page(10)
    made.page(70)
    columns = made.read(10, 70, 5000, 900000)
    assert columns.known.tolist() == [True, True, False, False]
    assert columns.flags[2:].tolist() == [int(kpf.NOPAGE)] * 2


def test_an_order_that_cannot_be_leaves_the_folio_unknown():
    made = Frames()
    made.folio(512, 2, own=range(4), large=4)
    made.kernel.change("page", VMEMMAP + 64 * 513, flags=99)
    assert made.read(512, 513).known.tolist() == [False, False]


@pytest.mark.parametrize("name", ["_mapcount", "_refcount", "mapping", "compound_head"])
def test_a_kernel_whose_struct_page_lacks_a_member_is_refused(name):
    with pytest.raises(MissingDependency, match=f"struct page has no {name}"):
        Frames(without=(name,)).read(1)
