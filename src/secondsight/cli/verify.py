"""``secondsight verify``: whether a change brought what was predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from secondsight.predict.observe import MeasuredChange, Observed

app = typer.Typer(add_completion=False)


@app.command()
def verify(
    pid: Annotated[int | None, typer.Option(help="The process.")] = None,
    cgroup: Annotated[
        Path | None, typer.Option(help="A cgroup's directory (v2), with those below it.")
    ] = None,
    during: Annotated[str, typer.Option("--for", help="How long to look, such as 30s.")] = "10s",
    work: Annotated[
        str | None,
        typer.Option(
            help="A line of the shell that prints how much work was done so far: a number that rises."
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Keep what is seen: before the change.")] = None,
    before: Annotated[Path | None, typer.Option(help="What was kept before the change.")] = None,
    predicted: Annotated[
        Path | None, typer.Option(help="What `compare -o` wrote of a trace (samples predict no run time).")
    ] = None,
    row: Annotated[
        str | None, typer.Option(help="Which row was applied. Default: the one that compare --apply names.")
    ] = None,
) -> None:
    """Look at a running process or cgroup before a change and after it, and compare that with what was predicted. Changes nothing.

    CPU time for each unit of work decides; without --work the load may have moved, and nothing is called met or missed.
    """
    import msgspec

    from secondsight import atomicfile
    from secondsight.errors import UsageError
    from secondsight.live.act.amounts import parse_duration
    from secondsight.live.read.process import Process
    from secondsight.predict import observe as seen

    if (pid is None) == (cgroup is None):
        raise UsageError("say what to look at: --pid PID or --cgroup DIRECTORY")
    seconds = parse_duration(during, "--for")
    # Whom to look at comes before what to do with it.
    if pid is not None:
        Process.open(pid).close()
    elif cgroup is not None:
        seen.of_cgroup(cgroup)
    if save is None and before is None:
        raise UsageError("--save FILE before the change, --before FILE after it")
    if predicted is not None and before is None:
        raise UsageError("--predicted is compared with a change: it needs --before FILE")
    atomicfile.check_writable(
        save,
        *(path for path in (before, predicted) if path is not None),
        kind=atomicfile.FileKind("file of --save", _is_kept),
    )
    old = seen.decode(_bytes(before), str(before)) if before is not None else None
    interval = _row(predicted, row) if predicted is not None else None
    if work is not None and not work.strip():
        raise UsageError("--work: name a command that prints how much work was done so far")
    if pid is not None:
        number = pid
        now = seen.observe(
            f"process {pid}", lambda: seen.of_process(number), seconds, work, name=seen.name_of(number)
        )
    else:
        assert cgroup is not None
        group = cgroup
        now = seen.observe(f"cgroup {cgroup}", lambda: seen.of_cgroup(group), seconds, work)
    if save is not None:
        with atomicfile.open_atomic(save) as part:
            part.write_bytes(msgspec.json.encode(now))
    if old is None:
        _print(now)
        return
    difference = seen.change(old, now)
    _changes(old, now, difference)
    if interval is not None:
        verdict = seen.verdict(interval[0], interval[1], difference)
        print(
            f"predicted for {verdict.label}: {verdict.middle:+.1%} of CPU time ({verdict.low:+.1%} to {verdict.high:+.1%})",
            end=": ",
        )
        print(
            {True: "as predicted", False: "not as predicted", None: f"neither met nor missed, {verdict.why}"}[
                verdict.met
            ]
        )


def _is_kept(path: Path) -> bool:
    from secondsight.errors import SecondSightError
    from secondsight.predict import observe

    try:
        observe.decode(_bytes(path), str(path))
    except SecondSightError:
        return False
    return True


def _bytes(path: Path) -> bytes:
    from secondsight.wholefile import read_whole

    return read_whole(path, 1 << 30, "what was written by `compare -o` or `verify --save`")


def _row(path: Path, label: str | None) -> tuple[str, tuple[float, float, float, float]]:
    """The label, and run_time, its bounds and its change, of the row that was applied."""
    from secondsight.errors import InputError, UsageError
    from secondsight.report import decode
    from secondsight.whatif.settings import best

    results = decode(_bytes(path), str(path))
    rows = [r for r in results.rows if label is None or label in (r.label, r.policy)]
    if not rows:
        raise UsageError(f"--row {label}: there are {', '.join(r.label for r in results.rows)}")
    chosen = rows[0] if label is not None else best(rows)
    interval = [
        chosen.metrics.get(key) for key in ("run_time", "run_time_low", "run_time_high", "run_time_change")
    ]
    known = [value for value in interval if value is not None]
    if len(known) < 4:
        raise InputError(
            str(path), chosen.label, "holds no predicted run time; compare says why in its notes"
        )
    return chosen.label, (known[0], known[1], known[2], known[3])


def _print(now: Observed) -> None:
    from secondsight.report.metrics import text

    unit = (
        f", {now.work:g} units of work, {text(now.per_work, 'seconds')} each" if now.work is not None else ""
    )
    print(f"{now.what}: {now.cpu:.2f} s of CPU time in {now.seconds:.1f} s{unit}")
    print(
        f"{now.faults:,} faults; {text(now.huge, 'bytes')} of {text(now.anon, 'bytes')} of its anonymous memory huge"
    )


def _changes(old: Observed, now: Observed, measured: MeasuredChange) -> None:
    from secondsight.report.metrics import text

    per = "a unit of work" if measured.by_work else "a second of the clock"
    units_before, units_now = (old.work, now.work) if measured.by_work else (old.seconds, now.seconds)
    assert units_before and units_now

    def line(title: str, was: str, is_: str, change: float | None) -> None:
        print(f"{title}: {was} before, {is_} now" + (f", {change:+.1%}" if change is not None else ""))

    line(
        f"CPU time for {per}",
        text(old.cpu / units_before, "seconds"),
        text(now.cpu / units_now, "seconds"),
        measured.cpu,
    )
    line(
        f"faults for {per}",
        f"{old.faults / units_before:.4g}",
        f"{now.faults / units_now:.4g}",
        measured.faults,
    )
    line("anonymous memory huge", text(old.coverage, "share"), text(now.coverage, "share"), None)
