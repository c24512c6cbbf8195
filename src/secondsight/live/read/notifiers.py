"""Who registered as an MMU notifier of an address space, and whether it can answer ``test_young``.

``mm->notifier_subscriptions`` (once made it stays, even when its list is empty again) heads a list of
``struct mmu_notifier``, newest first, each with its table of operations. A notifier without ``test_young``
never makes a page young; KVM's answer can be read (:mod:`kvm`); any other notifier's cannot: unknown.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import drgn
from drgn.helpers.linux.list import hlist_for_each_entry

from secondsight.live.read.kmem import KernelMemory, Torn
from secondsight.live.read.kvm import RunningVm

_MOST = 1024


class Notifier(NamedTuple):
    """One registration: the name of its operations, whether it has ``test_young``, and KVM's VM if it is one."""

    name: str
    tests_young: bool
    vm: RunningVm | None


def registered(kernel: KernelMemory, mm: Any) -> list[Notifier]:
    """Notifiers of ``struct mm_struct *`` *mm*, in the order in which they are asked.

    :raises Torn: the list changed while it was walked.
    """
    notifiers: list[Notifier] = []
    try:
        head = mm.notifier_subscriptions.read_()
    except AttributeError:
        return notifiers  # a kernel without CONFIG_MMU_NOTIFIER
    except drgn.FaultError as error:
        raise Torn(str(error)) from None
    if not head:
        return notifiers
    try:
        for entry in hlist_for_each_entry("struct mmu_notifier", head.list.address_of_(), "hlist"):
            operations = entry.ops.read_()
            test = operations.test_young.value_()
            name = kernel.symbols.name_at(operations.value_()) or "notifier of an unnamed module"
            is_kvm = bool(test) and kernel.symbols.name_at(test) == "kvm_mmu_notifier_test_young"
            vm = RunningVm(kernel, drgn.container_of(entry, "struct kvm", "mmu_notifier")) if is_kvm else None
            notifiers.append(Notifier(name, bool(test), vm))
            if len(notifiers) > _MOST:
                raise Torn("the list of notifiers does not end")
    except (drgn.FaultError, LookupError) as error:
        raise Torn(str(error)) from None
    return notifiers
