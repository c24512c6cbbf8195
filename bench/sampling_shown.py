"""Samples beside full traces: seven patterns of use recorded in the lab's guest, hot blocks and decisions of both; a table and a picture.

    python bench/sampling_shown.py [--kernel 6.12] [--keep ANSWER.json] [--answer ANSWER.json] [--svg docs/img/samples.svg]

*--keep* keeps what the guest answered, *--answer* draws that again without a boot. The patterns are those of tests/support/patterns.py,
the comparison that of tests/live/test_kernel_sampling.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.live_guest import answered
from support.patterns import BLOCKS, INTERVALS
from support.sampled_truth import beside

POLICIES = ("khugepaged", "ingens", "hawkeye", "damon_ethp")
RULES, SCALE = "6.12", 40
WIDE, HIGH, EDGE, COLUMNS = 300.0, 110.0, 46.0, 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--answer", type=Path)
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    if given.answer is not None:
        recorded = json.loads(given.answer.read_text())
    else:
        with answered("sampling.py", given.kernel, 1500, 2560) as answer:
            recorded = answer
    if given.keep is not None:
        given.keep.write_text(json.dumps(recorded))
    compared = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, each in recorded["patterns"].items():
            both = compared[name] = beside(
                name, each, Path(folder) / f"{name}.parquet", POLICIES, RULES, SCALE
            )
            equal = ", ".join(f"{policy} {both.equal(policy):.0%}" for policy in POLICIES)
            off = abs(both.uses[1] - both.uses[0]).sum() / both.uses[0].sum()
            print(
                f"{name:8} hot blocks: precision {both.precision:.2f}, recall {both.recall:.2f}; pages used: "
                f"{off:.2%} off; decisions equal: {equal}"
            )
    if given.svg is not None:
        given.svg.write_text(plot(compared))


def plot(compared: dict[str, Any]) -> str:
    """A panel a pattern: pages used an interval, block by block, in full (bars) and in samples (dots); below, who became huge in both."""
    rows = -(-len(compared) // COLUMNS)
    step_x, step_y = WIDE + 2 * EDGE, HIGH + 64 + 11 * len(POLICIES)
    wide, high = COLUMNS * step_x + 70, rows * step_y + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" font-family="sans-serif" font-size="11">',
        f'<rect width="{wide:.0f}" height="{high:.0f}" fill="#fff"/>',
    ]
    for number, (name, both) in enumerate(compared.items()):
        left, top = EDGE + 60 + number % COLUMNS * step_x, 36 + number // COLUMNS * step_y
        out += _panel(name, both, left, top)
    left, top = EDGE + 60 + len(compared) % COLUMNS * step_x, 36 + (rows - 1) * step_y
    if len(compared) % COLUMNS:
        for line, (mark, text) in enumerate((
            ('<rect x="0" y="-9" width="9" height="9" fill="#c9d3dd"/>', "pages used an interval, every access known"),
            ('<circle cx="4.5" cy="-4.5" r="3" fill="#c8553d"/>', "the same from samples"),
            ('<rect x="0" y="-9" width="9" height="9" fill="#1b6ca8"/>', "the policy makes the block huge, in both"),
            ('<rect x="0" y="-9" width="9" height="9" fill="#f0f0f0"/>', "in neither"),
            ('<rect x="0" y="-9" width="9" height="9" fill="#d1495b"/>', "in one of them, or open"),
        )):  # fmt: skip
            out.append(
                f'<g transform="translate({left:.0f} {top + 20 + 18 * line:.0f})">{mark}<text x="16">{text}</text></g>'
            )
    return "\n".join([*out, "</svg>", ""])


def _panel(name: str, both: Any, left: float, top: float) -> list[str]:
    most = max(1.0, both.uses.max() / INTERVALS)
    step = WIDE / BLOCKS
    out = [
        f'<text x="{left:.0f}" y="{top - 8:.0f}" font-weight="bold">{name}</text>',
        f'<text x="{left + WIDE:.0f}" y="{top - 8:.0f}" text-anchor="end">precision {both.precision:.2f}, recall {both.recall:.2f}</text>',
        f'<text x="{left - 6:.0f}" y="{top + 8:.0f}" text-anchor="end">{most:.0f}</text>',
        f'<text x="{left - 6:.0f}" y="{top + HIGH:.0f}" text-anchor="end">0</text>',
        f'<line x1="{left:.0f}" y1="{top + HIGH:.0f}" x2="{left + WIDE:.0f}" y2="{top + HIGH:.0f}" stroke="#999"/>',
    ]
    for block in range(BLOCKS):
        full, sampled = both.uses[:, block] / INTERVALS / most * HIGH
        x = left + block * step
        out.append(
            f'<rect x="{x + 1:.1f}" y="{top + HIGH - full:.1f}" width="{step - 2:.1f}" height="{full:.1f}" fill="#c9d3dd"/>'
        )
        out.append(
            f'<circle cx="{x + step / 2:.1f}" cy="{top + HIGH - sampled:.1f}" r="2.5" fill="#c8553d"/>'
        )
        for line, (one, other) in enumerate((a[block], b[block]) for a, b in both.decisions.values()):
            colour = "#d1495b" if one != other else "#1b6ca8" if one == "huge" else "#f0f0f0"
            out.append(
                f'<rect x="{x + 1:.1f}" y="{top + HIGH + 6 + 11 * line:.1f}" width="{step - 2:.1f}" height="9" fill="{colour}"/>'
            )
    for line, policy in enumerate(both.decisions):
        out.append(
            f'<text x="{left - 6:.0f}" y="{top + HIGH + 14 + 11 * line:.0f}" text-anchor="end" font-size="9">{policy}</text>'
        )
    return out


if __name__ == "__main__":
    main()
