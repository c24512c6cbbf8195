"""``secondsight lab hold``, ``identify`` and ``score``: what kernels' answers say about profiles and rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.lab_options import KernelOption, MmuOption, ModulesOption, say
from secondsight.cli.options import Progress, rules_option
from secondsight.plural import pluralize
from secondsight.terminal import printable

if TYPE_CHECKING:
    from secondsight.lab.answers import Kept
    from secondsight.lab.score import ChangedRule
    from secondsight.mm.rules import Rules
    from secondsight.scenario.verbs import Scenario

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


def _random(count: int, seed: int, mmu: str) -> list[Scenario]:
    from secondsight.lab.machines import machine
    from secondsight.scenario import random as chance

    return chance.scenarios(count, seed, machine(mmu).mmu)[0]


def _json(value: dict[str, Any]) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode({"schema": 1, **value}), indent=2).decode())


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def hold_command(
    files: Annotated[list[Path], typer.Argument(help="Kept answers (`lab compare --states --keep FILE`).")],
    rules: Annotated[
        str | None,
        rules_option("Profile to compare with them (default: each kernel's own)."),
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
        with Progress(f"of {printable(path.name)} held", compiles=True) as progress:
            agreement = held(kept, given, progress)
        differing += agreement.scenarios - agreement.agreed
        rows.append(
            {
                "release": kept.release,
                "version": kept.version,
                "mmu": kept.mmu,
                "seed": kept.seed,
                "held": agreement,
            }
        )
        if json:
            continue
        print(
            f"{printable(kept.version)} on {printable(kept.mmu)},"
            f" rules {title(agreement.rules)}: {agreement.agreed} of {pluralize(agreement.scenarios, 'scenario')} agree, "
            f"{pluralize(agreement.states, 'state')} of spaces",
            flush=True,
        )
        for difference in agreement.differences:
            print(f"  {printable(difference)}")
    if json:
        _json({"files": rows})
    if differing:
        raise SecondSightError(
            f"{pluralize(differing, 'scenario')} of {pluralize(len(files), 'file')} differ"
        )


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
        identity = identify(chosen, mmu, _random(random, seed, mmu), size=more, say=say)
    else:
        asked = read(kept)
        identity = nearest(
            asked.scenarios,
            asked.answers,
            asked.upstream,
            asked.mmu,
            blocks=asked.size,
            unsteady=asked.unsteady,
            say=say,
        )
    own = for_kernel(identity.kernel).name
    if json:
        _json({"own": own, "identity": identity})
    else:
        print(
            f"{printable(identity.kernel)} on {printable(identity.mmu)}: {pluralize(identity.scenarios, 'scenario')} asked"
        )
        for name, count in list(identity.agreed.items())[: max(4, 1 + len(identity.alike))]:
            print(f"  {count:4} agree with {title(name)}" + (" (its series')" if name == own else ""))
        others = (
            f"; these scenarios do not tell it from {', '.join(map(title, identity.alike))}"
            if identity.alike
            else ""
        )
        print(f"nearest profile: {title(identity.profile)}{others}")
        for name, (ours, theirs, gain) in identity.turned.items():
            print(f"  {name} is {_word(theirs)}, not {_word(ours)}: {gain} more agree")
        for difference in identity.differences:
            print(f"  unexplained: {printable(difference)}")
    if identity.differences or identity.failures:
        left = len({d.scenario for d in identity.differences})
        raise SecondSightError(
            f"{pluralize(left, 'scenario')} unexplained by any one rule, {identity.failures} without an answer"
        )


def score_command(
    kernel: KernelOption = "6.1",
    mmu: MmuOption = "npt",
    modules: ModulesOption = None,
    rules: Annotated[
        str | None,
        rules_option("The profile that is tried (default: the kernel's)."),
    ] = None,
    random: RandomOption = 300,
    seed: SeedOption = 1,
    kept: Annotated[
        list[Path] | None,
        typer.Option(help="Take these kept answers of one kernel (`lab compare --keep`) and boot nothing."),
    ] = None,
    towards: Annotated[
        str | None,
        rules_option("Change only what is otherwise in this profile, to what it is there.", "--towards"),
    ] = None,
    mutants: Annotated[
        int,
        typer.Option(
            min=0, help="Instead of rules, change this many places of mm/khugepaged's code (needs --kept)."
        ),
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Give each rule of a kernel's profile every other value, one at a time: would its answers notice?

    A rule that no scenario notices is not shown by these scenarios, whatever its evidence says. With --mutants a sample of the model's
    code, drawn from --seed, is changed instead: a comparison, a constant, the order of two checks.
    """
    from secondsight.errors import UsageError
    from secondsight.lab.answers import read
    from secondsight.lab.score import score_kept
    from secondsight.mm.profiles import for_kernel, profile

    if mutants:
        if towards:
            raise UsageError("--towards is about rules, --mutants about code: give one of them")
        if not kept:
            raise UsageError(
                "mutants are held against kept answers: give --kept FILE (`lab compare --states --keep FILE`)"
            )
        _mutants(kept, mutants, seed, json)
        return
    campaigns = [read(each) for each in kept] if kept else [_campaign(kernel, mmu, modules, random, seed)]
    tried = profile(rules) if rules else for_kernel(campaigns[0].upstream)
    turned, bad = score_kept(campaigns, tried, towards=profile(towards) if towards else None, say=say)
    asked = [
        {"kernel": c.release, "mmu": c.mmu, "scenarios": len(c.scenarios), "seed": c.seed} for c in campaigns
    ]
    if json:
        _json({"rules": tried.name, "asked": asked, "disagree": bad, "turned": turned})
        return
    _print_score(campaigns, tried, turned, bad)


