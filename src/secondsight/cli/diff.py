"""``secondsight lab diff``: what one kernel answers otherwise than another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.cli.lab_options import MmuOption, say
from secondsight.plural import pluralize

if TYPE_CHECKING:
    from secondsight.lab.diff import DifferenceKind, Kinds
    from secondsight.lab.kernels import Kernel
    from secondsight.scenario.random import Drawn
    from secondsight.scenario.verbs import Scenario


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command("diff")(diff_command)


def diff_command(
    first: Annotated[str, typer.Argument(help="A kernel, as --kernel takes it.")],
    second: Annotated[str, typer.Argument(help="The kernel that is held against it.")],
    files: Annotated[list[str] | None, typer.Argument(help="Scenario files to ask, beside the random ones.")] = None,
    mmu: MmuOption = "npt",
    modules: Annotated[
        list[Path] | None, typer.Option(help="The module tree of a kernel given by its path; repeated for the second."),
    ] = None,
    random: Annotated[int | None, typer.Option(min=0, help="How many random scenarios (default: 60, or none with files).")] = None,
    seed: Annotated[int, typer.Option(help="Their seed: the same scenarios again, whose answers are kept.")] = 1,
    sizes: Annotated[
        bool | None,
        typer.Option("--sizes/--no-sizes", help="Draw hugepages-*kB/enabled at random too (default: where both kernels have them)."),
    ] = None,
    guest_only: Annotated[
        bool, typer.Option("--guest-only", help="Every third random scenario has a block that only a guest uses."),
    ] = False,
    shrink: Annotated[bool, typer.Option(help="Look for the shortest scenario of each kind, on both kernels.")] = True,
    write: Annotated[Path | None, typer.Option(help="Folder for the shortest scenarios, a file each.")] = None,
    expect: Annotated[
        Path | None,
        typer.Option(help="A file of the kinds that must be found, a line each (after a ? those that may be), and no others."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:  # fmt: skip
    """Ask two kernels the same scenarios; group what they answer otherwise into kinds, and name the rules that explain each.

    Of a scenario only what differs first makes a kind; what follows from it is counted with it. With --expect, exit code 1 if another
    kind is found, or one that must be is not; without, if a kind is unexplained.
    """
    from secondsight.errors import UsageError
    from secondsight.lab.diff import read
    from secondsight.lab.differ import differ
    from secondsight.mm.profiles import for_kernel

    wanted = read(expect) if expect else None
    count = (0 if files else 60) if random is None else random
    if not files and not count:
        raise UsageError("nothing to ask: name scenario files, or --random N")
    a, b = _two(first, second, modules or [])
    before, after = for_kernel(a.upstream), for_kernel(b.upstream)
    both = before.has_sizes and after.has_sizes
    drawn: Drawn = {
        "sizes": both if sizes is None else sizes,
        "guards": before.has_guard and after.has_guard,
        "parts": before.mthp_collapse and after.mthp_collapse,
        "droppables": before.has_droppable and after.has_droppable,
        "mlocks": before.mlock_batched and after.mlock_batched,
        "guest_only": guest_only,
    }
    scenarios = _scenarios(files or [], count, seed, mmu, drawn)
    kinds = differ(scenarios, a, b, mmu, shrink=shrink, say=say)
    if json:
        _json(a, b, mmu, seed, kinds)
    else:
        print(
            f"{a.release} ({before.title}) and {b.release} ({after.title}) on {mmu}, seed {seed if count else '-'}"
        )
        _print(kinds)
    if write:
        _write(write, kinds.kinds)
    _judge(kinds, wanted, str(expect))


def _scenarios(files: list[str], count: int, seed: int, mmu: str, drawn: Drawn) -> list[Scenario]:
    from secondsight.lab.machines import machine
    from secondsight.scenario import random as chance
    from secondsight.scenario.files import read

    at_random = chance.scenarios(count, seed, machine(mmu).mmu, **drawn)[0] if count else []
    return [read(path) for path in files] + at_random


def _two(first: str, second: str, modules: list[Path]) -> tuple[Kernel, Kernel]:
    """Both kernels; module trees go to those given by a path, in order."""
    from secondsight.errors import UsageError
    from secondsight.lab import kernels

    trees = iter(modules)
    a, b = (
        kernels.resolve(name, modules=next(trees, None) if "/" in name else None) for name in (first, second)
    )
    if next(trees, None) is not None:
        raise UsageError("--modules: more module trees than kernels given by a path")
    return a, b


def _print(kinds: Kinds) -> None:
    print(
        f"{len(kinds.differing)} of {pluralize(kinds.compared, 'scenario')} differ, in {pluralize(len(kinds.kinds), 'kind')}; "
        f"{kinds.guest_only} with a block that only a guest used"
    )
    print(
        f"left aside: {kinds.chance} in which reclaim or ksmd chose otherwise, {kinds.lost} without an answer, "
        f"{len(kinds.unsteady)} that were otherwise when asked again"
    )
    for kind in kinds.kinds:
        print(f"\n{kind.name}")
        rules = [f"{rule} ({n})" for rule, n in kind.rules.items()]
        rules += [f"unexplained ({len(kind.unexplained)})"] if kind.unexplained else []
        print(
            f"    {pluralize(len(kind.scenarios), 'scenario')}, the first #{kind.scenarios[0]}; {', '.join(rules)}"
        )
        if kind.follows:
            print(f"    what follows: {', '.join(kind.follows)}")
        for line in kind.shortest.splitlines():
            print(f"    | {line}".rstrip())


def _json(a: Kernel, b: Kernel, mmu: str, seed: int, kinds: Kinds) -> None:
    import msgspec

    kind_rows = []
    for kind in kinds.kinds:
        names = ("name", "scenarios", "rules", "unexplained", "follows", "shortest")
        kind_rows.append({name: getattr(kind, name) for name in names})
    rest = {
        name: getattr(kinds, name)
        for name in ("compared", "differing", "lost", "chance", "unsteady", "guest_only")
    }
    whole = {
        "schema": 1,
        "first": a.release,
        "second": b.release,
        "mmu": mmu,
        "seed": seed,
        "found": {"kinds": kind_rows, **rest},
    }
    print(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode())


def _write(folder: Path, kinds: list[DifferenceKind]) -> None:
    import re

    from secondsight.atomicfile import open_atomic

    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        if kind.shortest:
            name = re.sub(r"[^A-Za-z0-9]+", "-", kind.name).strip("-").lower()
            with open_atomic(folder / f"{name}.toml") as part:
                part.write_text(kind.shortest)


def _judge(kinds: Kinds, wanted: object, source: str) -> None:
    """Print what was expected otherwise, and raise SecondSightError for it."""
    from secondsight.errors import SecondSightError
    from secondsight.lab.diff import Expected, unexpected

    if isinstance(wanted, Expected):
        new, missing = unexpected(kinds.kinds, wanted)
        for name in new:
            print(f"not expected: {name}")
        for name in missing:
            print(f"expected and not found: {name}")
        if new or missing:
            raise SecondSightError(
                f"{pluralize(len(new), 'kind')} beside those of {source}, {len(missing)} of them not found"
            )
        if kinds.lost:
            raise SecondSightError(f"{pluralize(kinds.lost, 'scenario')} without an answer")
        print(f"as expected: {pluralize(len(kinds.kinds), 'kind')}, each in {source}")
    elif unexplained := [kind for kind in kinds.kinds if kind.unexplained]:
        raise SecondSightError(
            f"{pluralize(len(unexplained), 'kind')} not, or not always, explained by the rules of the profiles"
        )
