"""MMU notifiers: how secondary MMUs are told, and asked, about an address space (mm/mmu_notifier.c).

    mm --> [newest] --> [older] --> [oldest]         registered at the head: the newest is called first
    test_young         asked in order; a page that has answered young is asked no further
    clear_young        everyone is asked; answers are ORed (clear_flush_young alike)
    invalidate_*, change_pte, release                everyone is told

Every operation is optional: an object that lacks a method has no such op. Calls are on ranges of pages and answer for each page, which
is the kernel's per-address call in larger batches. Each runs inside the context the kernel gives it, and an op that would sleep
there is an error naming both (:class:`Context`). A host built without CONFIG_MMU_NOTIFIER has stubs that answer 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from secondsight.errors import SecondSightError, UsageError

Bools = npt.NDArray[np.bool_]


class SleepInAtomic(SecondSightError):
    """A notifier would sleep where its caller holds a lock that forbids it ("BUG: sleeping function called from invalid context")."""


class Context:
    """What the code that runs holds: "RCU" or "SRCU", "PTE lock", "mmu_lock", "mmap lock"."""

    ATOMIC = frozenset({"RCU", "PTE lock", "mmu_lock"})

    def __init__(self) -> None:
        """Nothing held."""
        self.held: list[tuple[str, str]] = []

    @contextmanager
    def hold(self, what: str, who: str) -> Iterator[None]:
        """Run the body with *what* held by *who* (a kernel function's name)."""
        self.held.append((what, who))
        try:
            yield
        finally:
            self.held.pop()

    def might_sleep(self, who: str) -> None:
        """Called by whoever may sleep.

        :raises SleepInAtomic: something held forbids it.
        """
        for what, holder in reversed(self.held):
            if what in self.ATOMIC:
                raise SleepInAtomic(f"{who} would sleep inside {holder}, which holds the {what}")


class MmuNotifier:
    """Base of every secondary MMU. It has no ops of its own: define those of the ops below that the MMU has.

    ``test_young(start, end, ask) -> bool[n]``, ``clear_young(start, end) -> bool[n]``,
    ``clear_flush_young(start, end) -> bool[n]``, ``change_pte(page, pte)``, ``invalidate_page(page)``,
    ``invalidate_range_start(start, end)``, ``invalidate_range_end(start, end)``, ``release()``. Pages are numbers in
    the mm, *end* exclusive; n is end - start; *ask* bool[n] marks the pages still to be answered. ``context`` is set at registration.
    """

    name = "notifier"
    context: Context


Op = Literal[
    "test_young",
    "clear_young",
    "clear_flush_young",
    "change_pte",
    "invalidate_page",
    "invalidate_range_start",
    "invalidate_range_end",
    "release",
]


class MmuNotifiers:
    """The notifiers of one mm (``struct mmu_notifier_subscriptions``)."""

    def __init__(self, *, built_in: bool, protection: str, has_clear_young: bool, context: Context) -> None:
        """*built_in*: CONFIG_MMU_NOTIFIER; *protection*: "rcu" or "srcu", the section callbacks run in."""
        self.built_in = built_in
        self.protection = protection.upper()
        self.has_clear_young = has_clear_young
        self.context = context
        self.list: list[MmuNotifier] = []
        self.calls: dict[str, int] = {}

    def __bool__(self) -> bool:
        """mm_has_notifiers."""
        return self.built_in and bool(self.list)

    def register(self, notifier: MmuNotifier) -> None:
        """mmu_notifier_register: at the head of the list. Takes the mmap lock, so it must be allowed to sleep.

        :raises SleepInAtomic: what the caller holds forbids that.
        :raises UsageError: *notifier* is registered already.
        """
        self.context.might_sleep("mmu_notifier_register")
        if not self.built_in:
            return
        if notifier in self.list:
            raise UsageError(f"{notifier.name} is already registered with this address space")
        with self.context.hold("mmap lock", "mmu_notifier_register"):
            notifier.context = self.context
            self.list.insert(0, notifier)

    def unregister(self, notifier: MmuNotifier) -> None:
        """mmu_notifier_unregister: ``release`` first, then off the list.

        :raises SleepInAtomic: what the caller holds forbids it to sleep.
        """
        self.context.might_sleep("mmu_notifier_unregister")
        if notifier not in self.list:
            return
        self._call(notifier, "release", "mmu_notifier_unregister")
        self.list.remove(notifier)

    def _call(self, notifier: MmuNotifier, op: Op, who: str, *args: Any) -> Any:
        """Call *op* of one notifier inside the section the kernel gives it; None where it has no such op."""
        method = getattr(notifier, op, None)
        if method is None:
            return None
        self.calls[op] = self.calls.get(op, 0) + 1
        with self.context.hold(self.protection, who):
            return method(*args)

    def test_young(self, start: int, end: int, ask: Bools) -> list[tuple[str, Bools, Bools]]:
        """What each notifier answers for pages *start* to *end*: ``(name, asked, young)``, bool[n] each, newest first.

        A page stops being asked once someone said young (``__mmu_notifier_test_young`` breaks off). Called under the PTE
        lock: an op may not sleep.
        """
        out: list[tuple[str, Bools, Bools]] = []
        if not self:
            return out
        left = ask.copy()
        with self.context.hold("PTE lock", "khugepaged's test_young"):
            for notifier in self.list:
                answer = self._call(notifier, "test_young", "__mmu_notifier_test_young", start, end, left)
                asked = left.copy() if answer is not None else np.zeros_like(left)
                young = (
                    (np.asarray(answer, dtype=np.bool_) & left) if answer is not None else np.zeros_like(left)
                )
                out.append((notifier.name, asked, young))
                left &= ~young
        return out

    def clear_young(self, start: int, end: int) -> Bools:
        """Clear and report youth without a flush; where the kernel or the notifier lacks the op, ``clear_flush_young`` serves."""
        op: Op = "clear_young" if self.has_clear_young else "clear_flush_young"
        return self._ored(op, start, end)

    def clear_flush_young(self, start: int, end: int) -> Bools:
        """Clear and report youth; an MMU without young bits drops its mappings and reports that there were some."""
        return self._ored("clear_flush_young", start, end)

    def _ored(self, op: Op, start: int, end: int) -> Bools:
        young = np.zeros(end - start, dtype=np.bool_)
        if self:
            for notifier in self.list:
                answer = self._call(notifier, op, f"__mmu_notifier_{op}", start, end)
                if answer is not None:
                    young |= np.asarray(answer, dtype=np.bool_)
        return young

    def change_pte(self, page: int, pte: np.uint64) -> None:
        """The PTE of *page* was replaced (KSM). Who lacks the op is told to drop the page (2.6.38: "we must call invalidate_page")."""
        if self:
            for notifier in self.list:
                if hasattr(notifier, "change_pte"):
                    self._call(notifier, "change_pte", "__mmu_notifier_change_pte", page, pte)
                else:
                    self._call(notifier, "invalidate_page", "__mmu_notifier_change_pte", page)

    def invalidate_page(self, page: int) -> None:
        """2.6.38's op for a single page; later kernels use the range."""
        if self:
            for notifier in self.list:
                self._call(notifier, "invalidate_page", "__mmu_notifier_invalidate_page", page)

    def invalidate_range(self, start: int, end: int) -> None:
        """invalidate_range_start, then _end, around a change of pages *start* to *end*; both may sleep unless a lock is held."""
        if self:
            for op in ("invalidate_range_start", "invalidate_range_end"):
                for notifier in self.list:
                    self._call(notifier, op, f"__mmu_notifier_{op}", start, end)

    def release(self) -> None:
        """exit_mmap: every notifier lets go."""
        if self:
            for notifier in list(self.list):
                self._call(notifier, "release", "__mmu_notifier_release")
            self.list.clear()
