"""How long one waits for the command line: ``python bench/starting.py``. And for the replay of a recorded VM, file to table.

The accesses of the recorded VM as lackey text would be lines of 16 bytes; ``wc -l`` counts 10 M such lines from the page cache, and its
time is taken times the accesses.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import row, seconds, write

from secondsight.replay import Configuration, replay
from secondsight.trace import Trace
from secondsight.trace.cut import cut

TRACE = Path(__file__).parent.parent / "examples" / "traces" / "redis-vm.parquet"
LINES = 10_000_000
WANTED = 100_000_000
ALL = 10_147_263_542


def cpu_of(argv: list[str]) -> float:
    """User and system CPU seconds of the program *argv*."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    command = [sys.executable, "-m", "secondsight", "--help"]

    def call(argv: list[str]) -> float:
        return seconds(lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL), 5)

    out = [
        row(
            "secondsight --help, user and system CPU",
            min(cpu_of(command) for _ in range(5)),
            "s",
            bar=0.1,
            better="lower",
        ),
        row("the same, wall time on a quiet machine", call(command), "s", bar=0.1, better="lower"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "lackey.txt"
        text.write_bytes(b" L 1ffefffe80,8\n" * LINES)
        each = call(["wc", "-l", str(text)]) / LINES
        part = Path(folder) / "part.parquet"
        # A piece of the recording with about WANTED accesses.
        first, last = Trace.open(TRACE).span
        share = WANTED / ALL
        start = first + (last - first) // 2
        cut(Trace.open(TRACE), part, time=(start, start + int((last - first) * share)))
        configurations = [Configuration.of("6.1")]
        results = replay(part, configurations, time_scale=100)
        accesses = results["6.1"].total.accesses
        taken = seconds(lambda: replay(part, configurations, time_scale=100), 5)
    whole = call(
        [sys.executable, "-m", "secondsight", "replay", str(TRACE), "--time-scale", "100", "--map", "none"]
    )
    out.append(
        row("secondsight replay of the recorded VM (10,147 M accesses), five rules, the whole command", whole, "s",
            reference=each * ALL, against="wc -l of lackey text", bar=1.0, better="lower")
    )  # fmt: skip
    out.append(
        row(f"replay of {accesses / 1e6:.0f} M accesses of a VM, aggregated, file to result", taken, "s",
            reference=each * accesses, against="wc -l of lackey text", bar=1.0, better="lower")
    )  # fmt: skip
    write("starting", out)


if __name__ == "__main__":
    main()
