"""What can befall a block, as a report says it: the rule behind each answer of ``glossary.py``."""

from __future__ import annotations

from typing import Final

from secondsight.glossary import ISOLATE, SCAN, TERMS
from secondsight.report.schema import VerdictRule

VERDICTS: Final = {
    term.code: VerdictRule(term.code, term.meaning, term.cite, term.good)
    for term in TERMS.values()
    if term.meaning
}


def rule(code: str) -> VerdictRule:
    """The rule behind *code*; ``code@isolate`` falls back to ``code`` where the second look says nothing of its own."""
    found = VERDICTS.get(code) or VERDICTS.get(code.partition("@")[0])
    if found is None:
        return VerdictRule(code, "The kernel's answer, as its tracepoint prints it.", SCAN)
    if found.code == code:
        return found
    return VerdictRule(code, f"In the second look: {found.meaning}", ISOLATE, found.good)
