"""``record pid``: a running process looked at every interval, its blocks' pages counted by what each channel says of their use.

::

    kernel memory   accessed bits of the CPU and of KVM, marks on the page       nothing is changed
    DAMON           hits of samples by region                                    where it is free; someone else's is left alone
    clear_refs      with clear, after each look: 1 accessed bits, 4 soft-dirty   every look tells of its own interval
    procfs          what is present, shared, swapped; what appeared was used     else use is unknown

What looking costs is measured with it: our CPU time, the calls that took the process's mmap lock, and the process's own CPU time,
system time and faults, in which clearing shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from secondsight.errors import MissingDependency, TargetGone, UsageError
from secondsight.live.act.heat import weigh_exactly
from secondsight.live.read.block_samples import BlockUse, Cleared, Counts, PageBits, damon_counts
from secondsight.live.read.columns import U64, Columns
from secondsight.live.read.procfs_reader import ProcfsReader
from secondsight.live.read.resolve_unknowns import resolve_accessed, resolve_swapped
from secondsight.live.read.vma import parse_maps, parse_smaps
from secondsight.live.recording_channels import LiveChannels
from secondsight.trace.provenance import Clock, Space, with_fields
from secondsight.trace.record.procfs import ProcessDirectory, soft_dirty_works
from secondsight.trace.recording import Recording
from secondsight.trace.sampled import CHANNELS, SampledChannel, SampleProvenance, SamplingCost

if TYPE_CHECKING:
    from secondsight.live.read.kernel_reader import KernelReader

CLOCK: Final = "monotonic time since the recording began; each row carries the time of its look"
UNSEEN: Final = [
    "how often a page was used between two looks, and in what order",
    "which pages of a huge mapping were used: one bit stands for 512",
    "pages that were used, aged by the kernel and not used again between two looks",
    "page walks",
]
_PART: Final = 256  # blocks of kernel memory read at a time
_TICKS: Final = os.sysconf("SC_CLK_TCK")

Report = Callable[[int, int], None]  # looks, blocks of the last


class BlockLooker:
    """Reads every block of a process that holds anything, through kernel memory or procfs, and counts."""

    def __init__(self, channels: LiveChannels, cleared: Cleared) -> None:
        """*channels*: opened; *cleared*: what the recorder clears after each look.

        :raises MissingDependency: not even pagemap may be read.
        """
        self._process, self._cleared = channels.process, cleared
        self._reader = ProcfsReader(channels.process)
        self._kernel: KernelReader | None = channels.kernel_reader()
        self._use = BlockUse(cleared)

    @property
    def memory(self) -> str:
        """``kernel memory`` or ``procfs``."""
        return "procfs" if self._kernel is None else "kernel memory"

    def secondary_reason(self) -> str:
        """Why the SECONDARY channel is unknown through procfs."""
        return self._reader.secondary_reason()

    def close(self) -> None:
        """Let go of the process's files."""
        self._reader.__exit__(None, None, None)

    def look(self) -> Iterator[tuple[Columns, Counts]]:
        """The blocks as they are now, in parts, with their counts.

        :raises TargetGone: the process exited or called exec.
        """
        self._process.require_alive()
        name = f"/proc/{self._process.pid}/maps"
        vmas = [v for v in parse_maps(self._process.read_file("maps"), name) if v.name != "[vsyscall]"]
        populated = [self._reader.pagemap.populated_blocks(vma.start, vma.end) for vma in vmas]
        blocks = np.unique(np.concatenate([np.empty(0, np.uint64), *populated]))
        # The sums of smaps are over whole mappings: procfs's part is everything.
        step = _PART if self._kernel is not None else max(len(blocks), 1)
        for at in range(0, len(blocks), step):
            columns = self._read(blocks[at : at + step])
            words = None
            if self._cleared.soft_dirty and self._kernel is None:
                words = self._reader.pagemap.read_blocks(columns.address)
            now = PageBits.of(
                columns, kernel=self._kernel is not None, words=words, soft_dirty=self._cleared.soft_dirty,
                aged=self._cleared.accessed and self._use.looked,
            )  # fmt: skip
            yield columns, self._use.add(columns, now)
        self._use.turn()

    def _read(self, blocks: U64) -> Columns:
        if self._kernel is not None:
            return self._kernel.read_blocks(blocks)
        columns = self._reader.read_blocks(blocks)
        mappings = parse_smaps(self._process.read_file("smaps"), f"/proc/{self._process.pid}/smaps")
        resolve_accessed(columns, mappings)
        resolve_swapped(columns, mappings)
        return columns


