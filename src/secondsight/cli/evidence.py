"""``secondsight lab hold``, ``identify``, ``score`` and ``diff``: what kernels' answers say about profiles, rules and each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.words import several

if TYPE_CHECKING:
    from secondsight.lab.answers import Kept
    from secondsight.lab.kernels import Kernel
    from secondsight.scenario.verbs import Scenario

KernelOption = Annotated[
    str, typer.Option("--kernel", "-k", help="A name that `lab kernels` lists, a pin, or a path.")
]
MmuOption = Annotated[str, typer.Option("--mmu", "-m", help="The machine: which secondary MMU KVM has.")]
ModulesOption = Annotated[Path | None, typer.Option(help="The module tree of a kernel given by its path.")]
RandomOption = Annotated[int, typer.Option(min=1, help="How many random scenarios.")]
SeedOption = Annotated[
    int, typer.Option(help="Their seed: the same scenarios again, whose answers are kept.")
]
KeptOption = Annotated[
    Path | None, typer.Option(help="Take these kept answers (`lab compare --keep`) and boot nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command("hold")(hold_command)
    app.command("identify")(identify_command)
    app.command("score")(score_command)
    app.command("diff")(diff_command)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _random(count: int, seed: int, mmu: str) -> list[Scenario]:
    from secondsight.scenario import random as chance

    return chance.scenarios(count, seed, chance.mmu_of(mmu))[0]


def _json(value: dict[str, Any]) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode({"schema": 1, **value}), indent=2).decode())


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def hold_command(
    files: Annotated[list[Path], typer.Argument(help="Kept answers (`lab compare --states --keep FILE`).")],
    rules: Annotated[
        str | None,
        typer.Option("--rules", "-r", help="Rules to hold against them (default: each kernel's own)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Hold the model against kernels' kept answers, every field of every page; nothing is booted.

    Exit code 1 if they disagree anywhere.
    """
    from secondsight.errors import SecondSightError
    from secondsight.lab.answers import held, read
    from secondsight.mm.profiles import profile, title

    given = profile(rules) if rules else None
    rows: list[dict[str, Any]] = []
    differing = 0
    for path in files:
        kept = read(path)
        found = held(kept, given)
        differing += found.scenarios - found.agreed
        rows.append(
            {
                "release": kept.release,
                "version": kept.version,
                "mmu": kept.mmu,
                "seed": kept.seed,
                "held": found,
            }
        )
        if json:
            continue
        print(
            f"{kept.version} on {kept.mmu}, rules {title(found.rules)}: {found.agreed} of {several(found.scenarios, 'scenario')} agree, "
            f"{several(found.states, 'state')} of spaces",
            flush=True,
        )
        for difference in found.differences:
            print(f"  {difference}")
    if json:
        _json({"files": rows})
    if differing:
        raise SecondSightError(f"{several(differing, 'scenario')} of {several(len(files), 'file')} differ")


