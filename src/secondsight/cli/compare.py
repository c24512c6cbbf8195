"""``secondsight compare``: what policies and kernel profiles would bring on a recorded trace, and cost."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from secondsight.cli.options import (
    KnobOption,
    MglruOption,
    MmuOption,
    Progress,
    complete_policy,
    host,
    rules_option,
    stands_behind,
)
from secondsight.terminal import markup

if TYPE_CHECKING:
    from secondsight.report.schema import Results

app = typer.Typer(add_completion=False)


def is_table(path: Path) -> bool:
    """Does *path* hold a table of results, as ``--parquet`` writes it?"""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from secondsight.report.table import KEY

    try:
        return KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


@app.command()
def compare(
    trace: Annotated[
        Path | None,
        typer.Argument(
            help="The trace; or its results, as -o wrote them, or the directory of a sweep, to report on again."
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
            autocompletion=complete_policy,
            help="NAME[,option=value…]; repeatable. Default: never, khugepaged, always, oracle.",
        ),
    ] = None,
    rules: Annotated[
        list[str] | None,
        rules_option("A profile, or PROFILE+rule=value,…; repeatable. Default: 7.2."),
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
    knob: KnobOption = None,
    mmu: MmuOption = "npt",
    mglru: MglruOption = False,
    backing: Annotated[
        str, typer.Option(help="What stands behind the trace's spaces: trace (as recorded), process, vm.")
    ] = "trace",
    time_scale: Annotated[
        float, typer.Option(help="ns of khugepaged's clock for one ns of the trace.")
    ] = 1.0,
    tlb: Annotated[bool, typer.Option(help="Model a TLB: misses, walks, MMU overhead. Slower.")] = False,
    cpu_time: Annotated[
        float | None,
        typer.Option("--cpu-time", help="CPU seconds that the program takes today, for predicted run times."),
    ] = None,
    today: Annotated[
        str | None,
        typer.Option(
            help="The policy that decides today. Default: by the THP setting that the trace names, or never."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Predict with this file of `calibrate`, another machine's if need be. Default: this machine's."
        ),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Print the settings that the best row means; makes none."),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Write everything as JSON; of a trace, compare and verify read it again."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead.")] = False,
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
    """Compare policies and kernel profiles on one trace: benefit, bloat and cost."""
    from secondsight import atomicfile
    from secondsight.errors import UsageError
    from secondsight.trace.samples import is_samples

    if json:
        for_people = {
            "--explain": explain is not None,
            "--policies": policies,
            "--apply": apply,
            "--passes": passes,
            "--all": everything,
        }
        _refuse(for_people, "what it prints is for people, and --json prints JSON alone")
    if explain is not None:
        _explain(explain)
    elif policies:
        _policies()
    elif trace is None:
        raise UsageError("compare needs a TRACE; `secondsight compare --help` tells the rest")
    elif is_samples(trace):
        from secondsight.cli.sampled import refuse

        refuse(
            {
                "--tlb": tlb, "--cpu-time": cpu_time, "--today": today, "--calibration": calibration, "--apply": apply, "--vary": vary,
                "--report": report, "--csv": csv, "--parquet": parquet, "--svg": svg, "--passes": passes, "--trace": of,
            },
            "compare",
        )  # fmt: skip
        atomicfile.check_writable(output, trace, kind=atomicfile.starting("JSON", b"{"))
        _samples(
            trace,
            policy,
            rules,
            budget,
            host(knob or [], mmu, mglru),
            stands_behind(backing, "--backing"),
            time_scale,
            output,
            json,
        )
    else:
        atomicfile.check_writable(report, trace, kind=atomicfile.PAGE)
        atomicfile.check_writable(output, trace, kind=atomicfile.starting("JSON", b"{"))
        atomicfile.check_writable(csv, trace, kind=atomicfile.starting("CSV of results", b"# {"))
        atomicfile.check_writable(parquet, trace, kind=atomicfile.FileKind("table of results", is_table))
        atomicfile.check_distinct(report, output, csv, parquet)
        atomicfile.check_directory(svg)
        if of is not None and not trace.is_dir():
            raise UsageError(
                f"--trace {of}: chooses among a sweep's traces, and {trace} is no sweep's directory"
            )
        results = _made(trace, of)
        if results is not None:
            _refuse_replaying({
                "--policy": policy, "--rules": rules, "--vary": vary, "--budget": budget, "--knob": knob, "--mmu": mmu != "npt",
                "--mglru": mglru, "--backing": backing != "trace", "--time-scale": time_scale != 1.0, "--tlb": tlb,
                "--cpu-time": cpu_time, "--today": today, "--calibration": calibration,
            }, trace)  # fmt: skip
        else:
            results = _run(
                trace, policy, rules, vary, budget, host(knob or [], mmu, mglru), stands_behind(backing, "--backing"), time_scale, tlb,
                channels=report is not None or output is not None or json, predict=(cpu_time, today, calibration),
            )  # fmt: skip
        try:
            _write(results, report, output, csv, parquet, svg)
        finally:
            # A disk that is full then keeps a file from being written, and not from anybody what may have taken hours.
            if json:
                _print_json(results)
            else:
                _print(results, everything, passes)
        if apply:
            from secondsight.whatif.settings import settings

            print()
            print("\n".join(settings(results)))


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Refuse the first option of *given*, by name, that was used, for *why*."""
    from secondsight.errors import UsageError

    for name, used in given.items():
        if used:
            raise UsageError(f"{name}: {why}")


