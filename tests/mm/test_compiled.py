"""Rules and set-up as the integers that compiled code takes."""

from __future__ import annotations

import pytest

from secondsight.errors import UsageError
from secondsight.mm.compiled import R, compile_rules
from secondsight.mm.config import HostConfig, ShmemSizes, Sizes
from secondsight.mm.profiles import PROFILES
from secondsight.mm.rules import compiled_names
from support.model import ALL


@pytest.mark.parametrize("name", ALL)
def test_every_rule_that_is_compiled_has_its_value_under_its_name(name) -> None:
    rules = PROFILES[name]
    compiled = compile_rules(rules, HostConfig(mglru=True))
    assert all(type(value) is int for value in compiled)
    for field in compiled_names():
        if rules.mglru_available or not field.startswith("mglru_"):
            assert getattr(compiled, field) == int(getattr(rules, field)), field
    assert set(R._fields) - set(compiled_names()) == {
        "mglru", "use_zero_page", "orders_plain", "orders_advised", "shmem_plain", "shmem_advised",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "on", "counts"), [("6.12", True, 1), ("6.12", False, 0), ("5.10", True, 0)])
def test_mglru_counts_where_the_kernel_has_it_and_the_host_uses_it(name, on, counts) -> None:
    compiled = compile_rules(PROFILES[name], HostConfig(mglru=on))
    assert compiled.mglru == counts
    own = [getattr(compiled, field) for field in compiled_names() if field.startswith("mglru_")]
    assert own and (counts or not any(own))


def test_the_hosts_orders_below_2_mib_are_masks() -> None:
    host = HostConfig(thp_enabled="madvise", sizes=Sizes(kb64="always", kb128="madvise", kb256="inherit"))
    compiled = compile_rules(PROFILES["7.2"], host)
    # 2 MiB inherits and is left out: a fault asks for it elsewhere.
    assert (compiled.orders_plain, compiled.orders_advised) == (1 << 4, 1 << 4 | 1 << 5 | 1 << 6)
    shmem = compile_rules(
        PROFILES["7.2"], HostConfig(shmem_enabled="advise", shmem_sizes=ShmemSizes(kb64="always"))
    )
    assert (shmem.shmem_plain, shmem.shmem_advised) == (1 << 4, 1 << 4 | 1 << 9)


def test_no_huge_zero_page_in_2010() -> None:
    """It came in 3.8."""
    assert compile_rules(PROFILES["2.6.38"], HostConfig(use_zero_page=True)).use_zero_page == 0
    assert compile_rules(PROFILES["6.1"], HostConfig(use_zero_page=True)).use_zero_page == 1
    assert compile_rules(PROFILES["6.1"], HostConfig(use_zero_page=False)).use_zero_page == 0


@pytest.mark.parametrize(
    ("name", "host", "why"),
    [
        ("6.1", HostConfig(sizes=Sizes(kb64="always")), r"6\.1 has no hugepages-\*kB/enabled \(they came in 6\.8\)"),
        ("5.10", HostConfig(shmem_enabled="always"), r"5\.10: shared memory that may be huge is modelled from 6\.1 on"),
        ("6.1", HostConfig(shmem_sizes=ShmemSizes(kb64="always")), r"6\.1 has no hugepages-\*kB/shmem_enabled"),
    ],
)  # fmt: skip
def test_a_switch_that_the_kernel_has_not_is_refused(name, host, why) -> None:
    with pytest.raises(UsageError, match=why):
        compile_rules(PROFILES[name], host)
