"""Every benchmark, one after another: ``make bench``. Prints a table and writes bench/out/results.json.

Each benchmark is a program of its own that leaves its rows in bench/out/NAME.json: name, value, unit, reference (the same figure of
what it is compared with, measured in the same run), ratio, bar, met. One that cannot run here (no right, no peer) says so and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE / "out"
ALL = (
    "replaying",
    "compare_policies",
    "sweep",
    "judging",
    "memory",
    "starting",
    "trace_reading",
    "recording",
    "live_procfs",
    "sampling",
    "host_top",
)


def completed(row: dict[str, Any]) -> dict[str, Any]:
    """A row with every field of the results; a benchmark that gives a ratio as its value has the unit "x"."""
    whole: dict[str, Any] = {
        "name": "", "value": None, "unit": "", "reference": None, "against": "", "ratio": None, "bar": None,
        "better": "higher", "met": None, "note": "",
    } | row  # fmt: skip
    if whole["met"] is None and whole["bar"] is not None:
        judged = whole["value"] if whole["ratio"] is None else whole["ratio"]
        whole["met"] = judged >= whole["bar"] if whole["better"] == "higher" else judged <= whole["bar"]
    return whole


def show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("benchmark")
    for name in ("value", "unit", "ratio", "against", "bar", "met"):
        table.add_column(name, justify="right" if name in ("value", "ratio", "bar") else "left", no_wrap=True)
    for each in rows:
        bar = "" if each["bar"] is None else f"{'≥' if each['better'] == 'higher' else '≤'} {each['bar']:g}"
        met = {True: "yes", False: "no", None: ""}[each["met"]]
        ratio = "" if each["ratio"] is None else f"{each['ratio']:.3g} x"
        table.add_row(
            each["name"],
            f"{each['value']:,.4g}",
            each["unit"],
            ratio,
            each["against"],
            bar,
            met,
            style="red" if met == "no" else None,
        )
    console = Console()
    (console if console.is_terminal else Console(width=170)).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(ALL)}; all unless said")
    names = parser.parse_args().names or ALL
    OUT.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results_file = OUT / f"{name}.json"
        results_file.unlink(missing_ok=True)
        done = subprocess.run([sys.executable, HERE / f"{name}.py"], capture_output=True, text=True)
        if done.returncode or not results_file.exists():
            left_out[name] = (done.stderr.strip().splitlines() or ["it left no results"])[-1]
            continue
        rows += [{"benchmark": name} | completed(row) for row in json.loads(results_file.read_text())]
    show(rows)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    results = {
        "schema": 1,
        "time": int(time.time()),
        "machine": machine,
        "results": rows,
        "left_out": left_out,
    }
    temporary = OUT / ".results.json"
    temporary.write_text(json.dumps(results, indent=1))
    temporary.replace(OUT / "results.json")
    missed = [row["name"] for row in rows if row["met"] is False]
    print(
        f"{sum(row['met'] is True for row in rows)} bars met, {len(missed)} missed"
        + "".join(f"\n  {name}" for name in missed)
    )


if __name__ == "__main__":
    main()
