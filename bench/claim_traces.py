"""The claim over all shipped traces: ``python bench/claim_traces.py [TRACE…]`` prints docs/claim.md's table of them.

Each trace is replayed under khugepaged of 6.1, 6.12, 7.2 and 7.3, sizes below 2 MiB off; of the kernels that have them, also with every
size ``always``. The VMs recorded by the wall clock are replayed unscaled, the others, seconds long, at 1000 ns for each of theirs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import msgspec

from secondsight.mm.config import HostConfig, Sizes
from secondsight.replay import HOST
from secondsight.report.metrics import METRICS, text
from secondsight.trace import Trace
from secondsight.whatif import compare

TRACES = Path(__file__).resolve().parents[1] / "examples" / "traces"
OFF, ON = ("6.1", "6.12", "7.2", "7.3"), ("6.12", "7.2", "7.3")
FIGURES = ("coverage", "bloat", "wasted_passes", "refused_collapses")


class Row(NamedTuple):
    """One trace under one profile: its figures as the table shows them."""

    trace: str
    rules: str
    figures: tuple[str, ...]


def time_scale(path: Path) -> float:
    """1 for what was recorded by the wall clock, else 1000."""
    return 1.0 if "halted time passes" in Trace.open(path).provenance.clock.meaning else 1000.0


def rows(path: Path) -> list[Row]:
    """The trace *path* under every profile, sizes off and on."""
    every = Sizes(**dict.fromkeys(Sizes.__struct_fields__, "always"))
    table_rows = []
    for rules, config in ((OFF, HOST), (ON, msgspec.structs.replace(HOST, sizes=every))):
        assert isinstance(config, HostConfig)
        results = compare(
            path, ["khugepaged"], rules, time_scale=time_scale(path), channels=False, config=config
        )
        for row in results.rows:
            figures = tuple(text(row.metrics[key], METRICS[key].form) for key in FIGURES)
            table_rows.append(
                Row(path.stem, f"{row.rules}{'' if config is HOST else ', all sizes'}", figures)
            )
    return table_rows


def table(paths: list[Path]) -> str:
    """A Markdown table: a row for each trace and profile."""
    lines = [
        "| trace | profile | coverage | bloat | wasted passes | refused collapses |",
        "|---|---|---|---|---|---|",
    ]
    for path in paths:
        lines += [f"| `{row.trace}` | {row.rules} | {' | '.join(row.figures)} |" for row in rows(path)]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path, default=sorted(TRACES.glob("*.parquet")))
    print(table(parser.parse_args().traces))
