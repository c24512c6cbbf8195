"""Run scenarios in a booted kernel: plan batches, boot, hand them to the agent, keep what it answers.

    scenarios ─ plan ─▶ batches ─ merge ─▶ agent (one boot, many batches) ─▶ answers ─ split ─▶ a Run for each scenario
                                             │
                                             └─ a guest that dies: the batch is cut at the scenario at fault and
                                                the rest goes on in a fresh guest

Every batch's answer is a file in the run's folder as soon as it is there, so a run that is interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from secondsight import atomicfile
from secondsight.errors import SecondSightError
from secondsight.lab import initramfs, kernels
from secondsight.lab.guest import Guest, GuestDied
from secondsight.lab.machine import Machine
from secondsight.lab.machines import machine, on_machine
from secondsight.plural import pluralize
from secondsight.scenario import batch, results, verbs

__all__ = ["Failure", "agent_files", "blocks_of", "run"]

Say = Callable[[str], None]

_AGENT = (
    "secondsight.errors",
    "secondsight.geometry",
    "secondsight.bufferpool",
    "secondsight.wholefile",
    "secondsight.bits.*",
    "secondsight.mm.config",
    "secondsight.scenario.pages",
    "secondsight.scenario.results",
    "secondsight.scenario.states",
    "secondsight.scenario.verbs",
    "secondsight.live.*",
    "secondsight.lab.wire",
    "secondsight.lab.agent.*",
    "secondsight.lab.agent.__main__",
)
_BLOCKS = 128  # in one batch: 128 processes of about 12 MiB with their area and VM
_MEMORY_MIB = 3072  # where the machine can have as much; else the batches are smaller
_SILENCE = 180.0


class Failure(msgspec.Struct, frozen=True):
    """A scenario that no answer was got for: *why*, and the end of the guest's console if the guest died over it."""

    source: str
    why: str
    console: str = ""


class _ScenarioBatch:
    """The scenarios *members* (indices), to be run together."""

    def __init__(self, members: list[int], scenarios: Sequence[verbs.Scenario], states: bool) -> None:
        self.members = members
        self.merged = batch.merge([scenarios[i] for i in members])
        self.request = {
            "scenario": msgspec.to_builtins(self.merged.scenario),
            "observe": {str(k): list(v) for k, v in self.merged.observe.items()},
            "states": states,
        }
        self.key = hashlib.sha256(msgspec.json.encode(self.request)).hexdigest()[:20]
        self.step = -1

    def at_fault(self) -> list[int]:
        """The members whose step was the last to begin; all of them in a pass."""
        if not self.merged.origin:
            return self.members
        return [self.members[k] for k, _ in self.merged.origin[self.step]] or self.members


def blocks_of(mmu: str) -> int:
    """How many blocks share a pass on the machine *mmu*."""
    return _BLOCKS * min(machine(mmu).most_mib, _MEMORY_MIB) // _MEMORY_MIB


def agent_files() -> dict[str, bytes | Path]:
    """What the guest needs of ours, to lay over its root."""
    return initramfs.package_sources(_AGENT)


def run(
    scenarios: Sequence[verbs.Scenario],
    kernel: str | kernels.Kernel,
    mmu: str,
    *,
    states: bool = False,
    size: int | None = None,
    folder: Path | None = None,
    cache: Path | None = None,
    say: Say = lambda text: None,
) -> list[results.Run | Failure]:
    """Answer *scenarios* with *kernel* on the machine *mmu*, in their order.

    *states*: record every space's pages around each pass, and each block's young pages by channel (slower); *size*: blocks
    in one pass (default: what the machine has memory for);
    *folder*: where the batches' answers are kept (default: in the cache, named after what was asked); *say* hears of progress.
    A scenario that kills the guest, or that the agent cannot carry out, answers a ``Failure``; the others are answered all the same.

    :raises MissingDependency: the kernel or the emulator is not here.
    """
    where = machine(mmu)
    booted = kernels.resolve(kernel, cache=cache) if isinstance(kernel, str) else kernel
    scenarios = on_machine(scenarios, mmu)
    kept = folder or _folder(cache or kernels.cache_dir(), booted, mmu)
    kept.mkdir(parents=True, exist_ok=True)
    out: dict[int, results.Run | Failure] = {}
    todo = [
        _ScenarioBatch(members, scenarios, states)
        for members in batch.plan(scenarios, size or blocks_of(mmu))
    ]
    before, stuck = -1, 0
    while todo:
        # Cutting a batch down to the one scenario at fault takes at most log2(size) guests; more mean that it is not a scenario.
        stuck = stuck + 1 if len(out) == before else 0
        before = len(out)
        if stuck > 10:
            raise SecondSightError(f"no batch of the last {stuck} guests on {mmu} was answered; {_last(out)}")
        waiting = []
        for one in todo:
            answer = _load(kept / f"{one.key}.json")
            if answer is None:
                waiting.append(one)
            else:
                _take(one, answer, scenarios, out)
        if waiting:
            where.ready()
        say(f"{len(out)} of {pluralize(len(scenarios), 'scenario')} answered")
        todo = _boot(waiting, where, booted, scenarios, out, kept, cache, say) if waiting else []
    return [out[i] for i in range(len(scenarios))]


