"""``secondsight lab``: fetch kernels and boot them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli import build, diff, evidence, lab_compare
from secondsight.cli.lab_options import KernelOption, MmuOption, ModulesOption, say
from secondsight.plural import pluralize

app = typer.Typer(no_args_is_help=True)


@app.command("kernels")
def kernels_command(
    available: Annotated[
        bool,
        typer.Option("--available", help="List what the machine's Debian mirror has, in all its suites."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the kernels that are here, their exact versions and checksums; with --available, those that can be fetched."""
    from rich.console import Console
    from rich.table import Table

    if available:
        _list_available(json)
        return
    import msgspec

    from secondsight.errors import SecondSightError
    from secondsight.lab import kernels
    from secondsight.lab.offers import DEFAULT

    names = kernels.names_in(kernels.cache_dir() / "kernels")
    here: dict[str, kernels.Manifest | None] = dict.fromkeys(DEFAULT)
    torn: dict[str, str] = {}
    for name in names:
        try:
            here[name] = kernels.manifest(name)
        except SecondSightError as error:
            torn[name] = str(error)
    if json:
        print(msgspec.json.format(msgspec.json.encode(here)).decode())
        return
    table = Table("kernel", "suite", "version", "release", "sha256 of vmlinuz", box=None)
    for name in dict.fromkeys([*DEFAULT, *names]):
        if entry := here.get(name):
            checksum = entry.files.get("vmlinuz", "")[:16]
            table.add_row(name, ", ".join(entry.suites), entry.version, entry.release, checksum)
        elif name in torn:
            table.add_row(name, "", "torn", names[name], f"secondsight lab fetch --refresh {name}")
        else:
            table.add_row(name, "", "not here", "", f"secondsight lab fetch {name}")
    Console(soft_wrap=True, width=_width()).print(table)


def _width() -> int | None:
    """Columns to print in: as many as a row needs where nobody looks at a terminal."""
    return None if sys.stdout.isatty() else 400


def _list_available(json: bool) -> None:
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from secondsight.lab.fetch import available
    from secondsight.lab.offers import NEWEST, choose, series_of, version_key

    offers = sorted(available(say=say), key=lambda offer: version_key(offer.version))
    if json:
        print(msgspec.json.format(msgspec.json.encode(offers)).decode())
        return
    names: dict[str, list[str]] = {}
    for name in [*dict.fromkeys(series_of(offer.version) for offer in offers), NEWEST]:
        names.setdefault(choose(name, offers).version, []).append(name)
    table = Table("version", "release", "suites", "MB", "called", box=None)
    for offer in offers:
        size = f"{offer.size / 1e6:.0f}" if offer.listed else f"~{offer.size / 1e6:.0f} *"
        row = (offer.version, offer.release, ", ".join(offer.suites), size)
        table.add_row(*row, ", ".join(names.get(offer.version, [])))
    console = Console(soft_wrap=True, width=_width())
    console.print(table)
    if not all(offer.listed for offer in offers):
        console.print(
            "* the lists no longer name its modules: they come from the pool, and the kernel checks their signatures"
        )


@app.command("fetch")
def fetch_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="newest, a series (6.12), a version (6.12.43) or a pin (6.12=6.12.43-1~bpo12+1); 6.1, 6.12 and newest when left out."
        ),
    ] = None,
    refresh: Annotated[bool, typer.Option(help="Look for a newer version of a kernel that is here.")] = False,
) -> None:
    """Fetch kernels with the machine's own apt client into the user's cache; nothing is installed."""
    from secondsight.lab.fetch import fetch
    from secondsight.lab.offers import DEFAULT

    for name in names or DEFAULT:
        kernel = fetch(name, refresh=refresh, say=say)
        print(f"{name}: {kernel.version} ({kernel.release})")


@app.command("drop")
def drop_command(
    names: Annotated[list[str] | None, typer.Argument(help="Names that `lab kernels` lists.")] = None,
    builds: Annotated[
        bool,
        typer.Option("--builds", help="Remove the sources and objects of `lab build`; its kernels stay."),
    ] = False,
) -> None:
    """Remove kernels from the user's cache; what they answered stays."""
    from secondsight.errors import UsageError
    from secondsight.lab.build import remove_builds
    from secondsight.lab.fetch import drop

    if not names and not builds:
        raise UsageError("nothing to remove: name kernels that `lab kernels` lists, or --builds")
    if builds:
        print(f"builds: {remove_builds() / 1e6:.0f} MB freed")
    for name in names or []:
        freed = drop(name, say=say)
        print(
            f"{name}: {freed / 1e6:.0f} MB freed"
            if freed
            else f"{name}: removed; another name stands for its kernel"
        )


