"""``secondsight record``: make a trace of a program, a VM or a running process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.cli.options import KernelMemoryOption, seconds_of
from secondsight.plural import file_size, pluralize
from secondsight.terminal import markup

if TYPE_CHECKING:
    from secondsight.live.recording_channels import LiveChannels

app = typer.Typer(no_args_is_help=True)

Output = Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")]
Quantum = Annotated[
    int,
    typer.Option(
        min=0,
        max=(1 << 63) - 1,
        help="ns of the trace's clock to aggregate over, by page and kind; 0: every access a row.",
    ),
]


class _Ticker:
    """One line on standard error, renewed twice a second where that is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.start = self.last = time.monotonic()

    def __call__(self, accesses: int, rows: int, spaces: int) -> None:
        now = time.monotonic()
        if now - self.last < 0.5 or not self.console.is_terminal:
            return
        self.last = now
        rate = accesses / (now - self.start) / 1e6
        self.console.print(
            f"{pluralize(accesses, 'access', 'accesses')} in {pluralize(rows, 'row')}, {pluralize(spaces, 'space')}, {rate:.2f} M/s",
            end="\r",
            highlight=False,
        )

    def done(self, path: Path, accesses: int) -> None:
        seconds = time.monotonic() - self.start
        size = path.stat().st_size
        self.console.print(
            f"{markup(path)}: {pluralize(accesses, 'access', 'accesses')} in {seconds:.1f} s, {file_size(size)}",
            highlight=False,
            soft_wrap=True,
        )


@app.command("run", context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after --.")],
    output: Output,
    quantum: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=(1 << 31) - 1,
            help="ns (instructions) to aggregate over, by page and kind; 0: exact. Default: 1,000,000, with lackey 0.",
        ),
    ] = None,
    witness: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="qemu|lackey",
            help="What sees the accesses; qemu where its user mode is installed.",
        ),
    ] = None,
    cpu_time: Annotated[
        bool,
        typer.Option(
            "--cpu-time",
            help="Run the program once by itself before, output thrown away: its CPU time, for compare's predictions.",
        ),
    ] = False,
) -> None:
    """Record a program under QEMU's user mode, or valgrind's lackey, its threads, forks and what they exec followed.

    The clock is the number of instructions, one ns each. Ctrl-C keeps what was recorded.
    """
    from secondsight.errors import UsageError
    from secondsight.trace.record import emulator
    from secondsight.trace.record.run import record_run
    from secondsight.trace.recording import Recording

    if witness not in (None, "qemu", "lackey"):
        raise UsageError(f"--with {witness}: there are qemu and lackey")
    if cpu_time and witness == "lackey":
        raise UsageError(
            "--cpu-time goes with qemu: lackey counts no page walks, so no run time is predicted from it"
        )
    ticker = _Ticker()
    seen = 0

    def report(accesses: int, rows: int, spaces: int) -> None:
        nonlocal seen
        seen = accesses
        ticker(accesses, rows, spaces)

    if witness is None and not emulator.available():
        Recording.check(output)
        ticker.console.print(
            f"{emulator.EMULATOR} with plugins is not here (Debian 12: qemu-user): recording with valgrind's lackey, far slower",
            highlight=False,
            soft_wrap=True,
        )
        witness = "lackey"
    if witness == "lackey":
        provenance, code = record_run(output, command, quantum=quantum or 0, report=report)
    else:
        chosen = emulator.QUANTUM if quantum is None else quantum
        provenance, code = emulator.record_program(
            output, command, quantum=chosen, report=report, cpu_time=cpu_time
        )
    ticker.done(output, seen)
    for note in provenance.notes:
        ticker.console.print(note, highlight=False, soft_wrap=True, markup=False)
    for reason, number in provenance.dropped.items():
        ticker.console.print(f"left out: {number:,} {reason}", highlight=False, soft_wrap=True)
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)


@app.command("vm", context_settings={"ignore_unknown_options": True})
def vm(
    arguments: Annotated[
        list[str],
        typer.Argument(help="QEMU's arguments, after --; with --kernel, the command to run in the guest."),
    ],
    output: Output,
    quantum: Quantum = 0,
    virtual: Annotated[
        bool,
        typer.Option("--virtual", help="Guest-virtual addresses, all processes mixed, not guest-physical."),
    ] = False,
    clock: Annotated[
        str,
        typer.Option(
            metavar="instructions|wall",
            help="What the trace's time counts: instructions, one ns each, or time that passes, while the VM is halted too.",
        ),
    ] = "instructions",
    kernel: Annotated[
        str | None,
        typer.Option(help="Boot this kernel of the lab (6.1, 6.12, newest or a vmlinuz) for a command."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="With --kernel: another program, or HOST:GUEST, for the guest; repeatable."),
    ] = None,
    memory: Annotated[str, typer.Option(help="With --kernel: the guest's memory.")] = "512M",
) -> None:
    """Record every memory access of a VM under QEMU's TCG, through a plugin built on first use.

    The clock is the number of instructions, one ns each; with --clock wall a VM can be recorded as it lives, hours of mostly waiting, and
    replayed at a time scale of 1. Ctrl-C ends the VM and keeps what was recorded.
    """
    import contextlib

    from secondsight.errors import UsageError
    from secondsight.trace.record.vm import record_vm
    from secondsight.trace.recording import Recording

    Recording.check(output)
    command_line = None
    if kernel is None and file:
        raise UsageError(
            "--file goes with --kernel, which builds the guest; QEMU's own arguments name its files"
        )
    ticker = _Ticker()
    seen = 0

    def report(accesses: int, rows: int, spaces: int) -> None:
        nonlocal seen
        seen = accesses
        ticker(accesses, rows, spaces)

    with contextlib.ExitStack() as stack:
        if kernel is not None:
            from secondsight.cli.guest import machine

            command_line = ["vm", "--kernel", kernel, "--memory", memory, "--", *arguments]
            arguments = stack.enter_context(machine(kernel, arguments, file or [], memory))
        provenance, code = record_vm(
            output,
            arguments,
            quantum=quantum,
            clock=clock,
            virtual=virtual,
            report=report,
            command_line=command_line,
        )
    ticker.done(output, seen)
    for reason, number in provenance.dropped.items():
        ticker.console.print(f"left out: {number:,} {markup(reason)}", highlight=False, soft_wrap=True)
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)


