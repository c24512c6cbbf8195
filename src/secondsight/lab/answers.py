"""Kernels' answers as files: what was asked and what was answered, to hold the model against without a boot.

scenarios --kernel (lab.run)--> answers ── write ──▶ FILE.json.zst ── read ──▶ held ──▶ differences, under any rules
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard

from secondsight import atomicfile
from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.lab.compare import Difference, Say, by_batch
from secondsight.lab.kernels import Kernel, upstream
from secondsight.lab.machines import machine, on_machine
from secondsight.lab.run import Failure, blocks_of, run
from secondsight.mm.profiles import for_kernel
from secondsight.mm.rules import Rules
from secondsight.plural import pluralize
from secondsight.scenario import verbs
from secondsight.scenario.files import check
from secondsight.scenario.results import Run
from secondsight.wholefile import read_whole

__all__ = ["SCHEMA", "Held", "Kept", "ask", "held", "read", "write"]

SCHEMA = 1
_MOST_BLOCKS = 4096
_MOST_PACKED = 1 << 28
_MOST = 1 << 30  # bytes unpacked: far more than any campaign's, and less than harms


class Kept(msgspec.Struct, frozen=True):
    """A campaign: *scenarios* as they were asked of kernel *release* (Debian's *version*) on *mmu*, and its *answers*, one for each.

    *size*: the blocks that shared a pass, without which the scenarios cannot be merged alike again; *seed*: of the random ones, for
    the reader alone (the scenarios are here); *unsteady*: those in which chance had a hand (`lab compare`), which hold nothing.
    """

    release: str
    version: str
    mmu: str
    size: int
    seed: int | None
    scenarios: tuple[verbs.Scenario, ...]
    answers: tuple[Run, ...]
    unsteady: tuple[int, ...] = ()
    schema: int = SCHEMA

    @property
    def upstream(self) -> str:
        """:func:`secondsight.lab.kernels.upstream` of the kernel."""
        return upstream(self.release, self.version)


@dataclass(frozen=True)
class Held:
    """The model under *rules* against kept answers: *differences* in *scenarios* of them, *states*: of spaces that were compared."""

    rules: str
    scenarios: int
    states: int
    differences: list[Difference]

    @property
    def agreed(self) -> int:
        """Scenarios answered alike in every field."""
        return self.scenarios - len({d.scenario for d in self.differences})


def ask(
    scenarios: Sequence[verbs.Scenario], kernel: Kernel, mmu: str, *, seed: int | None = None, size: int | None = None,
    unsteady: Sequence[int] = (), say: Say = lambda text: None,
) -> Kept:  # fmt: skip
    """Ask *kernel* on *mmu*; what it has answered before is not asked again.

    :raises SecondSightError: a scenario got no answer: those merged with it cannot be told apart again.
    """
    size = size or blocks_of(mmu)
    scenarios = on_machine(scenarios, mmu)
    answers = run(scenarios, kernel, mmu, states=True, size=size, say=say)
    if lost := [i for i, answer in enumerate(answers) if isinstance(answer, Failure)]:
        raise SecondSightError(
            f"{len(lost)} of {pluralize(len(answers), 'scenario')} got no answer (the first: #{lost[0]}); leave them out, or ask "
            "another seed"
        )
    whole = tuple(answer for answer in answers if isinstance(answer, Run))
    return Kept(kernel.release, kernel.version, mmu, size, seed, tuple(scenarios), whole, tuple(unsteady))


def write(path: Path, kept: Kept) -> None:
    """Write *kept* to *path*, whole or not at all: JSON, compressed by zstd.

    :raises UsageError: *path* cannot be written.
    """
    packed = zstandard.ZstdCompressor(level=19).compress(msgspec.json.encode(kept))
    with atomicfile.open_atomic(path) as part:
        part.write_bytes(packed)


def read(path: Path) -> Kept:
    """The campaign kept in *path*.

    :raises InputError: it cannot be read, it is none, it is torn, or another version wrote it.
    """
    packed = read_whole(path, _MOST_PACKED, "what `lab compare --keep` wrote")
    try:
        text = zstandard.ZstdDecompressor().stream_reader(packed).read(_MOST)
        kept = msgspec.json.decode(text, type=Kept)
    except zstandard.ZstdError as error:
        raise InputError(str(path), "", f"no kept answers: {error}") from None
    except msgspec.DecodeError as error:
        raise InputError(str(path), "", f"no kept answers, or another version's: {error}") from None
    if kept.schema != SCHEMA:
        raise InputError(
            str(path), "", f"kept by another version (schema {kept.schema}, this one reads {SCHEMA})"
        )
    _check(kept, str(path))
    if len(kept.scenarios) != len(kept.answers):
        raise InputError(
            str(path), "", f"{len(kept.scenarios)} scenarios and {len(kept.answers)} answers do not fit"
        )
    return kept


def _check(kept: Kept, source: str) -> None:
    """Refuse what could not have been asked.

    :raises InputError: says what.
    """
    if not kept.scenarios:
        raise InputError(source, "", "holds no scenario: there is nothing to hold against it")
    if not 1 <= kept.size <= _MOST_BLOCKS:
        raise InputError(source, "size", f"{kept.size} blocks a pass: must be 1 to {_MOST_BLOCKS}")
    try:
        machine(kept.mmu)
    except UsageError as error:
        raise InputError(source, "mmu", str(error)) from None
    if wrong := [i for i in kept.unsteady if not 0 <= i < len(kept.scenarios)]:
        raise InputError(source, "unsteady", f"there is no scenario #{wrong[0]}")
    for i, scenario in enumerate(kept.scenarios):
        check(scenario, f"{source}: scenarios[{i}]")


def held(kept: Kept, rules: Rules | None = None, progress: Callable[[int, int], None] | None = None) -> Held:
    """Hold the model under *rules* (the kernel's own by default) against *kept*; *progress* hears of (scenarios done, all of them)."""
    rules = rules or for_kernel(kept.upstream)
    answers: list[Run | Failure] = list(kept.answers)
    steady = set(range(len(answers))) - set(kept.unsteady)
    differences: list[Difference] = []
    done = 0
    for members, of_batch in by_batch(kept.scenarios, answers, kept.mmu, rules, size=kept.size):
        differences += of_batch
        done += len(members)
        if progress is not None:
            progress(done, len(answers))
    states = sum(len(kept.answers[i].states) for i in steady)
    return Held(rules.name, len(steady), states, [d for d in differences if d.scenario in steady])