def _refuse_replaying(given: dict[str, object], path: Path) -> None:
    """Refuse the first option of *given*, by name, that was used though nothing is replayed."""
    _refuse(given, f"{path} holds results, which are reported as they were made: give the trace to replay it")


def _samples(
    trace: Path, policy: list[str] | None, rules: list[str] | None, budget: str | None, config: Any, backing: Any, time_scale: float,
    output: Path | None, json: bool,
) -> None:  # fmt: skip
    """Compare on samples, whose figures are ranges."""
    import msgspec

    from secondsight.cli.sampled import print_comparison
    from secondsight.report.table import whole
    from secondsight.trace.samples import Samples
    from secondsight.whatif.sampled import compare_samples

    samples = Samples.open(trace)
    with Progress("replayed") as progress:
        comparison = compare_samples(
            samples, policy or ["never", "khugepaged", "always"], rules or ["7.2"], config=config, budget=budget,
            time_scale=time_scale, backing=backing, progress=progress,
        )  # fmt: skip
    if output:
        whole(output, msgspec.json.encode(comparison))
    if json:
        print(msgspec.json.encode(comparison).decode())
    else:
        print_comparison(samples, comparison, False, None)


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
    from secondsight.errors import SecondSightError
    from secondsight.policy import find, names, options, ranges

    broken = False
    for name in names():
        try:
            policy = find(name)
        except SecondSightError as error:
            # One package that is broken hides none of the others.
            print(error, file=sys.stderr)
            broken = True
            continue
        first, _, rest = (" ".join(part.split()) for part in (policy.__doc__ or "").partition("\n\n"))
        print(textwrap.fill(f"{name}: {first}", 110, subsequent_indent="  "))
        if rest:
            print(textwrap.fill(rest, 110, initial_indent="  ", subsequent_indent="  "))
        within = ranges(policy)
        for key, (kind, default) in options(policy).items():
            words = ("true", "false") if kind is bool else get_args(kind)
            option = f"{key}={str(default).lower() if isinstance(default, bool) else default}"
            print(f"  {option:26} {within[key] if key in within else ' or '.join(words)}".rstrip())
    if broken:
        raise typer.Exit(1)


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
    predict: tuple[float | None, str | None, Path | None],
) -> Results:
    from secondsight.replay.tlb import TlbConfig
    from secondsight.whatif import Range
    from secondsight.whatif import compare as run
    from secondsight.whatif.predicted import PredictionBasis

    with Progress("replayed", compiles=True) as progress:
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
            predict=PredictionBasis(*predict),
            channels=channels,
            progress=progress,
            command=shlex.join(["secondsight", *sys.argv[1:]]),
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
    from secondsight.report import decode
    from secondsight.wholefile import read_whole

    return decode(read_whole(path, 1 << 30, "what `compare -o` wrote"), str(path))


def _write(
    results: Results,
    report: Path | None,
    output: Path | None,
    csv: Path | None,
    parquet: Path | None,
    svg: Path | None,
) -> None:
    from secondsight.report import encode, write
    from secondsight.report.charts import write_svg
    from secondsight.report.table import whole, write_csv, write_parquet

    if output:
        whole(output, encode(results))
    if csv:
        write_csv(results, csv)
    if parquet:
        write_parquet(results, parquet)
    if svg:
        write_svg(results, svg)
    if report:
        write(results, report)


def _print_json(results: Results) -> None:
    from secondsight.report import encode

    print(encode(results).decode())


def _print(results: Results, everything: bool, passes: bool) -> None:
    from rich.console import Console

    from secondsight.report.table import attempts, by_pass, sensitivity, terminal, those_not_run

    wide = Console()
    # A pipe has no width of its own: lines are not folded there.
    console = wide if wide.is_terminal else Console(width=400)
    console.print(
        "\n".join(map(markup, results.answer.split("\n"))), highlight=False, soft_wrap=not wide.is_terminal
    )
    console.print()
    console.print(terminal(results, everything=everything))
    for line in those_not_run(results.rows):
        console.print(markup(line), highlight=False, soft_wrap=True)
    tried = attempts(results)
    for table in [*([tried] if tried else []), *(by_pass(results) if passes else []), *sensitivity(results)]:
        console.print()
        console.print(table)
    for note in results.provenance.notes:
        console.print(f"note: {markup(note)}", highlight=False)
