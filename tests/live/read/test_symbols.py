"""/proc/kallsyms as text: names and addresses, of vmlinux and of modules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import MissingDependency
from secondsight.live.read.symbols import Kallsyms

TEXT = (
    b"0000000000000000 A fixed_percpu_data\n"
    b"ffffffff81000000 T _stext\n"
    b"ffffffff81000000 T _text\n"
    b"ffffffff81001000 t kvm_young\n"
    b"ffffffffc0a01000 t kvm_mmu_notifier_test_young\t[kvm]\n"
    b"ffffffffc0a02000 d young\t[kvm]\n"
)


def test_a_name_is_found_whole_in_vmlinux_and_in_modules():
    symbols = Kallsyms(TEXT)
    assert symbols.address("_stext") == 0xFFFFFFFF81000000
    assert symbols.address("kvm_mmu_notifier_test_young") == 0xFFFFFFFFC0A01000
    assert symbols.address("young") == 0xFFFFFFFFC0A02000, "not the end of another's name"
    assert symbols.address("fixed_percpu_data") == 0
    for name in ("kvm", "test_young", "stext", ""):
        assert symbols.address(name) is None
        assert symbols.address(name) is None, "asked again"


def test_an_address_has_the_name_that_starts_there():
    symbols = Kallsyms(TEXT)
    assert symbols.name_at(0xFFFFFFFF81001000) == "kvm_young"
    assert symbols.name_at(0xFFFFFFFFC0A01000) == "kvm_mmu_notifier_test_young"
    assert symbols.name_at(0xFFFFFFFF81001008) is None


@pytest.mark.parametrize("text", [b"", b"0000000000000000 T _stext\n0000000000000000 t x\n"])
def test_hidden_addresses_are_refused_with_the_mend(text):
    with pytest.raises(MissingDependency, match=r"kernel\.kptr_restrict below 2"):
        Kallsyms(text)


@given(
    st.dictionaries(
        st.text("kvm_x", min_size=1, max_size=6), st.integers(1, 2**64 - 1), min_size=1, max_size=8
    )
)
def test_every_symbol_is_found_both_ways(table):
    text = "".join(f"{address:016x} t {name}\n" for name, address in table.items()).encode()
    symbols = Kallsyms(text)
    for name, address in table.items():
        assert symbols.address(name) == address
        first = next(other for other, at in table.items() if at == address)
        assert symbols.name_at(address) == first