def identify_command(
    kernel: KernelOption = "6.1",
    mmu: MmuOption = "npt",
    modules: ModulesOption = None,
    random: RandomOption = 200,
    seed: SeedOption = 1,
    more: Annotated[
        int, typer.Option(min=0, help="Scenarios asked beside those that tell profiles apart.")
    ] = 20,
    kept: KeptOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a kernel the scenarios on which profiles part; print the profile that answers likewise, and the rules in which it differs.

    Exit code 1 if scenarios are left that no rule explains.
    """
    from secondsight.errors import SecondSightError
    from secondsight.lab import kernels
    from secondsight.lab.answers import read
    from secondsight.lab.identify import identify, nearest
    from secondsight.mm.profiles import for_kernel, title

    if kept is None:
        chosen = kernels.resolve(kernel, modules=modules)
        found = identify(chosen, mmu, _random(random, seed, mmu), size=more, say=_say)
    else:
        asked = read(kept)
        found = nearest(asked.scenarios, asked.answers, asked.release, asked.mmu, blocks=asked.size, say=_say)
    own = for_kernel(found.kernel).name
    if json:
        _json({"own": own, "identity": found})
    else:
        print(f"{found.kernel} on {found.mmu}: {several(found.scenarios, 'scenario')} asked")
        for name, count in list(found.agreed.items())[:4]:
            print(f"  {count:4} agree with {title(name)}" + (" (its series')" if name == own else ""))
        print(f"nearest profile: {title(found.profile)}")
        for name, (ours, theirs, gain) in found.turned.items():
            print(f"  {name} is {_word(theirs)}, not {_word(ours)}: {gain} more agree")
        for difference in found.differences:
            print(f"  unexplained: {difference}")
    if found.differences or found.failures:
        left = len({d.scenario for d in found.differences})
        raise SecondSightError(
            f"{several(left, 'scenario')} unexplained by any one rule, {found.failures} without an answer"
        )


def score_command(
    kernel: KernelOption = "6.1",
    mmu: MmuOption = "npt",
    modules: ModulesOption = None,
    rules: Annotated[
        str | None, typer.Option("--rules", "-r", help="The profile that is tried (default: the kernel's).")
    ] = None,
    random: RandomOption = 300,
    seed: SeedOption = 1,
    kept: KeptOption = None,
    json: JsonOption = False,
) -> None:
    """Give each rule of a kernel's profile every other value, one at a time: would its answers notice?

    A rule that no scenario notices is not shown by these scenarios, whatever its evidence says.
    """
    from secondsight.lab.answers import read
    from secondsight.lab.score import score
    from secondsight.mm.profiles import for_kernel, profile

    campaign = _campaign(kernel, mmu, modules, random, seed) if kept is None else read(kept)
    tried = profile(rules) if rules else for_kernel(campaign.release)
    turned, bad = score(
        campaign.scenarios, campaign.answers, campaign.mmu, tried, size=campaign.size, say=_say
    )
    noticed = [t for t in turned if t.noticed is not None]
    if json:
        _json({"kernel": campaign.release, "mmu": campaign.mmu, "rules": tried.name, "scenarios": len(campaign.scenarios),
               "seed": campaign.seed, "disagree": bad, "turned": turned})  # fmt: skip
        return
    print(
        f"{campaign.release} on {campaign.mmu}, {tried.title}: {several(len(campaign.scenarios), 'scenario')} of seed {campaign.seed}"
        + (f", {len(bad)} of which disagree already" if bad else "")
    )
    for each in noticed:
        print(f"  {each.rule}={_word(each.value)}: noticed by #{each.noticed}, {each.where}")
    for each in turned:
        if each.noticed is None:
            print(f"  {each.rule}={_word(each.value)}: unnoticed ({each.evidence})")
    print(f"{len(noticed)} of {len(turned)} noticed")


def _campaign(kernel: str, mmu: str, modules: Path | None, random: int, seed: int) -> Kept:
    """The random scenarios of *seed* asked of *kernel*; those that it did not answer are left out."""
    from secondsight.lab import kernels
    from secondsight.lab.answers import ask

    return ask(_random(random, seed, mmu), kernels.resolve(kernel, modules=modules), mmu, seed=seed, say=_say)


def diff_command(
    first: Annotated[str, typer.Argument(help="A kernel, as --kernel takes it.")],
    second: Annotated[str, typer.Argument(help="The kernel that is held against it.")],
    mmu: MmuOption = "npt",
    modules: Annotated[
        list[Path] | None,
        typer.Option(help="The module tree of a kernel given by its path; repeated for the second."),
    ] = None,
    random: RandomOption = 60,
    seed: SeedOption = 1,
    expect: Annotated[
        Path | None, typer.Option(help="A file of the kinds that may and must differ, a line each.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Ask two kernels the same scenarios; group what they answer otherwise into kinds, and name the rules that explain each.

    With --expect, exit code 1 if another kind is found, or one of the file is not; without, if a kind is unexplained.
    """
    from secondsight.errors import SecondSightError
    from secondsight.lab.diff import kinds, read, unexpected
    from secondsight.lab.run import run
    from secondsight.mm.profiles import for_kernel

    wanted = read(expect) if expect else None
    a, b = _two(first, second, modules or [])
    scenarios = _random(random, seed, mmu)
    answers = [run(scenarios, each, mmu, states=True, say=_say) for each in (a, b)]
    before, after = for_kernel(a.release), for_kernel(b.release)
    found = kinds(scenarios, answers[0], answers[1], before, after)
    if json:
        _json({"first": a.release, "second": b.release, "mmu": mmu, "seed": seed, "found": found})
    else:
        print(f"{a.release} ({before.title}) and {b.release} ({after.title}) on {mmu}, seed {seed}")
        print(
            f"{found.differing} of {several(found.compared, 'scenario')} differ, in {several(len(found.kinds), 'kind')}; "
            f"left aside: {found.chance} in which reclaim or ksmd chose otherwise, {found.lost} without an answer"
        )
        for kind in found.kinds:
            print(kind.name)
            print(f"    {several(len(kind.scenarios), 'scenario')}, the first #{kind.scenarios[0]}; "
                  f"{', '.join(kind.rules) if kind.rules else 'unexplained'}")  # fmt: skip
    if wanted is not None:
        new, missing = unexpected(found.kinds, wanted)
        for name in new:
            print(f"not expected: {name}")
        for name in missing:
            print(f"expected and not found: {name}")
        if new or missing:
            raise SecondSightError(
                f"{several(len(new), 'kind')} beside those of {expect}, {len(missing)} of them not found"
            )
    elif unexplained := [kind for kind in found.kinds if not kind.rules]:
        raise SecondSightError(
            f"{several(len(unexplained), 'kind')} unexplained by the rules of the profiles"
        )


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
