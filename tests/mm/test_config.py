"""A machine's set-up: sysfs takes what the kernel takes, and switches say which orders memory may have."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Knobs, ShmemSizes, Sizes

KB_OF = {2: 16, 3: 32, 4: 64, 5: 128, 6: 256, 7: 512, 8: 1024, 9: 2048}


def test_the_kernels_defaults() -> None:
    """mm/khugepaged.c khugepaged_init, start_stop_khugepaged."""
    assert msgspec.to_builtins(Knobs()) == {
        "pages_to_scan": 4096, "scan_sleep_millisecs": 10_000, "alloc_sleep_millisecs": 60_000,
        "max_ptes_none": 511, "max_ptes_swap": 64, "max_ptes_shared": 256,
    }  # fmt: skip
    assert Sizes() == Sizes(kb2048="inherit") and not Sizes().parts
    assert Sizes(kb16="madvise").parts


@pytest.mark.parametrize(
    ("knob", "value", "why"),
    [
        ("max_ptes_none", 512, "must be 0 to 511, as in sysfs"),
        ("max_ptes_swap", -1, "must be 0 to 511, as in sysfs"),
        ("max_ptes_shared", 513, "must be 0 to 511, as in sysfs"),
        ("pages_to_scan", 0, "must be at least 1, as in sysfs"),
        ("scan_sleep_millisecs", -5, "cannot be negative"),
        ("alloc_sleep_millisecs", 1 << 32, "must be at most 4294967295, as in sysfs"),
        ("pages_to_scan", 1 << 32, "must be at most 4294967295, as in sysfs"),
    ],
)
def test_what_sysfs_refuses_is_refused_with_the_files_name(knob, value, why) -> None:
    with pytest.raises(UsageError, match=f"^{knob}={value}: {why}$"):
        Knobs(**{knob: value})


def test_a_size_has_its_switch_and_an_order_without_one_is_named() -> None:
    for order, kb in KB_OF.items():
        assert Sizes(**{f"kb{kb}": "always"}).of(order) == "always"
    for order in (0, 1, 10):
        with pytest.raises(UsageError, match=rf"order {order}: huge pages have the orders 2 \(16 KiB\) to 9"):
            Sizes().of(order)


def test_a_files_keys_are_sysfs_own_names() -> None:
    config = msgspec.convert({"sizes": {"64kB": "always"}, "knobs": {"max_ptes_none": 3}}, HostConfig)
    assert config.sizes.kb64 == "always" and config.knobs.max_ptes_none == 3
    assert msgspec.to_builtins(config)["sizes"] == {"64kB": "always"}, (
        "what is as the kernel has it is left out"
    )
    for wrong in ({"sizes": {"48kB": "always"}}, {"knobs": {"max_ptes": 1}}, {"thp_enabled": "sometimes"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, HostConfig)


words = st.sampled_from(["always", "madvise", "inherit", "never"])


@given(
    st.lists(words, min_size=8, max_size=8), st.sampled_from(["always", "madvise", "never"]), st.booleans()
)
def test_anonymous_memory_may_have_the_orders_whose_word_allows_it(switches, whole, advised) -> None:
    """thp_vma_allowable_orders, said as a table: what inherits does as the global switch says."""
    config = HostConfig(
        thp_enabled=whole, sizes=Sizes(**{f"kb{kb}": word for kb, word in zip(KB_OF.values(), switches, strict=True)})
    )  # fmt: skip
    expected = set()
    for order, word in zip(KB_OF, switches, strict=True):
        said = whole if word == "inherit" else word
        if said == "always" or (said == "madvise" and advised):
            expected.add(order)
    mask = config.orders(advised=advised)
    assert {order for order in range(16) if mask >> order & 1} == expected


@pytest.mark.parametrize(
    ("word", "plain", "advised", "forced"),
    [
        ("never", 0, 0, 1 << 9),
        ("advise", 0, 1 << 9, 1 << 9),
        ("within_size", 1 << 9, 1 << 9, 1 << 9),
        ("always", 1 << 9, 1 << 9, 1 << 9),
        ("force", 1 << 9, 1 << 9, 1 << 9),
        ("deny", 0, 0, 0),
    ],
)
def test_shared_memory_may_be_huge_as_its_own_switch_says(word, plain, advised, forced) -> None:
    config = HostConfig(shmem_enabled=word)
    assert config.shmem_orders(advised=False) == plain and config.shmem_orders(advised=True) == advised
    for way in (False, True):
        assert config.shmem_orders(advised=way, forced=True) == forced, "deny alone refuses MADV_COLLAPSE"


def test_sizes_of_shared_memory_inherit_or_have_a_word_of_their_own() -> None:
    sizes = ShmemSizes(kb64="always", kb128="advise", kb256="within_size", kb512="inherit")
    config = HostConfig(shmem_enabled="advise", shmem_sizes=sizes)
    assert config.shmem_orders(advised=False) == 1 << 4 | 1 << 6
    assert config.shmem_orders(advised=True) == 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9
    with pytest.raises(UsageError, match='shmem_enabled="force" wants shmem_sizes to inherit at 2048kB'):
        HostConfig(shmem_enabled="force", shmem_sizes=sizes)


@pytest.mark.parametrize(
    ("none", "below", "mthp_collapse", "noted"),
    [
        (100, "always", True, True), (100, "madvise", True, True), (100, "never", True, False), (100, "always", False, False),
        (0, "always", True, False), (511, "always", True, False),
    ],
)  # fmt: skip
def test_a_limit_that_counts_as_zero_below_2_mib_is_noted(none, below, mthp_collapse, noted) -> None:
    config = HostConfig(knobs=Knobs(max_ptes_none=none), sizes=Sizes(kb64=below))
    assert (config.note(mthp_collapse=mthp_collapse) is not None) == noted
