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
    """The rule behind *code*; ``code@isolate`` falls back to ``code`` where isolate has no meaning of its own."""
    verdict = VERDICTS.get(code) or VERDICTS.get(code.partition("@")[0])
    if verdict is None:
        return VerdictRule(code, "The kernel's answer, as its tracepoint prints it.", SCAN)
    if verdict.code == code:
        return verdict
    return VerdictRule(code, f"In isolate: {verdict.meaning}", ISOLATE, verdict.good)
