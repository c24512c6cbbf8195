"""``secondsight collapse``: make the hot blocks of a process huge, within a budget and under the limits it lives under."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.cli.options import KernelMemoryOption, RangeOption
from secondsight.geometry import HPAGE_PMD_NR

if TYPE_CHECKING:
    from secondsight.live.act.candidates import Wanted
    from secondsight.live.act.collapse import Round, Throttle
    from secondsight.live.act.guard import Guard, Guarding
    from secondsight.live.act.stopping import Stopping
    from secondsight.live.read.kmem import KernelMemory
    from secondsight.live.read.probe import Facts
    from secondsight.live.read.process import Process
    from secondsight.policy.protocol import Policy

app = typer.Typer()


@app.command()
def collapse(
    pid: Annotated[int | None, typer.Option(help="The process.")] = None,
    cgroup: Annotated[
        str | None,
        typer.Option(help="All processes of this memory cgroup and those below it, one after the other."),
    ] = None,
    vm: Annotated[
        str | None, typer.Option(help="The VM of this name; `secondsight top --by vm` lists them.")
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="Who chooses: khugepaged (its own scan and limits) or madv_collapse (whatever holds enough), with options as "
            "name,option=value; or a policy of your own that asks for no more than `young`."
        ),
    ] = "khugepaged",
    within: RangeOption = None,
    max_added: Annotated[
        str | None,
        typer.Option(help="Add at most so much memory (default: half of what the tightest limit leaves)."),
    ] = None,
    min_populated: Annotated[
        int, typer.Option(min=1, max=HPAGE_PMD_NR, help="Only blocks with so many pages present.")
    ] = 1,
    override: Annotated[
        bool,
        typer.Option(
            "--override",
            help="Also against the administrator: enabled=never, or memory without MADV_HUGEPAGE under madvise.",
        ),
    ] = False,
    budget: Annotated[str | None, typer.Option(help="At most this much a second, such as 512MiB/s.")] = None,
    max_stall: Annotated[
        str | None,
        typer.Option(help="Rest after a call that took longer, such as 5ms; give up after several."),
    ] = None,
    max_pressure: Annotated[
        str,
        typer.Option(help="Stop once tasks wait for memory more than this share of the time (PSI)."),
    ] = "10%",
    compact: Annotated[
        bool,
        typer.Option("--compact", help="Go on where no free huge block is left: the kernel compacts memory."),
    ] = False,
    watch: Annotated[
        str | None,
        typer.Option(help="Watch what is used for so long first, such as 30s, and take what is hot first."),
    ] = None,
    until_coverage: Annotated[
        str | None, typer.Option(help="Stop once this share is huge, such as 95%.")
    ] = None,
    advised: Annotated[bool, typer.Option("--advised", help="Only mappings with MADV_HUGEPAGE.")] = False,
    certain: Annotated[
        bool,
        typer.Option("--certain", help="Only blocks known to be hot; without --watch those marked as used."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be collapsed; change nothing.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep running: choose again at every interval of the policy.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a round.")] = False,
    kernel_memory: KernelMemoryOption = None,
) -> None:
    """A khugepaged in user space, for a process, a cgroup or a VM: MADV_COLLAPSE through a pidfd, with proof from the page table.

    Stops before the limits that the process lives under (memory cgroup, free memory), at the first refused charge or allocation, and
    when the process exits: exit code 1. Mappings marked MADV_NOHUGEPAGE are never touched. An interrupt keeps what was done; it is how
    --follow ends.
    """
    from secondsight.errors import MissingDependency, UsageError
    from secondsight.live.act import amounts, candidates, guard, madvise
    from secondsight.live.act import collapse as live
    from secondsight.live.act.stopping import Stopping
    from secondsight.live.read import capture
    from secondsight.live.read.process import Process
    from secondsight.policy.registry import make

    if sum(each is not None for each in (pid, cgroup, vm)) != 1:
        raise UsageError("say which process: one of --pid PID, --cgroup PATH, --vm NAME")
    if cgroup == "" or vm == "":
        # A variable that is not set: not the whole host.
        raise UsageError("--cgroup and --vm take a name; / is the cgroup of the whole host")
    if follow and dry_run:
        raise UsageError("--follow, --dry-run: name one of them; what would be collapsed is printed once")
    bounds = capture.parse_range(within) if within else None
    wanted = candidates.Wanted(
        advised=advised, certain=certain, override=override, min_populated=min_populated, within=bounds
    )
    pace = live.Throttle(
        budget=amounts.parse_pace(budget) if budget else None,
        max_stall=amounts.parse_stall(max_stall) if max_stall else None,
        until=amounts.parse_share(until_coverage, "--until-coverage") if until_coverage else None,
        within=bounds,
    )
    guarding = guard.Guarding(
        max_added=amounts.parse_size(max_added, "--max-added") if max_added is not None else None,
        max_stall_share=amounts.parse_share(max_pressure, "--max-pressure", "10%"),
        compact=compact,
    )
    chooser = make(policy)
    candidates.check_policy(chooser)
    problem = madvise.available()
    if problem and not dry_run:
        raise MissingDependency(f"MADV_COLLAPSE: {problem}")
    seconds = amounts.parse_duration(watch, "--watch") if watch else 0.0

    def make_rounds(process: Process) -> Rounds:
        if not dry_run:
            assert process.pidfd >= 0  # said here rather than after the first capture
        rounds = Rounds(process, chooser, wanted, pace, guarding)
        rounds.kernel_memory, rounds.json, rounds.dry_run = kernel_memory, json, dry_run
        rounds.watch = seconds
        return rounds

    with Stopping() as stopping:
        if pid is not None:
            with Process.open(pid) as process:
                code = make_rounds(process).run(stopping, follow)
        else:
            from secondsight.cli import collapse_many
            from secondsight.host import targets

            find = (
                (lambda: targets.in_cgroup(cgroup))
                if cgroup is not None
                else (lambda: targets.in_vm(vm or ""))
            )
            code = collapse_many.run(
                find, make_rounds, stopping, interval=chooser.interval / 1e9, follow=follow
            )
    if not follow:
        stopping.require_not_asked()
    if code:
        raise typer.Exit(code)


class Rounds:
    """Choosing and collapsing, once or again and again."""

    def __init__(
        self, process: Process, policy: Policy, wanted: Wanted, pace: Throttle, guarding: Guarding
    ) -> None:
        self.process, self.policy, self.wanted = process, policy, wanted
        self.pace, self.guarding = pace, guarding
        self.kernel: KernelMemory | None = None
        self.guard: Guard | None = None
        self.missing = ""
        self.facts: Facts | None = None
        self.kernel_memory: bool | None = None
        self.json = self.dry_run = False
        self.watch = 0.0
        #: what the last round did, or would have done
        self.last: Round | None = None

    def run(self, stopping: Stopping, follow: bool) -> int:
        """The exit code."""
        from secondsight.errors import TargetGone
        from secondsight.live.read import capture
        from secondsight.live.read.probe import probe
        from secondsight.terminal import printable

        self.kernel, self.missing = capture.open_kernel(self.kernel_memory)
        self.facts = probe()
        while True:
            try:
                done = self._round(stopping)
            except TargetGone as left:
                if not follow:
                    raise
                print(f"{printable(left)}; nothing more to do")
                return 0
            if done is None:
                return 0
            if done.failed or (done.gone and not follow):
                return 1
            over = done.stopped and not done.stopped.startswith("calls keep")
            if not follow or over or stopping.wait(self.policy.interval / 1e9):
                return 0

    def _round(self, stopping: Stopping) -> Round | None:
        """One round, printed; None where nothing was to be changed."""
        from secondsight.cli import collapsed
        from secondsight.live.act import candidates, heat, unfit
        from secondsight.live.act import collapse as live
        from secondsight.live.act.guard import Guard
        from secondsight.live.read import capture, sysfs
        from secondsight.live.read.page_cache import PageCache
        from secondsight.live.read.procfs import Pagemap
        from secondsight.live.read.thp_disabled import thp_enabled
        from secondsight.live.read.vma import parse_maps

        process, within = self.process, self.wanted.within
        with Pagemap(process) as memory:
            # One for all rounds: half of what is left, again and again, would be all of it.
            guard = self.guard = self.guard or Guard(process, self.guarding)
            heat_seen = None
            if self.watch:
                heat_seen = heat.watch(process, self.kernel, self.watch, stopping.wait, within, self.missing)
            taken = capture.take(process, self.kernel, self.missing, within, self.facts)
            whole = parse_maps(process.read_file("maps"), f"/proc/{process.pid}/maps")
            with PageCache(process, whole) as cache:
                beside = unfit.Beside(
                    thp_enabled(process.read_file("status")), sysfs.shmem_enabled(), cache, heat_seen
                )
                selection = candidates.select(taken, self.policy, self.wanted, beside)
                if self.dry_run:
                    added = collapsed.print_choices(selection, guard, self.json)
                    self.last = live.Round(allowance=guard.allowance, limit=guard.source(), added=added)
                    return None
                work = live.Collapser(process, memory, guard, self.pace, stopping.wait, cache)
                done = work.run(selection)
        collapsed.print_round(done, self.json)
        self.last = done
        return done
