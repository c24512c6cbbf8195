"""``secondsight collapse``: make the hot blocks of a process huge, within a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.cli.options import KernelMemoryOption, RangeOption
from secondsight.words import several

if TYPE_CHECKING:
    from secondsight.live.collapse import Choice, Limits, Round
    from secondsight.live.process import Process
    from secondsight.live.stopping import Stopping
    from secondsight.policy.protocol import Policy

app = typer.Typer(help="Make the hot blocks of a process huge, within a budget.")


@app.command()
def collapse(
    pid: Annotated[int, typer.Option(help="The process.")],
    policy: Annotated[
        str, typer.Option(help="Who chooses: a policy's name, with options as name,option=value.")
    ] = "khugepaged",
    within: RangeOption = None,
    budget: Annotated[str | None, typer.Option(help="At most this much a second, such as 512MiB/s.")] = None,
    max_stall: Annotated[
        str | None,
        typer.Option(help="Rest after a call that took longer, such as 5ms; give up after several."),
    ] = None,
    until_coverage: Annotated[
        str | None, typer.Option(help="Stop once this share is huge, such as 95%.")
    ] = None,
    advised: Annotated[bool, typer.Option("--advised", help="Only mappings with MADV_HUGEPAGE.")] = False,
    certain: Annotated[
        bool, typer.Option("--certain", help="Only blocks whose use is known, not those where it is unknown.")
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
    """A khugepaged in user space, for one process: MADV_COLLAPSE through a pidfd, with proof from smaps and the page table.

    Mappings marked MADV_NOHUGEPAGE are never touched. Stops when the process exits; an interrupt keeps what was done.
    """
    from secondsight.errors import MissingPart
    from secondsight.live import capture, madvise
    from secondsight.live import collapse as live
    from secondsight.live.process import Process
    from secondsight.live.stopping import Stopping
    from secondsight.policy.registry import make

    bounds = capture.parse_range(within) if within else None
    limits = live.Limits(
        budget=live.parse_budget(budget) if budget else None,
        max_stall=live.parse_stall(max_stall) if max_stall else None,
        until=live.parse_coverage(until_coverage) if until_coverage else None,
        advised=advised,
        certain=certain,
        within=bounds,
    )
    chooser = make(policy)
    live.check_policy(chooser)
    problem = madvise.available()
    if problem and not dry_run:
        raise MissingPart(f"MADV_COLLAPSE: {problem}")
    with Process.open(pid) as process, Stopping() as stopping:
        if not dry_run:
            assert process.pidfd >= 0  # said here rather than after the first capture
        _rounds(
            process,
            chooser,
            limits,
            kernel_memory,
            stopping,
            dry_run=dry_run,
            follow=follow,
            json=json,
        )


def _rounds(
    process: Process, policy: Policy, limits: Limits, kernel_memory: bool | None, stopping: Stopping, *, dry_run: bool,
    follow: bool, json: bool,
) -> None:  # fmt: skip
    import errno

    from secondsight.errors import TargetGone
    from secondsight.live import capture, madvise
    from secondsight.live import collapse as live
    from secondsight.live.probe import probe
    from secondsight.live.procfs import Pagemap

    kernel, missing = capture.open_kernel(kernel_memory)
    facts = probe()
    while True:
        try:
            with Pagemap(process) as memory:
                taken = capture.take(process, kernel, missing, limits.within, facts)
                chosen = live.choices(taken, policy, limits)
                if dry_run:
                    _print_choices(chosen, json)
                    return
                done = live.carry_out(process, chosen, limits, stopping.wait, memory=memory)
        except TargetGone as left:
            if not follow:
                raise
            print(f"{left}; nothing more to do")
            return
        done.considered = len(taken.columns.address)
        _print_round(done, json)
        gone = done.stopped in (live.EXITED, live.EXEC)
        if done.stopped == madvise.CAUSES[errno.EPERM] or (gone and not follow):
            raise typer.Exit(1)
        over = done.stopped and not done.stopped.startswith("calls keep")
        if not follow or over or stopping.wait(policy.interval / 1e9):
            return


def _print_choices(chosen: list[Choice], json: bool) -> None:
    import msgspec

    if json:
        print(msgspec.json.encode(chosen).decode())
        return
    added = sum(choice.bloat for choice in chosen) * 4 / 1024
    print(
        f"would collapse {several(len(chosen), 'block')} ({len(chosen) * 2} MiB), adding {added:.1f} MiB of memory; nothing was changed"
    )
    for choice in chosen[:40]:
        used = "?" if choice.used is None else choice.used
        print(
            f"  {choice.address:#014x} {several(choice.populated, 'page')} present, {used} known to be used, {choice.bloat} would be added"
        )
    if len(chosen) > 40:
        print(f"  … {len(chosen) - 40} more; --json lists all")


def _print_round(done: Round, json: bool) -> None:
    import msgspec

    if json:
        print(msgspec.json.encode(done).decode(), flush=True)
        return
    cost = (
        f"; {done.spent / done.collapsed * 1e6:.0f} us a block, longest call {done.stall * 1e3:.2f} ms"
        if done.collapsed
        else ""
    )
    print(
        f"{several(done.considered, 'block')} looked at, {done.chosen} chosen, {done.collapsed} collapsed "
        f"({'unknown' if done.confirmed is None else done.confirmed} confirmed by the page table), {done.bloat / 2**20:.1f} MiB added{cost}"
    )
    for cause, count in done.refused.items():
        print(f"  {count:6} refused: {cause}")
    coverage = "-" if done.coverage is None else f"{100 * done.coverage:.1f} %"
    after = (
        "unknown after"
        if done.huge_after is None
        else f"{done.huge_after / 2**20:.0f} MiB after, {coverage} of {done.resident / 2**20:.0f} MiB resident"
    )
    print(f"  huge in smaps: {done.huge_before / 2**20:.0f} MiB before, {after}")
    if done.stopped:
        print(f"  stopped: {done.stopped}", flush=True)