@app.command("boot")
def boot_command(
    script: Annotated[Path, typer.Argument(help="A Python script to run in the guest.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its arguments.")] = None,
    kernel: KernelOption = "6.1",
    mmu: MmuOption = "npt",
    modules: ModulesOption = None,
    file: Annotated[list[str] | None, typer.Option(help="HOST:GUEST, a file to take along.")] = None,
    package: Annotated[
        list[str] | None,
        typer.Option(
            help="A module of ours to take along, besides what the script imports (secondsight.bits.*)."
        ),
    ] = None,
    memory: Annotated[int, typer.Option(help="MiB of the guest.")] = 1024,
    append: Annotated[str, typer.Option(help="More of the kernel's command line.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds in which it has to be done.")] = 300.0,
) -> None:
    """Run a Python script in a booted kernel and print what it prints (a debugging aid)."""
    from secondsight.errors import InputError, UsageError
    from secondsight.lab import initramfs, kernels
    from secondsight.lab.guest import GuestDied
    from secondsight.lab.machines import machine

    if not script.is_file():
        raise UsageError(f"no script at {script}")
    try:
        files = initramfs.program(script)
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise InputError(str(script), line, f"not a Python script: {str(error).split(' (')[0]}") from None
    files |= initramfs.package_sources(["secondsight.lab.wire", *(package or [])])
    for pair in file or []:
        host, _, inside = pair.partition(":")
        if not inside.startswith("/") or not Path(host).is_file():
            raise UsageError(f"--file takes HOST:/GUEST with a host file that is there, not {pair!r}")
        files[inside] = Path(host)
    chosen = kernels.resolve(kernel, modules=modules)
    main = ["/app/main.py", *(arguments or [])]
    with machine(mmu).boot(chosen, files, main=main, memory_mib=memory, append=append, say=say) as guest:
        guest.on_console = lambda text: print(text, end="", flush=True)
        try:
            while (value := guest.receive(timeout)) is not None:
                print(value, flush=True)
        except GuestDied as death:
            if death.status is None:
                raise
            raise typer.Exit(death.status) from None


@app.command("run")
def run_command(
    files: Annotated[list[str], typer.Argument(help="Scenario files (TOML or JSON).")],
    kernel: KernelOption = "6.1",
    mmu: MmuOption = "npt",
    modules: ModulesOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document a scenario, on a line of its own.")
    ] = False,
    states: Annotated[
        bool,
        typer.Option(
            "--states", help="Read every page's state around each pass, and each block's young pages."
        ),
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=1, help="Blocks that share one pass (default: what fits).")
    ] = None,
    fresh: Annotated[
        bool, typer.Option(help="Ask again what this code has asked this kernel before.")
    ] = False,
    record: Annotated[
        bool,
        typer.Option("--record", help="Write each answer into its file's \\[expect], under RELEASE/MMU."),
    ] = False,
) -> None:
    """Run scenarios in a booted kernel and print what its tracepoints said, as `scenario run` prints the model's answers.

    What is answered is kept in the cache: an interrupted run goes on where it stopped.
    """
    import contextlib
    import tempfile

    import msgspec

    from secondsight.errors import SecondSightError
    from secondsight.lab import kernels
    from secondsight.lab.machines import machine
    from secondsight.lab.run import Failure, run
    from secondsight.scenario.expect import write
    from secondsight.scenario.files import read
    from secondsight.scenario.text import lines, table

    scenarios = [read(path) for path in files]
    chosen = kernels.resolve(kernel, modules=modules)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if fresh else None
        answers = run(scenarios, chosen, mmu, states=states, size=size, folder=folder, say=say)
    for path, scenario, answer in zip(files, scenarios, answers, strict=True):
        if isinstance(answer, Failure):
            # On standard output nothing but answers, so that they stay one to a line.
            tail = "\n".join(f"  | {line}" for line in answer.console.rstrip().splitlines()[-15:])
            say(f"{path}: no answer: {answer.why}" + (f"; the console ended with\n{tail}" if tail else ""))
        elif json:
            sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        else:
            table(scenario, answer)
        if record and not isinstance(answer, Failure):
            write(path, {**scenario.expect, f"{chosen.release}/{machine(mmu).mmu}": lines(answer)})
    if lost := sum(isinstance(answer, Failure) for answer in answers):
        raise SecondSightError(
            f"{lost} of {pluralize(len(files), 'scenario')} without an answer; the others have one"
        )


lab_compare.register(app)
build.register(app)
diff.register(app)
evidence.register(app)
