"""``secondsight lab compare``: the same scenarios, asked of a booted kernel and of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from secondsight.cli.lab_options import KernelOption, MmuOption, ModulesOption, say
from secondsight.cli.options import rules_option
from secondsight.errors import SecondSightError, UsageError
from secondsight.plural import pluralize

if TYPE_CHECKING:
    from secondsight.lab.compare import Comparison
    from secondsight.mm.rules import Rules
    from secondsight.scenario.verbs import Scenario


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command("compare")(compare_command)


class _Drawing(NamedTuple):
    """The random scenarios that are asked for: *number* of *seed*, of *what* memory; *sizes*: hugepages-*kB drawn too (None: the
    kernel's own affair)."""

    number: int
    seed: int
    what: str
    sizes: bool | None

    @classmethod
    def of(
        cls,
        number: int,
        seed: int | None,
        sizes: bool | None,
        *,
        shared: bool,
        files: bool,
        nested: bool,
        numa: bool,
    ) -> _Drawing:
        """As the options say; a fresh seed if none is given.

        :raises UsageError: the options exclude each other.
        """
        import secrets

        asked = {"shared": shared, "files": files, "nested": nested, "numa": numa}
        kinds = [name for name in asked if asked[name]]
        if len(kinds) > 1:
            raise UsageError(
                f"--{kinds[0]} and --{kinds[1]} are scenarios of two kinds: ask for one, then for the other"
            )
        what = kinds[0] if kinds else "private"
        return cls(number, secrets.randbelow(1 << 31) if seed is None else seed, what, sizes)

    def scenarios(self, mmu: str, rules: Rules) -> tuple[list[Scenario], dict[str, int], int]:
        """Drawn for the machine *mmu* and a kernel of *rules*; the steps that were left out, by reason, and all steps."""
        from secondsight.lab.machines import machine
        from secondsight.scenario import random as chance
        from secondsight.scenario.random_files import file_scenarios
        from secondsight.scenario.random_shared import shared_scenarios

        where = machine(mmu).mmu
        if self.what == "nested" and where != "npt":
            raise UsageError(f"--nested: nested guests run on the machines with npt, not on {mmu}")
        if self.what == "numa" and not rules.has_numa_balancing:
            raise UsageError(f"--numa: NUMA balancing is modelled from 6.1 on, not under {rules.name}")
        if self.what == "files":
            drawn, generator = file_scenarios(self.number, self.seed, where)
        elif self.what == "shared":
            drawn, generator = shared_scenarios(self.number, self.seed, where, sizes=bool(self.sizes))
        else:
            drawn, generator = chance.scenarios(
                self.number, self.seed, where, sizes=rules.has_sizes if self.sizes is None else self.sizes,
                guards=rules.has_guard, parts=rules.mthp_collapse, droppables=rules.has_droppable,
                nested=self.what == "nested", numa=self.what == "numa", mlocks=rules.mlock_batched,
            )  # fmt: skip
        return drawn, dict(generator.excluded), generator.steps

    def options(self) -> str:
        """The command line that draws them again."""
        words = ["--random", str(self.number), "--seed", str(self.seed)]
        if self.what != "private":
            words.append(f"--{self.what}")
        if self.sizes is not None:
            words.append("--sizes" if self.sizes else "--no-sizes")
        return " ".join(words)


def compare_command(
    files: Annotated[
        list[str] | None, typer.Argument(help="Scenario files, or kept answers (*.zst): what was asked then.")
    ] = None,
    random: Annotated[int, typer.Option(min=0, help="How many random scenarios.")] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random ones (default: a fresh one, printed).")
    ] = None,
    kernel: KernelOption = "6.1",
    mmu: MmuOption = "npt",
    modules: ModulesOption = None,
    rules: Annotated[
        str | None,
        rules_option("Profile to compare with the kernel (default: its own)."),
    ] = None,
    states: Annotated[
        bool, typer.Option(help="Also compare every page's PTE, flags, mapcount and SPTEs around each pass.")
    ] = False,
    shrink: Annotated[int, typer.Option(help="Shrink at most this many differing scenarios.")] = 2,
    write: Annotated[
        Path | None, typer.Option(help="Folder for the shrunk scenarios, ready to be examples.")
    ] = None,
    allow: Annotated[
        int, typer.Option(min=0, help="Differing scenarios that are reported and shrunk, but are no failure.")
    ] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="Write questions and answers here, for `lab hold` (with --states).")
    ] = None,
    sizes: Annotated[
        bool | None,
        typer.Option(
            "--sizes/--no-sizes",
            help="Draw hugepages-*kB/enabled at random too (default: where the kernel has them); with --shared their shmem_enabled "
            "(default: no).",
        ),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="The random scenarios are of shared memory (memfd, MAP_SHARED).")
    ] = False,
    on_files: Annotated[
        bool, typer.Option("--files", help="The random scenarios are of regular files (7.2 on).")
    ] = False,
    nested: Annotated[
        bool, typer.Option("--nested", help="In the random scenarios VMs run guests of their own (npt).")
    ] = False,
    numa: Annotated[
        bool, typer.Option("--numa", help="In the random scenarios NUMA balancing comes by.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a booted kernel and the model the same scenarios; compare every field of every answer.

    Exit code 1 if they disagree anywhere (in more scenarios than --allow). Each difference is shrunk to the shortest scenario that
    still shows it.
    """
    import msgspec

    from secondsight import atomicfile
    from secondsight.lab import answers, kernels
    from secondsight.lab.compare import FIELDS, compare
    from secondsight.lab.compare import shrink as shortest
    from secondsight.mm.profiles import for_kernel, profile

    if not files and random < 1:
        raise UsageError("nothing to compare: name scenario files, or --random N")
    if keep and not states:
        raise UsageError("--keep keeps every page's state too: give --states")
    atomicfile.check_writable(keep)
    drawing = _Drawing.of(random, seed, sizes, shared=shared, files=on_files, nested=nested, numa=numa)
    given = profile(rules) if rules else None
    chosen = kernels.resolve(kernel, modules=modules)
    scenarios: list[Scenario] = []
    of_file: list[str] = []  # where each of them stands
    for path in files or []:
        inside = _asked_in(path)
        scenarios += inside
        of_file += [path] * len(inside)
    left_out: dict[str, int] = {}
    steps = 0
    if random:
        drawn, left_out, steps = drawing.scenarios(mmu, given or for_kernel(chosen.upstream))
        scenarios += drawn
        say(f"{pluralize(random, 'random scenario')} from --seed {drawing.seed}")
    report = compare(scenarios, chosen, mmu, rules=given, states=states, say=say)
    if json:
        document = {"seed": drawing.seed, "excluded": left_out, "fields": FIELDS, "report": report}
        print(msgspec.json.encode(document).decode())
    else:
        _print(report, drawing, left_out, steps)
    if keep:
        asked = answers.ask(
            scenarios, chosen, mmu, seed=drawing.seed if random else None, unsteady=report.unsteady, say=say
        )
        answers.write(keep, asked)
    differing = list(dict.fromkeys(d.scenario for d in report.differences))
    for number in differing[:shrink]:
        say(f"shrinking #{number}")
        short = shortest(scenarios[number], chosen, mmu, rules=given, states=states, say=say)
        _print_shortest(short, number, write and write / f"difference-{drawing.seed}-{number}.toml")
    if len(differing) > allow or report.failures:
        wrong = sorted({*differing, *(number for number, _ in report.failures)})
        again = [
            *dict.fromkeys(of_file[number] for number in wrong if number < len(of_file)),
            *([drawing.options()] if wrong[-1] >= len(of_file) else []),
            "--kernel",
            report.kernel,
            "--mmu",
            mmu,
        ]
        raise SecondSightError(
            f"{len(differing)} of {pluralize(report.scenarios, 'scenario')} differ, {len(report.failures)} got no answer; to ask again: "
            f"secondsight lab compare {' '.join(again)}{' --states' * states}"
        )


def _asked_in(path: str) -> Sequence[Scenario]:
    """The scenario in a file, or all that kept answers hold (``*.zst``): another kernel is asked what that one was."""
    from secondsight.lab import answers
    from secondsight.scenario.files import read

    return answers.read(Path(path)).scenarios if path.endswith(".zst") else [read(path)]


def _print(report: Comparison, drawing: _Drawing, left_out: Mapping[str, int], steps: int) -> None:
    print(
        f"kernel {report.kernel} on {report.mmu}, rules {report.rules}, seed {drawing.seed if drawing.number else '-'}"
    )
    print(
        f"{report.agreed} of {pluralize(report.scenarios, 'scenario')} agree: {pluralize(report.visits, 'visit')}, "
        f"{pluralize(report.states, 'state')} of spaces"
    )
    if drawing.number:
        excluded = sum(left_out.values())
        share = 100 * excluded / max(1, steps)
        print(f"left out by the generator: {excluded} steps ({share:.1f} %) {left_out or ''}".rstrip())
    if report.unsteady:
        print(
            f"unsteady: {len(report.unsteady)} of them agreed only when a second boot was asked: {report.unsteady}"
        )
    if drawing.number:
        from secondsight.cli.coverage import show

        show(report.covered, report.rare)
    for number, why in report.failures:
        print(f"#{number} no answer: {why}")
    for difference in report.differences:
        print(difference)


def _print_shortest(short: Scenario, number: int, to: Path | None) -> None:
    import msgspec

    from secondsight.scenario.files import write

    print(f"# the shortest scenario found for #{number}\n{msgspec.toml.encode(short).decode()}")
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        write(short, to)
