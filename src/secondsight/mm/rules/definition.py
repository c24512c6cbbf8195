"""What a rule is: a field with its meaning, the kernel text that states it, and the evidence it rests on.

booted     a lab scenario asked a booted kernel and it agreed (docs/fidelity.md)
source     read in the kernel's text; no kernel here can show it
deduced    concluded from the text, not confirmed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Evidence = Literal["booted", "source", "deduced"]


def rule(default: Any, doc: str, cite: str, evidence: Evidence = "source", *, compiled: bool = False) -> Any:
    """A field of ``Rules``.

    *default*: what the oldest kernel (2.6.38) does; *doc*: what the rule means; *cite*: the kernel's text, or the commit; *compiled*:
    compiled code asks it, so that ``compiled.R`` carries it (a flag or a number, no word).
    """
    return field(
        default=default, metadata={"doc": doc, "cite": cite, "evidence": evidence, "compiled": compiled}
    )


@dataclass(frozen=True)
class Asked:
    """A booted kernel held against a profile: its exact *version*, the *mmu*, how many random *scenarios* agreed (all), their *seed*."""

    version: str
    mmu: str
    scenarios: int
    seed: int
