"""``secondsight scenario``: run scenario files on the model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from secondsight.cli.options import rules_option
from secondsight.plural import pluralize
from secondsight.terminal import printable

app = typer.Typer(no_args_is_help=True)


@app.command("run")
def run_command(
    files: Annotated[list[str], typer.Argument(help="Scenario files (TOML or JSON).")],
    rules: Annotated[
        list[str] | None,
        rules_option(
            "Kernel profile, or profile+field=value; may be repeated. Default: the file's, else all."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document a run, on a line of its own.")
    ] = False,
    states: Annotated[
        bool, typer.Option("--states", help="With --json: the state of every page around each pass.")
    ] = False,
) -> None:
    """Print, for each khugepaged pass and block, what the kernel's tracepoints print, and in which channels pages were young."""
    import msgspec

    from secondsight.errors import UsageError
    from secondsight.mm.profiles import PROFILES, profile
    from secondsight.scenario.files import read
    from secondsight.scenario.run import run
    from secondsight.scenario.text import table

    if states and not json:
        raise UsageError("--states: no table holds the state of every page; add --json")
    wanted = [profile(name) for name in rules] if rules else None
    for path in files:
        scenario = read(path)
        profiles = wanted or [profile(name) for name in scenario.rules or PROFILES]
        notes = {scenario.host.note(mthp_collapse=each.mthp_collapse) for each in profiles} - {None}
        for note in notes:
            typer.echo(f"{printable(path)}: {note}", err=True)
        for each in profiles:
            answer = run(scenario, each, keep_states=states)
            if json:
                sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
            else:
                table(scenario, answer)


@app.command("check")
def check_command(
    files: Annotated[
        list[str], typer.Argument(help="Scenario files whose expected answers are to be checked.")
    ],
    update: Annotated[
        bool, typer.Option(help="Write the model's answers into each file (a kernel's, `kernel/mmu`, stay).")
    ] = False,
) -> None:
    """Run each file under the profiles it states answers for and compare; exit code 1 if one differs, or states none.

    An answer of a booted kernel, stated as `kernel/mmu`, is held against the model under that kernel's rules.
    """
    from secondsight.errors import SecondSightError
    from secondsight.scenario.expect import answers, differences, write
    from secondsight.scenario.files import read

    failed = silent = 0
    for path in files:
        scenario = read(path)
        if update:
            write(path, {**{k: v for k, v in scenario.expect.items() if "/" in k}, **answers(scenario)})
            scenario = read(path)
        wrong = differences(scenario)
        failed += bool(wrong)
        if not scenario.expect:
            silent += 1
            typer.echo(
                f"{printable(path)}: states no answers ([expect]): nothing was compared; --update writes the model's"
            )
            continue
        typer.echo(f"{printable(path)}: {'as expected' if not wrong else ''}")
        for line in wrong:
            typer.echo(f"  {printable(line)}")
    if failed:
        raise SecondSightError(
            f"{failed} of {pluralize(len(files), 'scenario')} answered otherwise than they state"
        )
    if silent:
        raise SecondSightError(
            f"{silent} of {pluralize(len(files), 'scenario')} state nothing to compare with"
        )
