"""From columns as read to a view: who holds a block, which sizes it may have, and what counts as read."""

import msgspec
import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.geometry import PMD_ORDER
from secondsight.live.judge.view import to_view
from secondsight.live.read.switches import Switches
from support.snapshots import BLOCK, START, columns, snapshot, with_vm


def mapping(**changes):
    """The mapping of two blocks from START, advised."""
    (vma,) = snapshot(columns(2)).header.mappings
    return msgspec.structs.replace(vma, **changes)


def test_a_block_takes_what_its_mapping_says_and_one_that_none_holds_nothing():
    memory = columns(4)
    first = mapping(flags=frozenset(("rd", "wr", "hg", "dp")))
    second = mapping(
        start=START + 2 * BLOCK, end=START + 3 * BLOCK, flags=frozenset(("rd", "wr", "nh", "um"))
    )
    view = to_view(memory, [first, second], "always")
    assert view.eligible.tolist() == [True, True, False, False]
    assert view.droppable.tolist() == [True, True, False, False]
    assert view.uffd.tolist() == [False, False, True, False]
    assert (view.orders == 1 << PMD_ORDER).all()
    assert np.array_equal(view.address, memory.address) and view.pte is memory.pte


@pytest.mark.parametrize(
    ("enabled", "flags", "eligible"),
    [("never", ("hg",), False), ("madvise", ("hg",), True), ("madvise", (), False), ("always", (), True), ("always", ("nh",), False)],
)  # fmt: skip
def test_the_word_for_2_mib_and_the_advice_make_a_block_eligible(enabled, flags, eligible):
    vma = mapping(flags=frozenset(("rd", "wr", *flags)))
    assert to_view(columns(2), [vma], enabled).eligible.tolist() == [eligible] * 2


def test_smaller_sizes_count_where_the_kernel_collapses_parts():
    switches = Switches(sizes={64: "madvise", 2048: "never"})
    for parts, eligible, orders in ((False, False, 1 << 9), (True, True, 1 << 4)):
        view = to_view(columns(2), [mapping()], "never", switches, parts=parts)
        assert view.eligible.tolist() == [eligible] * 2 and view.orders.tolist() == [orders] * 2


def test_a_page_of_which_one_bit_of_three_is_set_is_as_good_as_young():
    """smaps tells the three apart no further: the accessed bit, PG_young, PG_referenced."""
    memory = columns(2)
    memory.pte_known[:] = False
    memory.either[0, 5] = True
    memory.pmd[1], memory.pte[1] = bits.PRESENT | bits.PSE, 0
    memory.either[1] = True
    view = to_view(memory, [mapping()], "always")
    assert np.flatnonzero(view.pte[0] & bits.ACCESSED).tolist() == [5]
    assert np.flatnonzero(view.pte_known[0]).tolist() == [5]
    assert view.pmd[1] & bits.ACCESSED and not view.pte[1].any()
    assert not (memory.pte & bits.ACCESSED).any() and not memory.pmd[1] & bits.ACCESSED, "what was read stays"


def test_a_known_bit_is_not_overruled_by_what_is_known_of_three_together():
    memory = columns(1)
    memory.either[:] = True
    assert not (to_view(memory, [mapping()], "always").pte & bits.ACCESSED).any()


def test_secondary_mmus_keep_their_names_and_shared_pages_may_be_others_than_read():
    young = np.zeros((2, 512), bool)
    young[1, 7] = True
    memory = with_vm(columns(2), young)
    shared = ~young
    view = to_view(memory, [mapping()], "always", shared=shared)
    assert [(channel.name, np.argwhere(channel.young).tolist()) for channel in view.secondary] == [
        ("kvm (npt)", [[1, 7]])
    ]
    assert view.shared is shared and to_view(memory, [mapping()], "always").shared is memory.shared
