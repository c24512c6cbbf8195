"""The host's supply of huge pages, from files as kernels write them."""

from secondsight.geometry import PAGE_SIZE
from secondsight.host import supply
from secondsight.host.supply import Counters, parse_pagetypes, read_supply

TYPES = """Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10
Node    0, zone   Normal, type    Unmovable      0      1      0      0      0      0      0      0      0      2      0
Node    0, zone   Normal, type      Movable      4      0      0      0      0      0      0      0      1      1      3
Node    1, zone   Normal, type      Movable >100000      0      0      0      0      0      0      0      0      0      1

Number of blocks type     Unmovable      Movable
Node 0, zone   Normal           41          997
Node 1, zone   Normal            1            3
"""


def test_pagetypeinfo():
    types = parse_pagetypes(TYPES)
    assert types.free_blocks == {"Unmovable": 2, "Movable": 1 + 2 * 3 + 2}
    assert types.free_small == {"Unmovable": 2 * PAGE_SIZE, "Movable": (4 + 256 + 100_000) * PAGE_SIZE}
    assert types.blocks == {"Unmovable": 42, "Movable": 1000}


def test_rates_are_of_what_both_have():
    before = Counters(10.0, {"thp_fault_alloc": 5, "nr_anon_transparent_hugepages": 3}, 1, None)
    after = Counters(12.0, {"thp_fault_alloc": 25, "thp_new": 1, "nr_anon_transparent_hugepages": 9}, 2, 7)
    assert after.rates(before) == {"thp_fault_alloc": 10.0, "full_scans": 0.5}


def test_this_host():
    supply_here = read_supply()
    assert supply_here.counters.vmstat
    if supply_here.limits is not None:
        pace = supply_here.pages_a_second()
        assert pace is not None
        assert pace > 0
    if supply_here.types is not None and supply_here.memory is not None:
        blocks = sum(supply_here.memory.huge_blocks.values())
        assert abs(sum(supply_here.types.free_blocks.values()) - blocks) <= max(64, blocks // 4), (
            "both read the same lists, a moment apart"
        )


def test_a_kernel_that_shows_nothing(tmp_path):
    nothing = read_supply(tmp_path, tmp_path)
    assert nothing.memory is None
    assert nothing.types is None
    assert nothing.limits is None
    assert nothing.switches == {}
    assert nothing.pages_a_second() is None
    assert set(nothing.missing) == {"memory", "pagetypeinfo", "khugepaged"}


def test_switches(tmp_path):
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    (tmp_path / "shmem_enabled").write_text("always within_size [advise] never deny force\n")
    for kb, word in (
        (64, "always inherit madvise [never]"),
        (2048, "always [inherit] madvise never"),
        (128, "[always] inherit madvise never"),
    ):
        (tmp_path / f"hugepages-{kb}kB").mkdir()
        (tmp_path / f"hugepages-{kb}kB" / "enabled").write_text(word)
    assert supply.read_switches(tmp_path) == {
        "enabled": "madvise", "shmem_enabled": "advise", "hugepages-128kB/enabled": "always", "hugepages-2048kB/enabled": "inherit",
    }  # fmt: skip