def _folder(cache: Path, kernel: kernels.Kernel, mmu: str) -> Path:
    code = hashlib.sha256()
    for inside, content in sorted(agent_files().items()):
        code.update(inside.encode() + (content if isinstance(content, bytes) else content.read_bytes()))
    return cache / "runs" / f"{kernel.release}-{mmu}-{code.hexdigest()[:12]}"


def _last(out: dict[int, results.Run | Failure]) -> str:
    whys = [o.why for o in out.values() if isinstance(o, Failure)]
    return f"the last that failed said: {whys[-1]}" if whys else "try a smaller batch"


def _load(path: Path) -> results.Run | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=results.Run)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _store(path: Path, answer: results.Run) -> None:
    with atomicfile.open_atomic(path) as part:
        part.write_bytes(msgspec.json.encode(answer))


def _take(
    one: _ScenarioBatch,
    answer: results.Run,
    scenarios: Sequence[verbs.Scenario],
    out: dict[int, results.Run | Failure],
) -> None:
    for i, each in zip(one.members, batch.split(one.merged, answer), strict=True):
        provenance = {**each.provenance, "scenario": scenarios[i].title}
        out[i] = msgspec.structs.replace(each, provenance=provenance)


def _boot(
    todo: list[_ScenarioBatch], where: Machine, kernel: kernels.Kernel, scenarios: Sequence[verbs.Scenario],
    out: dict[int, results.Run | Failure], kept: Path, cache: Path | None, say: Say,
) -> list[_ScenarioBatch]:  # fmt: skip
    """One guest, for as many batches as it lives through; the batches that are left to do."""
    say(f"booting {kernel.release} on {where.name}")
    left = list(todo)
    states = bool(todo[0].request["states"])
    try:
        main = ["-m", "secondsight.lab.agent", *(["--states"] if states else [])]
        with where.boot(
            kernel, agent_files(), main=main, memory_mib=_MEMORY_MIB, cache=cache, say=say
        ) as guest:
            hello = guest.receive(_SILENCE * where.slow)
            if isinstance(hello, dict) and "lacks" in hello:
                raise SecondSightError(
                    f"{kernel.release} lacks {', and '.join(hello['lacks'])}; the lab cannot ask it"
                )
            if not isinstance(hello, dict) or "hello" not in hello:
                raise GuestDied("its agent did not greet", guest.console)
            provenance = {**hello["hello"], "mmu": where.name, "package": kernel.version}
            while left:
                one = left[0]
                reply = _ask(guest, one, _SILENCE * where.slow)
                if "failed" in reply:
                    say(f"failed at step {reply['step']}: {reply['why']}")
                    failure = Failure("kernel", reply["why"], guest.console[-4000:])
                    left = _cut(left, failure, scenarios, states, out)
                    if reply["lost"]:
                        return left
                    continue
                answer = results.Run(
                    source="kernel",
                    blocks=msgspec.convert(reply["blocks"], list[results.BlockPass]),
                    files=msgspec.convert(reply.get("files", []), list[results.FilePass]),
                    answers=msgspec.convert(reply["answers"], list[results.StepAnswer]),
                    states=msgspec.convert(reply["states"], list[results.PageState], strict=False),
                    provenance=provenance,
                )
                _store(kept / f"{one.key}.json", answer)
                _take(one, answer, scenarios, out)
                left.pop(0)
                say(f"{len(out)} of {pluralize(len(scenarios), 'scenario')} answered")
            guest.send({"quit": True})
            while guest.receive(_SILENCE) is not None:
                pass
    except GuestDied as death:
        if not left:
            return []
        if left[0].step < 0:
            raise
        say(f"the guest died at step {left[0].step}: {death.why}")
        return _cut(left, Failure("kernel", death.why, death.console[-4000:]), scenarios, states, out)
    return left


def _ask(guest: Guest, one: _ScenarioBatch, patience: float) -> dict[str, Any]:
    one.step = -1
    guest.send({"batch": one.key, **one.request})
    while True:
        reply = guest.receive(patience)
        if reply is None:
            raise GuestDied("its agent left in the middle of a batch", guest.console)
        if "at" in reply:
            one.step = reply["at"][1]
        elif reply.get("done") == one.key or reply.get("failed") == one.key:
            return dict(reply)
        else:
            raise SecondSightError(f"the agent answered {str(reply)[:80]!r} to batch {one.key}")


def _cut(
    left: list[_ScenarioBatch], failure: Failure, scenarios: Sequence[verbs.Scenario], states: bool,
    out: dict[int, results.Run | Failure],
) -> list[_ScenarioBatch]:  # fmt: skip
    """Take the scenario at fault out of the first batch of *left*; where it cannot be told, cut the batch in two."""
    one, rest = left[0], left[1:]
    fault = one.at_fault()
    if len(fault) == 1:
        out[fault[0]] = failure
        members = [[m for m in one.members if m != fault[0]]]
    else:
        half = len(one.members) // 2
        members = [one.members[:half], one.members[half:]]
    return [_ScenarioBatch(m, scenarios, states) for m in members if m] + rest
