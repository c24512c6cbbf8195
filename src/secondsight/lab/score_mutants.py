"""Would a change in the code be noticed? A sample of mutants, each held against kernels' kept answers in a process apart.

The process answers mutant after mutant; one that dies over a mutant, or is silent for too long, has noticed it, and another goes on.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from secondsight.errors import SecondSightError
from secondsight.lab import mutants
from secondsight.lab.compare import Say
from secondsight.lab.mutants import Mutant

__all__ = ["ScoredMutant", "ScoredSample", "score_mutants"]

#: Seconds that a mutant may take beyond three times what the campaigns take without one.
_PATIENCE = 20.0


@dataclass(frozen=True)
class ScoredMutant:
    """A mutant, and what *noticed* it (None: nothing did)."""

    mutant: Mutant
    noticed: str | None


@dataclass
class ScoredSample:
    """A sample of *scored* mutants out of a *pool* of as many, in the lines that the answers run; *unrun*: in lines that they do not, by
    function."""

    pool: int
    scored: list[ScoredMutant]
    unrun: dict[str, int] = field(default_factory=dict)

    @property
    def noticed(self) -> int:
        """How many were."""
        return sum(each.noticed is not None for each in self.scored)

    @property
    def equivalent(self) -> int:
        """How many were not, and cannot be."""
        return sum(each.noticed is None and bool(each.mutant.equivalent) for each in self.scored)


class _MutantsProcess:
    """The process that holds mutants against *files*."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.took = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "secondsight.lab.mutated"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ},
        )  # fmt: skip
        answer = self.ask({"files": [str(each.absolute()) for each in files]}, None)
        if answer is None:
            raise SecondSightError("the process that holds mutants did not begin; what it said stands above")
        self.took = time.monotonic() - self.took

    def ask(self, request: object, patience: float | None) -> Any:
        """Its answer; None if it died or kept silent for *patience* seconds."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(msgspec.json.encode(request) + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return None
        ready, _, _ = select.select([stdout], [], [], patience)
        line = stdout.readline() if ready else b""
        return json.loads(line) if line else None

    def end(self) -> None:
        """It ends."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def score_mutants(
    files: Sequence[Path], count: int, seed: int, *, say: Say = lambda text: None
) -> ScoredSample:
    """A sample of *count* mutants of mm/khugepaged from *seed*, held against the kept answers *files*.

    Drawn from the lines that these answers run: what no scenario reaches is no scenario's to notice, and is counted apart.

    :raises InputError: a file is none, or is torn.
    """
    from secondsight.lab.answers import read

    for path in files:
        read(path)
    process = _MutantsProcess(files)
    try:
        answer = process.ask({"lines": True}, None)
        if answer is None:
            raise SecondSightError(
                "the process that holds mutants died before the first; what it said stands above"
            )
        run = {file: set(lines) for file, lines in answer["lines"].items()}
        every = [each for file in mutants.FILES for each in mutants.mutants(file)]
        pool = [each for each in every if each.line in run.get(each.file, set())]
        out = ScoredSample(len(pool), [])
        for each in every:
            if each.function and each.line not in run.get(each.file, set()):
                name = f"{each.file}.{each.function}"
                out.unrun[name] = out.unrun.get(name, 0) + 1
        for each in mutants.sample(count, seed, pool):
            answer = process.ask(each, _PATIENCE + 3 * process.took)
            if answer is None:
                process.end()
                process = _MutantsProcess(files)
            noticed = "it crashes, or never ends" if answer is None else answer["noticed"]
            out.scored.append(ScoredMutant(each, noticed))
            say(f"{each}: {'unnoticed' if noticed is None else noticed}")
    finally:
        process.end()
    return out
