"""The answers a scenario file states: ``[expect]``, by kernel profile, or by kernel and machine (``6.1.0-56-amd64/npt``).

A profile's answer is what the model gives; a kernel's is what a booted one gave (``secondsight lab run --record``), and the model under
that kernel's rules must give the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from secondsight import atomicfile
from secondsight.mm.profiles import PROFILES, for_kernel, profile
from secondsight.scenario import verbs
from secondsight.scenario.run import run
from secondsight.scenario.text import lines

__all__ = ["answers", "differences", "write"]

_HEAD = "\n[expect]\n"


def answers(scenario: verbs.Scenario) -> dict[str, list[str]]:
    """The model's answer under each profile that the scenario names (all, where it names none)."""
    return {name: lines(run(scenario, profile(name))) for name in scenario.rules or PROFILES}


def differences(scenario: verbs.Scenario) -> list[str]:
    """A line for each stated answer that the model does not give (empty: all as stated)."""
    out = []
    for name, expected in scenario.expect.items():
        kernel, _, mmu = name.partition("/")
        host = msgspec.structs.replace(scenario.host, mmu=mmu) if mmu else scenario.host
        rules = for_kernel(kernel) if mmu else profile(name)
        got = lines(run(msgspec.structs.replace(scenario, host=host), rules))
        if got != expected:
            out.append(f"{name}: expected {expected}, got {got}")
    return out


def write(path: str | Path, expect: dict[str, list[str]]) -> None:
    """Put *expect* at the end of the TOML file *path*, in place of what stood there; the rest stays as it was written."""
    path = Path(path)
    text = path.read_text(encoding="utf-8").split(_HEAD)[0].rstrip("\n")
    body = "\n".join(
        f"{_quoted(name)} = [\n{''.join(f'  {_quoted(x)},' + chr(10) for x in rows)}]"
        for name, rows in expect.items()
    )
    with atomicfile.open_atomic(path) as part:
        part.write_text(f"{text}\n{_HEAD}{body}\n", encoding="utf-8")


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
