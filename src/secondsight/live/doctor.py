"""What this kernel and these permissions allow: channel by channel, verb by verb, and how to get what is missing.

Every check looks, none changes anything: no knob is written, no trace instance stays, no memory of another process is touched.
"""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from secondsight.bits import pagemap as pm
from secondsight.errors import SecondSightError
from secondsight.geometry import PAGE_SIZE
from secondsight.live.act import madvise
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.read import switches, sysfs, tracefs
from secondsight.live.read.capture import open_kernel
from secondsight.live.read.frame_table import FrameTable
from secondsight.live.read.probe import Facts, probe
from secondsight.live.read.process import CAPABILITIES, Process, own_capabilities
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.splits import Splits

State = Literal["yes", "partly", "no"]


class Check(msgspec.Struct, frozen=True):
    """One finding: *group* (``kernel``, ``switch``, ``channel``, ``verb``), what, how far, what was found, and the mend if there is one."""

    group: str
    name: str
    state: State
    found: str
    mend: str = ""


class Checkup(msgspec.Struct, frozen=True):
    """All findings, and what the rules were chosen by."""

    kernel: str
    root: bool
    capabilities: tuple[str, ...]
    wanted: tuple[str, ...]
    facts: Facts
    rules: tuple[str, ...]
    open_points: tuple[str, ...]
    evidence: str
    checks: tuple[Check, ...]


_ROOT = "run as root (sudo), or give CAP_SYS_ADMIN and CAP_SYS_PTRACE"


def examine() -> Checkup:
    """Look at everything once."""
    facts = probe()
    candidates = choose_profiles(facts)
    kernel = _kernel_memory()
    flags = _frame_table("/proc/kpageflags", "page flags")
    pagemap, scan = _pagemap()
    interfaces = (
        kernel,
        flags,
        _frame_table("/proc/kpagecount", "map counts"),
        pagemap,
        scan,
        _tracepoints(facts),
        _function_tracer(),
        *_thp(),
    )
    collapse = _collapse()
    return Checkup(
        kernel=facts.release,
        root=os.geteuid() == 0,
        capabilities=tuple(sorted(own_capabilities())),
        wanted=tuple(sorted(CAPABILITIES.values())),
        facts=facts,
        rules=tuple(rules.title for rules in candidates.rules),
        open_points=candidates.open_points,
        evidence=candidates.evidence,
        checks=(
            *interfaces,
            collapse,
            *_channels(kernel, flags if pagemap.state == "yes" else pagemap),
            *_switches(),
            *_verbs(kernel, flags, interfaces, collapse),
        ),
    )


def _kernel_memory() -> Check:
    kernel, problem = open_kernel(None)
    if kernel is None:
        mend = "pip install 'secondsight[live]'" if "drgn" in problem else ""
        if "permission" in problem:
            mend = _ROOT
        elif "does not have it" in problem:
            mend = "a kernel with CONFIG_PROC_KCORE and CONFIG_DEBUG_INFO_BTF"
        return Check("kernel", "kernel memory", "no", problem, mend)
    levels = kernel.page_table_levels
    return Check(
        "kernel", "kernel memory", "yes", f"/proc/kcore with types from BTF, {levels}-level page tables"
    )


def _frame_table(path: str, what: str) -> Check:
    try:
        with FrameTable(path) as table:
            import numpy as np

            table.read(np.array([256], np.uint64))
    except SecondSightError as error:
        return Check(
            "kernel",
            path,
            "no",
            str(error),
            _ROOT if "permission" in str(error) else "CONFIG_PROC_PAGE_MONITOR",
        )
    return Check("kernel", path, "yes", f"{what} of every frame")


def _pagemap() -> tuple[Check, Check]:
    try:
        with Process.open(os.getpid()) as own, Pagemap(own) as pagemap:
            import mmap

            import numpy as np

            with mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
                page[0] = 1
                address = int(np.frombuffer(page, np.uint8, 1).ctypes.data)
                word = pagemap.read(address & ~(PAGE_SIZE - 1), 1)[0]
            frames = bool(word & pm.PFN_MASK)
            try:
                pagemap.scan(0, PAGE_SIZE, pm.SCAN_PRESENT, 0)
                scan = Check(
                    "kernel", "PAGEMAP_SCAN", "yes", "sparse address spaces are read by what they hold"
                )
            except SecondSightError as error:
                scan = Check(
                    "kernel",
                    "PAGEMAP_SCAN",
                    "no",
                    str(error),
                    "without it pagemap is read whole: slower on sparse processes",
                )
    except SecondSightError as error:
        missing = Check("kernel", "/proc/PID/pagemap", "no", str(error), _ROOT)
        return missing, Check("kernel", "PAGEMAP_SCAN", "no", "needs pagemap", _ROOT)
    if frames:
        return Check("kernel", "/proc/PID/pagemap", "yes", "present, swapped, frames"), scan
    return Check(
        "kernel", "/proc/PID/pagemap", "partly", "present and swapped; frames are hidden", _ROOT
    ), scan


def _tracepoints(facts: Facts) -> Check:
    try:
        tracing = tracefs.folder()
        left = tracefs.remove_leftovers(tracing)
    except SecondSightError as error:
        return Check("kernel", "tracepoints", "no", str(error), _ROOT)
    if "tracepoints" in facts.missing:
        return Check(
            "kernel",
            "tracepoints",
            "no",
            facts.missing["tracepoints"],
            "CONFIG_TRACING, CONFIG_TRANSPARENT_HUGEPAGE",
        )
    removed = f"; removed {len(left)} instance(s) left by a killed run" if left else ""
    return Check("kernel", "tracepoints", "yes", f"khugepaged's, in a private instance{removed}")


