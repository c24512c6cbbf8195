"""Run a scenario on the model: each verb is a call, each pass of khugepaged an answer.

After every verb the per-CPU LRU batches are drained, as the lab's agent does, so that they matter only inside a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.mm import (
    file_io,
    fork,
    huge_memory,
    ksm,
    madvise,
    mempolicy,
    mlock,
    mprotect,
    mremap,
    rmap,
    task_mmu,
    userfaultfd,
    vmscan,
)
from secondsight.mm.config import HPAGE_PMD_NR
from secondsight.mm.host import Host
from secondsight.mm.mm_struct import Mm
from secondsight.mm.rules import Rules
from secondsight.mm.vma import page_runs
from secondsight.mmu.gru import GruContext
from secondsight.mmu.kvm import Kvm
from secondsight.scenario import pages as page_text
from secondsight.scenario import states, verbs
from secondsight.scenario.observed import observed
from secondsight.scenario.refused import refuse_space, refuse_unmodelled, refuse_waiting
from secondsight.scenario.results import (
    BlockPass,
    FilePass,
    PageState,
    Run,
    StepAnswer,
)
from secondsight.scenario.tracepoints import block_pass, file_pass

__all__ = ["Runner", "run"]

Pages = npt.NDArray[np.int64]


def run(scenario: verbs.Scenario, rules: Rules | str, *, keep_states: bool = False) -> Run:
    """Run *scenario* under *rules*; *keep_states*: also the state of every page just before and after each pass.

    :raises UsageError: a step that cannot be done.
    """
    return Runner(scenario, rules, keep_states=keep_states).finish()


class Runner:
    """One run under way: ``host`` is the model, ``kvms`` (each space's by number) and ``gru`` the spaces' secondary MMUs by name."""

    def __init__(self, scenario: verbs.Scenario, rules: Rules | str, *, keep_states: bool = False) -> None:
        """Make the host and its spaces; nothing has happened yet."""
        self.scenario = scenario
        self.host = Host(rules, scenario.host)
        self.kvms: dict[str, dict[int, Kvm]] = {}
        self.gru: dict[str, GruContext] = {}
        self.keep_states = keep_states
        self.blocks: list[BlockPass] = []
        self.answers: list[StepAnswer] = []
        self.states: list[PageState] = []
        self.files: list[FilePass] = []
        self.passes = 0
        self.step = -1
        for space in scenario.spaces:
            mm = self._space(space)
            for number, vm in enumerate((space.vm, space.vm2)):
                if vm is not None:
                    kvm = Kvm(mm, name=states.vm_name(number))
                    self.kvms.setdefault(space.name, {})[number] = kvm
                    kvm.slot_add(0, 0, 0, mm.npages)
                    for slot in vm.slots:
                        self._slot_add(kvm, slot)
            if space.gru is not None:
                self.gru[space.name] = GruContext(mm, space.gru.variant)

    def _space(self, space: verbs.SpaceSpec) -> Mm:
        """The process of *space*, with its area."""
        shared = space.shared
        if shared is None:
            return self.host.mm(space.name, space.blocks, droppable=space.droppable)
        refuse_space(space)
        if shared.memory in self.host.memories:
            memory = self.host.memories[shared.memory]
        else:
            make = self.host.regular_file if shared.file else self.host.shared_memory
            memory = make(shared.memory, verbs.memory_blocks(self.scenario, space))
        writable = shared.file != "private"
        return self.host.shared_mm(space.name, space.blocks, memory, shared.block, writable=writable)

    def finish(self) -> Run:
        """Take every step and give the answer."""
        for step in self.scenario.steps:
            self.take(step)
        config = self.scenario.host
        return Run(
            source=f"model:{self.host.rules.name}",
            blocks=self.blocks,
            answers=self.answers,
            states=self.states,
            files=self.files,
            provenance={
                "rules": self.host.rules.name, "mmu": config.mmu, "mglru": str(config.mglru).lower(), "title": self.scenario.title,
            },
        )  # fmt: skip

    def take(self, step: verbs.Verb) -> None:
        """One step, and the drain behind it.

        :raises UsageError: it cannot be done; says which step.
        """
        self.step += 1
        try:
            refuse_waiting(self.host.mms, step)
            refuse_unmodelled(self.host.mms.get(getattr(step, "space", "")), step)
            _VERBS[type(step)](self, step)
        except UsageError as error:
            raise UsageError(f"steps[{self.step}]: {error}") from None
        if not isinstance(step, verbs.Observe | verbs.Scan):
            self.host.drain()

    # -- helpers -------------------------------------------------------------------------------------------------

    def _mm(self, step: Any) -> Mm:
        if step.space not in self.host.mms:
            raise UsageError(f"there is no space called {step.space!r} any more")
        return self.host.mms[step.space]

    def _pages(self, step: Any, text: str | None = None) -> Pages:
        wanted = step.pages if text is None else text
        return page_text.parse(wanted, self._mm(step).blocks) if wanted else np.zeros(0, np.int64)

    def _answer(self, errno: str | None = None, took: Any = None) -> None:
        if errno is not None or took is not None:
            self.answers.append(StepAnswer(step=self.step, errno=errno, took=took))

    def _guarded(self, mm: Mm, access: Callable[[], None]) -> None:
        """An access that mappings deny in part: the rest is done, and the step answers EFAULT."""
        before = mm.denied
        access()
        if mm.denied > before:
            self._answer(errno="EFAULT")

    def _vm(self, step: verbs.GuestRead | verbs.GuestWrite | verbs.SlotAdd | verbs.SlotDelete) -> Kvm:
        try:
            return self.kvms[step.space][step.vm]
        except KeyError:
            raise UsageError(f"space {step.space!r} has no {'second ' * (step.vm > 0)}VM") from None

    @staticmethod
    def _slot_add(kvm: Kvm, slot: verbs.Slot) -> None:
        kvm.slot_add(
            slot.id, slot.gfn_block * HPAGE_PMD_NR, slot.block * HPAGE_PMD_NR, slot.blocks * HPAGE_PMD_NR
        )

    # -- accesses ------------------------------------------------------------------------------------------------

    def _do_cpu(self, step: verbs.CpuRead | verbs.CpuWrite) -> None:
        mm, pages = self._mm(step), self._pages(step)
        write = isinstance(step, verbs.CpuWrite)
        value = step.value if isinstance(step, verbs.CpuWrite) else None
        self._guarded(mm, lambda: mm.cpu_access(pages, write=write, value=value))

    def _do_io_copied(self, step: verbs.IoCopied) -> None:
        mm, pages = self._mm(step), self._pages(step)
        self._guarded(mm, lambda: mm.cpu_access(pages, write=step.write))

    def _do_io_zero_copy(self, step: verbs.IoZeroCopy) -> None:
        mm, pages = self._mm(step), self._pages(step)
        self._guarded(mm, lambda: mm.direct_io(pages, write=step.write))

    def _do_guest(self, step: verbs.GuestRead | verbs.GuestWrite) -> None:
        mm, pages = self._mm(step), self._pages(step)
        write = isinstance(step, verbs.GuestWrite)
        kvm = self._vm(step)
        if step.nested and step.view:
            raise UsageError("a nested guest's paging is off: leave out view")
        if step.nested and kvm.mmu != "npt":
            raise UsageError(f"a nested guest needs the MMU npt, not {kvm.mmu}")
        view = -step.nested or step.view
        self._guarded(mm, lambda: kvm.access(pages, write=write, view=view, slot=step.slot))

    def _do_device(self, step: verbs.DeviceRead | verbs.DeviceWrite) -> None:
        if step.space not in self.gru:
            raise UsageError(f"space {step.space!r} has no GRU")
        mm, pages = self._mm(step), self._pages(step)
        write = isinstance(step, verbs.DeviceWrite)
        self._guarded(mm, lambda: self.gru[step.space].access(pages, write=write))

    def _do_pin(self, step: verbs.Pin) -> None:
        mm, pages = self._mm(step), self._pages(step)
        self._guarded(mm, lambda: mm.pin(pages, step.name, write=step.write, longterm=step.write))

    def _do_unpin(self, step: verbs.Unpin) -> None:
        self._mm(step).unpin(step.name)

    # -- system calls ----------------------------------------------------------------------------------------------

    def _do_clear_refs(self, step: verbs.ClearRefs) -> None:
        task_mmu.clear_refs(self._mm(step))

    def _do_madvise(self, step: verbs.Madvise) -> None:
        mm = self._mm(step)
        errno: str | None = None
        for start, end in page_runs(self._pages(step)):
            errno = madvise.madvise(mm, start, end, step.advice) or errno
        if step.advice == "collapse":
            self._answer(errno=errno or "0")
        else:
            self._answer(errno=errno)

    def _do_mprotect(self, step: verbs.Mprotect) -> None:
        for start, end in page_runs(self._pages(step)):
            mprotect.mprotect(self._mm(step), start, end, step.prot)

    def _do_mremap(self, step: verbs.Mremap) -> None:
        errno: str | None = None
        for start, end in page_runs(self._pages(step)):
            errno = errno or mremap.there_and_back(self._mm(step), start, end)
        self._answer(errno=errno)

    def _do_mlock(self, step: verbs.Mlock) -> None:
        errno: str | None = None
        for start, end in page_runs(self._pages(step)):
            errno = mlock.mlock(self._mm(step), start, end, onfault=step.onfault) or errno
        self._answer(errno=errno)

    def _do_munlock(self, step: verbs.Munlock) -> None:
        for start, end in page_runs(self._pages(step)):
            mlock.munlock(self._mm(step), start, end)

    def _do_swap_out(self, step: verbs.SwapOut) -> None:
        took = None if step.took is None else self._pages(step, step.took)
        slots = np.array(
            [at + i if at >= 0 else -1 for at, count in step.slots for i in range(count)], np.int64
        )
        if took is not None and len(slots) not in (0, len(took)):
            raise UsageError(
                f"{len(slots)} slots for {len(took)} pages that went to swap: give one for each, or none"
            )
        out = vmscan.swap_out(self._mm(step), self._pages(step), took, slots if len(slots) else None)
        self._answer(errno=out.errno, took=page_text.format(np.sort(out.gone)))

    def _do_uffd(self, step: verbs.Uffd) -> None:
        errno: str | None = None
        for start, end in page_runs(self._pages(step)):
            errno = userfaultfd.register(self._mm(step), start, end, step.mode) or errno
        self._answer(errno=errno)

    def _do_numa_scan(self, step: verbs.NumaScan) -> None:
        mempolicy.change_prot_numa(self._mm(step))

    def _do_age(self, step: verbs.Age) -> None:
        if step.took is None:
            rmap.age(self._mm(step), self._pages(step))
        elif step.took:
            rmap.damon_mkold(self._mm(step), self._pages(step), self._pages(step, step.took))

    def _do_fork(self, step: verbs.Fork) -> None:
        fork.fork(self._mm(step), step.child)

    def _do_exit(self, step: verbs.Exit) -> None:
        fork.exit_mm(self._mm(step))
        self.kvms.pop(step.space, None)
        self.gru.pop(step.space, None)

    def _do_file(self, step: verbs.FileRead | verbs.FileWrite | verbs.FileDrop) -> None:
        mm = self._mm(step)
        assert mm.memory is not None
        offset = mm.memory_block * HPAGE_PMD_NR
        for start, end in page_runs(self._pages(step)):
            if isinstance(step, verbs.FileDrop):
                file_io.file_drop(self.host, mm.memory, offset + start, offset + end)
                continue
            access = file_io.file_read if isinstance(step, verbs.FileRead) else file_io.file_write
            for first, stop in file_io.calls(offset + start, offset + end):
                access(self.host, mm.memory, first, stop)
                self.host.drain()

    def _do_file_sync(self, step: verbs.FileSync) -> None:
        mm = self._mm(step)
        assert mm.memory is not None
        file_io.file_sync(self.host, mm.memory)

    def _do_slot_add(self, step: verbs.SlotAdd) -> None:
        self._slot_add(self._vm(step), step.slot)

    def _do_slot_delete(self, step: verbs.SlotDelete) -> None:
        self._vm(step).slot_delete(step.id)

    def _do_ksm_merge(self, step: verbs.KsmMerge) -> None:
        took = None
        if step.took is not None:
            mms = self.host.mms
            took = {
                n: set(page_text.parse(t, mms[n].blocks).tolist())
                for n, t in step.took.items()
                if t and n in mms
            }
        ksm.merge(self.host, took)

    def _do_split_pmd(self, step: verbs.SplitPmd) -> None:
        mm = self._mm(step)
        for block in np.unique(self._pages(step) // HPAGE_PMD_NR).tolist():
            huge_memory.cut_area(mm, block * HPAGE_PMD_NR + 1)
            area = mm.vmas.at(block * HPAGE_PMD_NR)
            if area.end - area.start > 1:
                # MADV_DOFORK makes one area of the two again: vma_merge, khugepaged_enter_vma.
                self.host.khugepaged.enter_vma(mm, area)

    def _do_split_huge(self, step: verbs.SplitHuge) -> None:
        if not self.host.rules.splits_by_process:
            self._answer(errno="EINVAL")
            return
        for block in np.unique(self._pages(step) // HPAGE_PMD_NR).tolist():
            huge_memory.split_huge(self._mm(step), block)

    def _do_knobs(self, step: verbs.SetKnobs) -> None:
        changes = {k: v for k, v in msgspec.structs.asdict(step).items() if v is not None}
        config = self.host.config
        enabled = changes.pop("thp_enabled", config.thp_enabled)
        knobs = msgspec.convert({**msgspec.structs.asdict(config.knobs), **changes}, type(config.knobs))
        self.host.configure(msgspec.structs.replace(config, thp_enabled=enabled, knobs=knobs))

    def _do_drain(self, step: verbs.Drain) -> None:
        self.host.drain()

    # -- looking ----------------------------------------------------------------------------------------------------

    def _do_observe(self, step: verbs.Observe) -> None:
        self._observe("observe", 0)

    def _observe(self, at: Literal["observe", "before", "after"], pass_: int) -> None:
        when = states.When(self.step, at, pass_)
        for name, mm in self.host.mms.items():
            self.states.append(observed(mm, self.kvms.get(name, {}).values(), when))

    def _do_scan(self, step: verbs.Scan) -> None:
        for _ in range(step.passes):
            self.passes += 1
            if self.keep_states:
                self._observe("before", self.passes)
            khugepaged = self.host.khugepaged
            khugepaged.on_visit = lambda visit: self.blocks.append(block_pass(visit, self.passes))
            khugepaged.on_file_visit = lambda visit: self.files.append(file_pass(visit, self.passes))
            if step.pages is None:
                khugepaged.full_scan()
            else:
                khugepaged.wake_up(step.pages)
            khugepaged.on_visit = khugepaged.on_file_visit = None
            self.host.drain()
            if self.keep_states:
                self._observe("after", self.passes)


_VERBS: dict[type[Any], Callable[[Runner, Any], None]] = {
    verbs.CpuRead: Runner._do_cpu, verbs.CpuWrite: Runner._do_cpu, verbs.GuestRead: Runner._do_guest, verbs.GuestWrite: Runner._do_guest,
    verbs.DeviceRead: Runner._do_device, verbs.DeviceWrite: Runner._do_device, verbs.IoCopied: Runner._do_io_copied,
    verbs.IoZeroCopy: Runner._do_io_zero_copy, verbs.Pin: Runner._do_pin, verbs.Unpin: Runner._do_unpin,
    verbs.ClearRefs: Runner._do_clear_refs, verbs.Madvise: Runner._do_madvise, verbs.Mprotect: Runner._do_mprotect,
    verbs.Mremap: Runner._do_mremap,
    verbs.Mlock: Runner._do_mlock, verbs.Munlock: Runner._do_munlock, verbs.SwapOut: Runner._do_swap_out, verbs.Age: Runner._do_age,
    verbs.NumaScan: Runner._do_numa_scan, verbs.Uffd: Runner._do_uffd,
    verbs.FileRead: Runner._do_file, verbs.FileWrite: Runner._do_file, verbs.FileDrop: Runner._do_file,
    verbs.FileSync: Runner._do_file_sync,
    verbs.Fork: Runner._do_fork, verbs.Exit: Runner._do_exit, verbs.SlotAdd: Runner._do_slot_add, verbs.SlotDelete: Runner._do_slot_delete,
    verbs.KsmMerge: Runner._do_ksm_merge, verbs.SplitPmd: Runner._do_split_pmd, verbs.SplitHuge: Runner._do_split_huge,
    verbs.SetKnobs: Runner._do_knobs, verbs.Drain: Runner._do_drain, verbs.Observe: Runner._do_observe, verbs.Scan: Runner._do_scan,
}  # fmt: skip