def _print_score(campaigns: list[Kept], tried: Rules, turned: list[ChangedRule], bad: int) -> None:
    """Which values of rules the answers noticed, why not the others, and the shares."""
    from secondsight.lab.unshown import alike, unmet, unseen

    noticed = [t for t in turned if t.noticed is not None]
    for each in campaigns:
        print(
            f"{each.release} on {each.mmu}, {tried.title}: {pluralize(len(each.scenarios), 'scenario')}{_drawn(each, ' of')}"
        )
    if bad:
        print(f"{bad} of them disagree already")
    for turned_rule in noticed:
        on = (
            f" of {campaigns[turned_rule.campaign].mmu}{_drawn(campaigns[turned_rule.campaign], ',')}"
            if len(campaigns) > 1
            else ""
        )
        print(
            f"  {turned_rule.rule}={_word(turned_rule.value)}: noticed by #{turned_rule.noticed}{on}, {turned_rule.where}"
        )
    mmus = {each.mmu for each in campaigns}
    lacked = same = 0
    for turned_rule in turned:
        if turned_rule.noticed is not None:
            continue
        name, value = turned_rule.rule, turned_rule.value
        if why := unmet(tried, name):
            lacked += 1
            said = "no rule of this kernel"
        elif why := alike(tried, name, value):
            same += 1
            said = "no answer tells"
        else:
            why = unseen(tried, name, mmus)
            said = f"unnoticed ({turned_rule.evidence})"
        print(f"  {name}={_word(value)}: {said}{f': {why}' if why else ''}")
    of = len(turned) - lacked
    names, seen = {t.rule for t in turned if not unmet(tried, t.rule)}, {t.rule for t in noticed}
    print(
        f"{len(seen)} of {pluralize(len(names | seen), 'rule')} noticed by some value ({_percent(len(seen), len(names | seen))})"
    )
    print(f"{len(noticed)} of {of} values noticed ({_percent(len(noticed), of)})", end="")
    print(f"; of the {of - same} that an answer can tell {_percent(len(noticed), of - same)}" if same else "")


def _drawn(kept: Kept, before: str) -> str:
    """*before* and the seed, where there was one: not of what came from files."""
    return "" if kept.seed is None else f"{before} seed {kept.seed}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f} %"


def _mutants(kept: list[Path], count: int, seed: int, json: bool) -> None:
    """Score a sample of code mutants and print it."""
    from secondsight.lab.score_mutants import score_mutants

    score = score_mutants(kept, count, seed, say=say)
    if json:
        _json({"seed": seed, "pool": score.pool, "unrun": score.unrun, "scored": score.scored})
        return
    print(f"{len(score.scored)} of {score.pool} mutants in lines that the answers run, --seed {seed}")
    for each in score.scored:
        if each.noticed is None:
            print(
                f"  {f'equivalent ({each.mutant.equivalent})' if each.mutant.equivalent else 'unnoticed'}: {each.mutant}"
            )
    print(f"{score.noticed} of {len(score.scored) - score.equivalent} noticed, {score.equivalent} equivalent")
    for function, places in score.unrun.items():
        print(f"  no answer runs {pluralize(places, 'place')} of {function}")


def _campaign(kernel: str, mmu: str, modules: Path | None, random: int, seed: int) -> Kept:
    """The random scenarios of *seed* asked of *kernel*; those that it did not answer are left out."""
    from secondsight.lab import kernels
    from secondsight.lab.answers import ask

    return ask(_random(random, seed, mmu), kernels.resolve(kernel, modules=modules), mmu, seed=seed, say=say)
