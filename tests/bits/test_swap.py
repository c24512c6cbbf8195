"""Entries that are not present: a layout there and back, and what each type is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.bits.swap import EntryKind

TYPES = st.integers(0, 31)
OFFSETS = st.integers(0, (1 << 50) - 1)


def words(*values):
    return np.array(values, np.uint64)


@given(TYPES, OFFSETS)
def test_an_entry_comes_back_and_is_not_present(kind, offset):
    entry = swap.swp_entry(words(kind), words(offset))
    assert swap.swp_type(entry)[0] == kind and swap.swp_offset(entry)[0] == offset
    assert bits.is_swap_pte(entry)[0] or (kind == 0 and offset == (1 << 50) - 1)


@given(TYPES, st.integers(1, (1 << 49) - 1), st.booleans())
def test_pagemap_and_the_entry_say_the_same(kind, offset, protected):
    word = words(int(pm.SWAPPED) | offset << 5 | kind | (int(pm.UFFD_WP) if protected else 0))
    entry = swap.from_pagemap(word)
    assert swap.swp_type(entry)[0] == kind and swap.swp_offset(entry)[0] == offset
    assert swap.kind_known(word)[0]
    assert bool(entry[0] & swap.SWP_UFFD_WP) == protected


#: what arch/x86 makes of entries, by hand: type in the top five bits, offset inverted from bit 9 on
BY_HAND = [
    (31 << 59 | (~4 & (1 << 50) - 1) << 9, EntryKind.GUARD),
    (31 << 59 | (~2 & (1 << 50) - 1) << 9, EntryKind.POISON),
    (31 << 59 | (~1 & (1 << 50) - 1) << 9, EntryKind.UFFD_WP),
    (0 << 59 | (~7 & (1 << 50) - 1) << 9, EntryKind.SWAP),
    (22 << 59 | (~7 & (1 << 50) - 1) << 9 | 1 << 3, EntryKind.SWAP),
    (1 << 59 | (~7 & (1 << 50) - 1) << 9 | 1 << 2, EntryKind.UFFD_WP),
    (0, EntryKind.NONE),
    (0x8000_0000_1234_5067, EntryKind.NONE),
    (0x1234_5100, EntryKind.NONE),  # PROT_NONE
]


@pytest.mark.parametrize(("entry", "kind"), BY_HAND)
@pytest.mark.parametrize("devices", [None, 3, 4])
def test_what_is_the_same_in_every_build(entry, kind, devices):
    assert swap.kinds(words(entry), devices).tolist() == [kind]


@pytest.mark.parametrize(
    ("devices", "hwpoison", "migration", "device"),
    [(4, [23], [24, 25, 26], [27, 28, 29, 30]), (3, [24], [25, 26, 27], [28, 29, 30])],
)
def test_the_types_of_a_build(devices, hwpoison, migration, device):
    kinds = swap.kinds(swap.swp_entry(np.arange(32, dtype=np.uint64), np.full(32, 9, np.uint64)), devices)
    assert np.flatnonzero(kinds == EntryKind.HWPOISON).tolist() == hwpoison
    assert np.flatnonzero(kinds == EntryKind.MIGRATION).tolist() == migration
    assert np.flatnonzero(kinds == EntryKind.DEVICE).tolist() == device
    assert (kinds[: hwpoison[0]] == EntryKind.SWAP).all()


def test_a_build_whose_numbers_are_not_known_is_not_guessed():
    kinds = swap.kinds(swap.swp_entry(np.arange(32, dtype=np.uint64), np.full(32, 9, np.uint64)))
    assert (kinds[:23] == EntryKind.SWAP).all() and (kinds[23:31] == EntryKind.SPECIAL).all()


def test_what_a_reader_without_rights_sees():
    """No type and no offset; the flags of a guard (6.15) and of userfaultfd all the same."""
    hidden, guard, protected = (
        words(int(pm.SWAPPED)), words(int(pm.SWAPPED | pm.GUARD)), words(int(pm.SWAPPED | pm.UFFD_WP))
    )  # fmt: skip
    assert not swap.kind_known(hidden)[0] and bits.is_swap_pte(swap.from_pagemap(hidden))[0]
    assert swap.kinds(swap.from_pagemap(guard)).tolist() == [EntryKind.GUARD]
    assert swap.kinds(swap.from_pagemap(protected)).tolist() == [EntryKind.UFFD_WP]