def _function_tracer() -> Check:
    """Whether splits can be traced: asked by tracing them for a moment, in a private instance (``splits.py``)."""
    try:
        with Splits.open():
            pass
    except (SecondSightError, OSError) as error:
        mend = _ROOT if os.geteuid() else "CONFIG_FUNCTION_TRACER, and no lockdown of the kernel"
        return Check(
            "kernel", "function tracer", "no", str(error).removeprefix("who splits huge pages: "), mend
        )
    return Check("kernel", "function tracer", "yes", "tells who splits huge pages, in a private instance")


def _thp() -> tuple[Check, ...]:
    try:
        enabled, limits = sysfs.thp_enabled(), sysfs.knobs()
    except SecondSightError as error:
        return (Check("kernel", "transparent huge pages", "no", str(error), "CONFIG_TRANSPARENT_HUGEPAGE"),)
    state: State = "no" if enabled == "never" else "yes"
    words = f"enabled={enabled}, max_ptes_none={limits.max_ptes_none}, {limits.pages_to_scan} pages every {limits.scan_sleep_millisecs} ms"
    mend = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" if state == "no" else ""
    return (Check("kernel", "transparent huge pages", state, words, mend),)


def _switches() -> tuple[Check, ...]:
    """Every switch of the table of inputs (``inputs.py``), as it stands."""
    current = switches.read(os.getpid())
    try:
        limits = sysfs.knobs()
    except SecondSightError:
        limits = None
    sizes = (
        ", ".join(f"{kb} kB {word}" for kb, word in current.sizes.items() if word != "never")
        or "no size of its own"
    )
    huge = ", ".join(f"{device} {word}" for device, word in current.mounts.items() if word != "never")
    words_by_switch = {
        "enabled": f"{current.enabled or 'none'}; by size: {sizes}",
        "shmem_enabled": f"{current.shmem_enabled or 'none'}; 2048 kB {current.shmem_size or 'has no switch of its own'}",
        "huge= of a mount": huge or f"never, on {len(current.mounts)} tmpfs mounts",
        "defrag": f"{current.defrag or 'none'}; khugepaged/defrag {current.khugepaged_defrag or 'none'}; "
        f"use_zero_page {current.use_zero_page or 'none'}",
    }
    if limits is not None:
        words_by_switch["max_ptes_none, _swap, _shared"] = (
            f"{limits.max_ptes_none}, {limits.max_ptes_swap}, {limits.max_ptes_shared}"
        )
        words_by_switch["pages_to_scan, scan_sleep_millisecs"] = (
            f"{limits.pages_to_scan}, {limits.scan_sleep_millisecs}"
        )
    return tuple(Check("switch", name, "yes", words) for name, words in words_by_switch.items())


def _collapse() -> Check:
    problem = madvise.available()
    if problem:
        return Check(
            "kernel", "MADV_COLLAPSE", "no", problem, "Linux 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE"
        )
    if "CAP_SYS_NICE" not in own_capabilities():
        return Check(
            "kernel",
            "MADV_COLLAPSE",
            "no",
            "process_madvise on another process needs CAP_SYS_NICE",
            "CAP_SYS_NICE and CAP_SYS_PTRACE, or root",
        )
    return Check("kernel", "MADV_COLLAPSE", "yes", "in any process, through a pidfd")


def _channels(kernel: Check, flags: Check) -> tuple[Check, ...]:
    mend = kernel.mend or kernel.found
    if kernel.state == "yes":
        return (
            Check("channel", "PRIMARY", "yes", "accessed bits of the page tables"),
            Check("channel", "REFERENCED", "yes", "PG_referenced, and PG_young where the kernel has it"),
            Check(
                "channel",
                "SECONDARY",
                "yes",
                "KVM: TDP MMU and shadow, NPT and EPT; other notifiers that test: unknown",
            ),
        )
    some = flags.state == "yes"
    return (
        Check("channel", "PRIMARY", "partly", "unknown, but where the sums of smaps leave one answer", mend),
        Check(
            "channel",
            "REFERENCED",
            "partly" if some else "no",
            "PG_referenced from kpageflags; PG_young only kernel memory shows" if some else flags.found,
            mend if some else flags.mend,
        ),
        Check(
            "channel", "SECONDARY", "no", "unknown: only kernel memory shows what a VM or device used", mend
        ),
    )


def _verbs(kernel: Check, flags: Check, interfaces: tuple[Check, ...], collapse: Check) -> tuple[Check, ...]:
    by_name = {check.name: check for check in interfaces}
    pagemap, traces = by_name["/proc/PID/pagemap"], by_name["tracepoints"]
    if pagemap.state == "no":
        explain = Check("verb", "explain, snapshot", "no", pagemap.found, pagemap.mend)
    elif kernel.state == "yes":
        explain = Check("verb", "explain, snapshot", "yes", "every channel; pins; verdicts certain")
    else:
        explain = Check(
            "verb",
            "explain, snapshot",
            "partly",
            "limits, swap and sharing are read; pins and khugepaged's list are unknown, and partly what is used",
            kernel.mend,
        )
    judge = Check("verb", "explain FILE", "yes", "judging a snapshot needs no right at all")
    watch_state: State = traces.state if pagemap.state == "yes" or traces.state == "no" else "partly"
    watch = Check(
        "verb",
        "watch",
        watch_state,
        traces.found if traces.state == "no" else "decisions, with addresses for --pid",
        traces.mend,
    )
    tracer = by_name["function tracer"]
    splits = Check(
        "verb",
        "host: who splits",
        tracer.state,
        "who splits huge pages, and on which occasion"
        if tracer.state == "yes"
        else f"the function tracer: {tracer.found}",
        tracer.mend,
    )
    return (
        explain,
        judge,
        watch,
        splits,
        Check("verb", "collapse", collapse.state, collapse.found, collapse.mend),
    )
