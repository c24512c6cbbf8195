"""Who registered as an MMU notifier, laid out by hand: in which order, who can answer, and which of them is KVM."""

import pytest

pytest.importorskip("drgn")

from secondsight.live.read.kmem import Torn
from secondsight.live.read.kvm import RunningVm
from secondsight.live.read.notifiers import registered
from support.fake_kernel import STRUCTS, FakeKernel

KERNEL = STRUCTS | {"kvm": {"users": "u64", "mmu_notifier": "mmu_notifier"}}


def subscribed(kernel, *notifiers):
    """``struct mm_struct *`` with the ``struct mmu_notifier`` *notifiers*, newest first."""
    nodes = [kernel.member("mmu_notifier", each, "hlist") for each in notifiers]
    for here, following in zip(nodes, [*nodes, 0][1:], strict=True):
        kernel.change("hlist_node", here, next=following)
    subscriptions = kernel.make("mmu_notifier_subscriptions")
    kernel.change(
        "hlist_head",
        kernel.member("mmu_notifier_subscriptions", subscriptions, "list"),
        first=nodes[0] if nodes else 0,
    )
    return kernel.at("mm_struct", kernel.make("mm_struct", notifier_subscriptions=subscriptions))


def operations(kernel, name, test_young):
    ops = kernel.make("mmu_notifier_ops", test_young=test_young)
    return kernel.global_(name, ops) if name else ops


def test_nobody_registered():
    kernel = FakeKernel()
    assert registered(kernel, kernel.at("mm_struct", kernel.make("mm_struct"))) == []
    # Made once and empty again.
    assert registered(kernel, subscribed(kernel)) == []


def test_the_newest_first_each_by_its_operations_name_and_whether_it_tests():
    kernel = FakeKernel()
    gru = kernel.make("mmu_notifier", ops=operations(kernel, "gru_mmuops", 0))
    tests = kernel.make("mmu_notifier", ops=operations(kernel, "other_ops", 0xFFFF_FFFF_8100_0000))
    unnamed = kernel.make("mmu_notifier", ops=operations(kernel, "", 0xFFFF_FFFF_8100_0000))
    answers = registered(kernel, subscribed(kernel, tests, gru, unnamed))
    assert [(each.name, each.tests_young, each.vm) for each in answers] == [
        ("other_ops", True, None), ("gru_mmuops", False, None), ("notifier of an unnamed module", True, None),
    ]  # fmt: skip


def test_kvm_is_known_by_the_function_that_it_answers_with():
    kernel = FakeKernel(KERNEL)
    test = kernel.global_("kvm_mmu_notifier_test_young", 0xFFFF_FFFF_C010_0000)
    kernel.global_("shadow_accessed_mask", kernel.words_at(1 << 5))
    kernel.global_("shadow_host_writable_mask", kernel.words_at(1 << 9))
    kvm = kernel.make("kvm")
    inside = kernel.member("kvm", kvm, "mmu_notifier")
    kernel.change("mmu_notifier", inside, ops=operations(kernel, "kvm_mmu_notifier_ops", test))
    (answer,) = registered(kernel, subscribed(kernel, inside))
    assert answer.tests_young and isinstance(answer.vm, RunningVm)
    assert (answer.vm.identity, answer.vm.mmu, answer.vm.era) == (kvm, "npt", "tracked")


def test_a_kernel_without_notifiers_has_none():
    structs = {name: dict(members) for name, members in STRUCTS.items()}
    del structs["mm_struct"]["notifier_subscriptions"]
    kernel = FakeKernel(structs)
    assert registered(kernel, kernel.at("mm_struct", kernel.make("mm_struct"))) == []


def test_a_list_that_is_freed_or_does_not_end_is_torn():
    kernel = FakeKernel()
    one = kernel.make("mmu_notifier", ops=operations(kernel, "ops", 0))
    mm = subscribed(kernel, one)
    node = kernel.member("mmu_notifier", one, "hlist")
    kernel.change("hlist_node", node, next=node)
    with pytest.raises(Torn, match="does not end"):
        registered(kernel, mm)
    kernel.change("mmu_notifier", one, ops=0xFFFF_A000_0000_0000)
    with pytest.raises(Torn):
        registered(kernel, mm)
    gone = kernel.make("mm_struct", notifier_subscriptions=0xFFFF_A000_0000_0000)
    with pytest.raises(Torn):
        registered(kernel, kernel.at("mm_struct", gone))
    with pytest.raises(Torn):
        registered(kernel, kernel.at("mm_struct", 0xFFFF_A000_0000_0000))
