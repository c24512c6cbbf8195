"""``secondsight doctor``: what can be seen and done here."""

from __future__ import annotations

from typing import Annotated

import typer

from secondsight.terminal import printable, say

app = typer.Typer()

_MARK = {"yes": "+", "partly": "~", "no": "-"}
_TITLES = {
    "kernel": "what the kernel offers",
    "switch": "switches and limits",
    "channel": 'channels of "is it used"',
    "verb": "verbs",
}


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False) -> None:
    """Channel by channel and verb by verb: whether it works here, and how to get it if not. Changes nothing."""
    from secondsight.live.doctor import examine

    report = examine()
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
        return
    held = ", ".join(report.capabilities)
    whole = len(report.capabilities) == len(report.wanted)
    rights = (
        "root" if report.root and whole else held or "none of the capabilities " + ", ".join(report.wanted)
    )
    say(f"kernel {printable(report.kernel)}, {rights}")
    for group, title in _TITLES.items():
        say(f"\n{title}")
        for check in report.checks:
            if check.group != group:
                continue
            say(f"  {_MARK[check.state]} {check.name:<24} {printable(check.found)}")
            if check.state != "yes" and check.mend:
                say(f"    {'':<24} mend: {printable(check.mend)}")
    say("\nrules chosen by what the kernel has:")
    facts = report.facts
    say(
        f"  {printable(report.rules[0])}: lru_batch {facts.lru_batch}, "
        f"zap carries accessed bits: {_known(facts.zap_transfers)}, MGLRU {_known(facts.mglru)}"
    )
    if report.evidence:
        say(f"  {printable(report.evidence)}")
    for point in report.open_points:
        say(f"  open, judged both ways: {point}")


def _known(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"
