"""``secondsight compare``: what policies and rules would bring on a recorded trace, and cost."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from secondsight.report.schema import Results

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    trace: Annotated[
        Path | None,
        typer.Argument(
            help="The trace; or the results of --json or the directory of a sweep, to report on again."
        ),
    ] = None,
    of: Annotated[
        str | None, typer.Option("--trace", help="Of a sweep: one trace alone, by its name or the end of it.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--policy",
            help="NAME[,option=value…]; repeatable. Default: never, khugepaged, always, oracle.",
        ),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("-r", "--rules", help="A preset, or PRESET+rule=value,…; repeatable. Default: 7.2."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="A knob over its range: max_ptes_none=0..511:64, or alpha=0.2,0.4; repeatable, one knob at a time."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Blocks that may become huge in the run, or a share of the footprint: 25%."),
    ] = None,
    knob: Annotated[
        list[str] | None, typer.Option(help="khugepaged's sysfs files: pages_to_scan=4096; repeatable.")
    ] = None,
    mmu: Annotated[str, typer.Option(help="What KVM uses: npt, shadow, ept, ept-noad.")] = "npt",
    mglru: Annotated[bool, typer.Option(help="The host runs MGLRU.")] = False,
    backing: Annotated[
        str, typer.Option(help="What stands behind the trace's spaces: trace (as recorded), process, vm.")
    ] = "trace",
    time_scale: Annotated[
        float, typer.Option(help="ns of khugepaged's clock for one ns of the trace.")
    ] = 1.0,
    tlb: Annotated[bool, typer.Option(help="Model a TLB: misses, walks, MMU overhead. Slower.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the table as Parquet.")] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Write each chart as an SVG file into this directory.")
    ] = None,
    passes: Annotated[
        bool,
        typer.Option(
            "--passes", help="Print what stood after each of khugepaged's passes, not only at the end."
        ),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every figure, not only those one reads first.")
    ] = False,
    explain: Annotated[str | None, typer.Option(help="Print what a figure means, and nothing else.")] = None,
    policies: Annotated[
        bool, typer.Option("--policies", help="List the policies and their options, and nothing else.")
    ] = False,
) -> None:
    """Compare policies and rules on one trace: benefit, bloat and cost."""
    from secondsight import output
    from secondsight.errors import UsageError

    if explain is not None:
        _explain(explain)
    elif policies:
        _policies()
    elif trace is None:
        raise UsageError("compare needs a TRACE; `secondsight compare --help` tells the rest")
    else:
        for path in (report, json, csv, parquet):
            output.ready(path, trace)
        results = _made(trace, of)
        if results is None:
            if of is not None:
                raise UsageError(
                    f"--trace {of}: chooses among a sweep's traces, and {trace} is no sweep's directory"
                )
            results = _run(
                trace, policy, rules, vary, budget, _config(knob or [], mmu, mglru), _backing(backing), time_scale, tlb,
                channels=report is not None or json is not None,
            )  # fmt: skip
        _write(results, report, json, csv, parquet, svg)
        _print(results, everything, passes)


def _explain(name: str) -> None:
    from secondsight.report.metrics import METRICS
    from secondsight.report.metrics import explain as definition

    for metric in METRICS.values() if name == "all" else [definition(name)]:
        print(
            f"{metric.title} ({metric.key}, {metric.form}, {metric.better} is better)".replace(
                "neither is better", "neither way is better"
            )
        )
        print(f"  {metric.definition}")


def _policies() -> None:
    from secondsight.policy import find, names, options

    for name in names():
        policy = find(name)
        takes = ", ".join(
            f"{key}={str(default).lower() if isinstance(default, bool) else default}"
            for key, (_, default) in options(policy).items()
        )
        print(f"{name}  {takes}".rstrip())
        print(f"  {' '.join((policy.__doc__ or '').split(chr(10) + chr(10))[0].split())}")


def _config(knobs: list[str], mmu: str, mglru: bool) -> Any:
    from typing import get_args

    import msgspec

    from secondsight.errors import UsageError
    from secondsight.mm.config import HostConfig, Knobs, Mmu
    from secondsight.replay import HOST

    if mmu not in (known := get_args(Mmu)):
        raise UsageError(f"--mmu {mmu!r}: one of {', '.join(known)}")
    changes: dict[str, int] = {}
    for item in knobs:
        name, equals, value = item.partition("=")
        if not equals or name not in Knobs.__struct_fields__ or not (value.isascii() and value.isdigit()):
            raise UsageError(
                f"--knob {item!r}: write NAME=NUMBER, one of {', '.join(Knobs.__struct_fields__)}"
            )
        changes[name] = int(value)
    told = msgspec.to_builtins(HOST) | {"mmu": mmu, "mglru": mglru}
    told["knobs"] |= changes
    try:
        return msgspec.convert(told, HostConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"host: {error}") from None


def _backing(text: str) -> Any:
    from secondsight.errors import UsageError

    if text not in ("trace", "process", "vm"):
        raise UsageError(f"--backing {text!r}: one of trace, process, vm")
    return text


def _run(
    trace: Path,
    policy: list[str] | None,
    rules: list[str] | None,
    vary: list[str] | None,
    budget: str | None,
    config: Any,
    backing: Any,
    time_scale: float,
    tlb: bool,
    *,
    channels: bool,
) -> Results:
    from secondsight.replay.tlb import TlbConfig
    from secondsight.whatif import Range
    from secondsight.whatif import compare as run

    with Progress() as progress:
        return run(
            trace,
            policy or ["never", "khugepaged", "always", "oracle"],
            rules or ["7.2"],
            config=config,
            time_scale=time_scale,
            backing=backing,
            budget=budget,
            tlb=TlbConfig() if tlb else None,
            vary=[Range.parse(v) for v in vary or []],
            channels=channels,
            progress=progress,
            command=shlex.join(["secondsight", *sys.argv[1:]]),
        )


class Progress:
    """One line on standard error where that is a terminal: share done, and the time left."""

    def __init__(self) -> None:
        """Nothing printed yet."""
        self.start = self.last = time.monotonic()
        self.shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        """*done* of *total* rows."""
        now = time.monotonic()
        if now - self.last < 0.5 or not sys.stderr.isatty() or not done:
            return
        self.last, self.shown = now, True
        left = (now - self.start) * (total - done) / done
        print(
            f"\r\x1b[K{100 * done / max(total, 1):.0f} % replayed, {left:.0f} s left",
            end="",
            file=sys.stderr,
            flush=True,
        )


def _made(path: Path, of: str | None) -> Results | None:
    """The results that *path* holds already; None where it is a trace to be replayed."""
    if path.suffix == ".json":
        return _results(path)
    if not path.is_dir():
        return None
    from secondsight.whatif.overview import results

    return results(path, of, shlex.join(["secondsight", *sys.argv[1:]]))


def _results(path: Path) -> Results:
    from secondsight.errors import InputError
    from secondsight.report import decode

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "", f"cannot be read: {error.strerror}") from None
    return decode(raw, str(path))


def _write(
    results: Results,
    report: Path | None,
    json: Path | None,
    csv: Path | None,
    parquet: Path | None,
    svg: Path | None,
) -> None:
    from secondsight.report import encode, write
    from secondsight.report.charts import write_svg
    from secondsight.report.table import whole, write_csv, write_parquet

    if json:
        whole(json, encode(results))
    if csv:
        write_csv(results, csv)
    if parquet:
        write_parquet(results, parquet)
    if svg:
        write_svg(results, svg)
    if report:
        write(results, report)


def _print(results: Results, everything: bool, passes: bool) -> None:
    from rich.console import Console

    from secondsight.report.table import by_pass, sensitivity, terminal

    wide = Console()
    # A pipe has no width of its own: lines are not folded there.
    console = wide if wide.is_terminal else Console(width=400)
    console.print(results.answer, highlight=False, soft_wrap=not wide.is_terminal)
    console.print()
    console.print(terminal(results, everything=everything))
    for table in [*(by_pass(results) if passes else []), *sensitivity(results)]:
        console.print()
        console.print(table)
    for note in results.provenance.notes:
        console.print(f"note: {note}", highlight=False)