@app.command("pid")
def pid(
    output: Output,
    named: Annotated[
        int | None, typer.Argument(metavar="PID", help="The process to look at, as --pid names it.")
    ] = None,
    process: Annotated[int | None, typer.Option("--pid", help="The process to look at.")] = None,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    during: Annotated[
        str | None, typer.Option("--for", help="How long, such as 60s; else until it exits or Ctrl-C.")
    ] = None,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear", help="Clear accessed and soft-dirty bits at each look: sees more, changes the system."
        ),
    ] = False,
    kernel_memory: KernelMemoryOption = None,
    damon: Annotated[
        bool | None,
        typer.Option("--damon/--no-damon", help="Insist on DAMON, or do without (default: if it is free)."),
    ] = None,
    pages: Annotated[
        bool,
        typer.Option(
            "--pages",
            help="Record accesses instead: a row for each page whose bit turned. Leaves out what is used over and over.",
        ),
    ] = False,
) -> None:
    """Record a running process or VM by looking at it: samples of its blocks, through kernel memory or procfs, DAMON, clear_refs.

    A sample counts, of each 2 MiB block at each look, the pages that each channel calls used, unused, and those that it cannot tell.
    """
    from secondsight.errors import UsageError
    from secondsight.live.recording_channels import LiveChannels
    from secondsight.trace.recording import Recording

    if (process is None) == (named is None):
        raise UsageError("say which process, once: --pid PID, or PID alone")
    target = process if process is not None else named
    assert target is not None
    # Before the channels are opened and told of.
    duration = seconds_of(during)
    Recording.check(output)
    with LiveChannels.open(target, interval, kernel_memory=kernel_memory, damon=damon) as channels:
        if pages:
            _pages(output, channels, interval, duration, clear)
        else:
            _samples(output, channels, interval, duration, clear)


def _samples(
    output: Path, channels: LiveChannels, interval: float, duration: float | None, clear: bool
) -> None:
    """Record samples, and tell what they tell and cost."""
    from secondsight.cli.sampled import print_cost
    from secondsight.live.sampling import record_samples

    ticker = _Ticker()
    notes_shown: list[str] = []

    def say(line: str) -> None:
        notes_shown.append(line)
        ticker.console.print(markup(line), highlight=False, soft_wrap=True)

    def report(looks: int, blocks: int) -> None:
        if ticker.console.is_terminal:
            ticker.console.print(
                f"{pluralize(looks, 'look')}, {pluralize(blocks, 'block')} in the last",
                end="\r",
                highlight=False,
            )

    provenance = record_samples(
        output, channels, interval=interval, duration=duration, clear=clear, report=report, say=say
    )
    size = output.stat().st_size
    ticker.console.print(
        f"{markup(output)}: {pluralize(provenance.cost.looks, 'look')} in {provenance.cost.seconds:.1f} s, {file_size(size)}",
        highlight=False,
        soft_wrap=True,
    )
    print_cost(provenance.cost, ticker.console)
    for note in provenance.notes:
        ticker.console.print(markup(note), highlight=False, soft_wrap=True)


def _pages(
    output: Path, channels: LiveChannels, interval: float, duration: float | None, clear: bool
) -> None:
    """Record rows of pages that turned."""
    from secondsight.trace.record.pid import record_pid

    ticker = _Ticker()
    seen = 0
    notes_shown: list[str] = []

    def report(pages: int, rows: int, looks: int) -> None:
        nonlocal seen
        seen = pages
        ticker(pages, rows, 1)

    def say(line: str) -> None:
        notes_shown.append(line)
        ticker.console.print(markup(line), highlight=False, soft_wrap=True)

    provenance = record_pid(
        output, channels.process.pid, interval=interval, duration=duration, clear=clear, channels=channels,
        report=report, say=say,
    )  # fmt: skip
    ticker.done(output, seen)
    if not seen:
        ticker.console.print(
            "nothing was seen, which does not mean that nothing was used; not seen by these channels: "
            f"{markup('; '.join(provenance.unseen))}",
            highlight=False,
            soft_wrap=True,
        )
    for note in provenance.notes:
        if note not in notes_shown:
            ticker.console.print(markup(note), highlight=False, soft_wrap=True)
    for reason, number in provenance.dropped.items():
        ticker.console.print(f"left out: {number:,} {markup(reason)}", highlight=False, soft_wrap=True)