class CostMeter:
    """What the looks cost, ours and the process's."""

    def __init__(self, target: ProcessDirectory) -> None:
        self._target, self._began, self._first = target, time.monotonic(), _used(target)
        self._last = self._first
        self.looks, self.own, self.looking = 0, 0.0, 0.0

    def begin(self) -> None:
        """A look begins."""
        self._at = time.monotonic(), time.process_time()

    def end(self) -> None:
        """It has ended."""
        self.looks += 1
        self.looking += time.monotonic() - self._at[0]
        self.own += time.process_time() - self._at[1]
        self._last = _used(self._target) or self._last

    def cost(self, longest_call: float) -> SamplingCost:
        """All of it so far."""
        cpu, system, faults = (
            (None, None, None)
            if self._first is None or self._last is None
            else (after - before for before, after in zip(self._first, self._last, strict=True))
        )
        return SamplingCost(
            looks=self.looks, seconds=time.monotonic() - self._began, own_cpu=self.own, looking=self.looking, longest_call=longest_call,
            target_cpu=cpu, target_system=system, target_faults=None if faults is None else int(faults),
        )  # fmt: skip


def _used(target: ProcessDirectory) -> tuple[float, float, float] | None:
    """CPU seconds, system seconds and minor faults of a process so far; None once it has gone."""
    try:
        fields = target.text("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[12]) / _TICKS, float(fields[7])
    except (TargetGone, MissingDependency, IndexError, ValueError):
        return None


def record_samples(
    path: str | os.PathLike[str],
    channels: LiveChannels,
    *,
    interval: float = 1.0,
    duration: float | None = None,
    clear: bool = False,
    report: Report = lambda looks, blocks: None,
    say: Callable[[str], None] = lambda text: None,
) -> SampleProvenance:
    """Look at the process of *channels* every *interval* seconds, for *duration* seconds or until it exits, into the samples *path*.

    *clear*: write clear_refs after each look; *say* hears at the start which channels are seen, and why the others are not. Ctrl-C ends
    the recording and keeps it.

    :raises TargetGone: a process that is not there.
    :raises MissingDependency: without the permission to look.
    :raises UsageError: times that cannot be.
    """
    if not 0.001 <= interval <= 3600 or (duration is not None and not duration > 0):
        raise UsageError("expected an interval of 0.001 to 3600 s, and a duration above 0")
    target = ProcessDirectory(channels.process.pid)
    looker: BlockLooker | None = None
    try:
        soft_dirty = clear and soft_dirty_works()
        cleared = Cleared(clear, soft_dirty)
        looker = BlockLooker(channels, cleared)
        recorded_channels = _channels(channels, looker, cleared, clear)
        name = channels.process.name
        start = SampleProvenance(
            source="record-pid", clock=Clock(meaning=CLOCK), unseen=[*UNSEEN, *channels.unseen], interval=int(interval * 1e9),
            spaces=[Space(id=0, name=name), Space(id=1, name=f"{name}: VM", type="vm", parent=0)], channels=recorded_channels,
            cleared=[*(["1"] if clear else []), *(["4"] if soft_dirty else [])], memory=looker.memory,
            damon_samples=channels.damon_samples,
        )  # fmt: skip
        with Recording(Path(path), start) as recording:
            for each in recorded_channels:
                say(f"{each.name}: {each.why}" if each.seen else f"{each.name} not seen: {each.why}")
            meter = CostMeter(target)
            notes = _follow(recording, target, looker, channels, meter, interval, duration, report)
            cost = meter.cost(channels.process.longest_call)
            final = with_fields(recording.provenance, cost=cost, notes=[*notes, *channels.finish()])
            made = recording.close(final)
            assert isinstance(made, SampleProvenance)
            return made
    finally:
        target.close()
        if looker is not None:
            looker.close()


def _follow(
    recording: Recording, target: ProcessDirectory, looker: BlockLooker, channels: LiveChannels, meter: CostMeter, interval: float,
    duration: float | None, report: Report,
) -> list[str]:  # fmt: skip
    """Look until the time is over, the process gone or Ctrl-C; returns what to note."""
    began = time.monotonic_ns()
    notes: list[str] = []
    assert isinstance(recording.provenance, SampleProvenance)
    cleared = recording.provenance.cleared
    try:
        while True:
            meter.begin()
            now = time.monotonic_ns() - began
            target.require_memory()
            regions, samples = channels.regions(), channels.damon_taken()
            hits = weigh_exactly(regions)
            blocks = 0
            for columns, counts in looker.look():
                met = np.array([hits.get(at, 0.0) for at in columns.address.tolist()])
                counts |= damon_counts(counts["present"], met, samples if meter.looks else 0)
                space = (columns.gfn >= 0).astype(np.uint16)
                recording.put(
                    np.full(len(space), now, np.uint64),
                    {"space": space, "address": columns.address, **counts},
                )
                blocks += len(space)
            for what in cleared:
                target.clear(what)
            recording.flush()
            meter.end()
            report(meter.looks, blocks)
            if duration is not None and now >= duration * 1e9:
                break
            late = (time.monotonic_ns() - began) / 1e9 - meter.looks * interval
            time.sleep(max(0.0, -late))
    except TargetGone:
        if not meter.looks:
            raise
        notes.append(target.ending())
    except KeyboardInterrupt:
        notes.append("interrupted; holds what was recorded until then")
    return notes


def _channels(
    channels: LiveChannels, looker: BlockLooker, cleared: Cleared, clear: bool
) -> list[SampledChannel]:
    """What each channel is seen through, or why it is not, in words."""
    kernel, missing = looker.memory == "kernel memory", channels.missing
    once = "" if clear else "; a bit that was set before says nothing until somebody clears it (--clear)"
    without = f"no kernel memory ({missing.get('kernel memory', '')})"
    damon = f"samples of its regions, {channels.damon_samples} in an aggregation"
    if not clear:
        dirty = "takes --clear"
    elif cleared.soft_dirty:
        dirty = "pages written"
    else:
        dirty = "this kernel keeps none (CONFIG_MEM_SOFT_DIRTY), so writes are not told from reads, and a guest's bits are not cleared"
    seen = {
        "primary": (kernel or clear, f"accessed bits, from kernel memory{once}" if kernel
                    else "where smaps' sums leave one answer, and pages that appeared" if clear
                    else f"{without}: use is unknown but for pages that appeared (--clear tells more)"),
        "referenced": (kernel, "PG_referenced and PG_young, from kernel memory" if kernel else f"{without}: PG_young is not seen"),
        "secondary": (kernel, "KVM's accessed bits, from kernel memory" + ("" if cleared.soft_dirty else "; nobody clears them here")
                      if kernel else looker.secondary_reason()),
        "damon": (channels.damon_samples > 0, damon if channels.damon_samples else missing.get("DAMON", "not asked for")),
        "soft_dirty": (cleared.soft_dirty, dirty),
    }  # fmt: skip
    return [SampledChannel(name=name, seen=seen[name][0], why=seen[name][1]) for name in CHANNELS]
