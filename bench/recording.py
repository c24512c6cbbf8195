"""What `record run` costs real programs: CPU time of all it starts, over the program's own and over the bare emulator's.

    python bench/recording.py [--times 2]

Programs of about a second by themselves: CPython, sqlite, gcc, perl, sort with one thread and with two; and one `rep stosb` over 512 MB, by
wall time. Each is run by itself, by `qemu-x86_64` alone, and recorded, in turn. What is not installed is left out and said so.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import row, seconds, write

EMULATOR = "qemu-x86_64"
PYTHON = "d = {}\nfor i in range(12_000_000): d[i * 7919 % 1_000_003] = i"
PERL = 'my %h; for my $i (1..3000000) { $h{$i * 7919 % 1000003} .= "x" } my $n = 0; for (sort keys %h) { $n += length $h{$_} }'
SQL = """CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000000) INSERT INTO t SELECT x, hex(x * 7919 % 100003) FROM c;
CREATE INDEX i ON t(b); SELECT count(*), sum(length(b)) FROM t WHERE b > '3'; SELECT count(DISTINCT b) FROM t;"""
CASES = (
    "switch ((int)y % 7) { case 0: return y; case 1: return -y; case 2: return y * y; default: return y + "
)
FILL = """int main(void) {
    unsigned long n = 512ul << 20; char *at = __builtin_malloc(n);
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(7) : "memory");
    return 0; }"""


def programs(folder: Path) -> dict[str, list[str]]:
    """Command lines by name; their input is in *folder*."""
    numbers = random.Random(1)
    (folder / "lines").write_text("".join(f"{numbers.random()}\n" for _ in range(3_000_000)))
    (folder / "q.sql").write_text(SQL)
    functions = ["double f0(double x) { return x; }"] + [
        f"double f{i}(double x) {{ double y = x; for (int k = 0; k < {i}; k++) y = y * {i}.5 + k; {CASES}f{i - 1}(x - 1); }} }}"
        for i in range(1, 300)
    ]
    (folder / "a.c").write_text("\n".join(functions))
    lines = str(folder / "lines")
    return {
        "CPython, a dictionary": [os.path.realpath(sys.executable), "-c", PYTHON],
        "sqlite, 1 M rows and an index": ["sqlite3", ":memory:", f".read {folder}/q.sql"],
        "gcc -O2, 300 functions": ["gcc", "-O2", "-c", str(folder / "a.c"), "-o", str(folder / "a.o")],
        "perl, a hash": ["perl", "-e", PERL],
        "sort, one thread, 3 M lines": ["sort", "--parallel=1", lines, "-o", "/dev/null"],
        "sort, two threads": ["sort", "--parallel=2", lines, "-o", "/dev/null"],
    }


def cpu(command: list[str], times: int) -> float:
    """CPU seconds, user and system, of *command* and all that it starts; the cheapest of *times* runs."""
    best = float("inf")
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=2)
    given = parser.parse_args()
    if shutil.which(EMULATOR) is None:
        sys.exit(f"{EMULATOR} is not installed (Debian: qemu-user)")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = [sys.executable, "-m", "secondsight", "record", "run", "-o", str(folder / "t.parquet"), "--"]
        for title, command in programs(folder).items():
            program = shutil.which(command[0])
            if program is None:
                print(f"{command[0]} is not installed: {title} is left out")
                continue
            command = [program, *command[1:]]
            alone, emulated, recorded = float("inf"), float("inf"), float("inf")
            for _ in range(given.times):
                alone = min(alone, cpu(command, 1))
                # What gcc starts the emulator does not follow by itself.
                if "gcc" not in title:
                    emulated = min(emulated, cpu([EMULATOR, *command], 1))
                recorded = min(recorded, cpu([*record, *command], 1))
            results.append(
                row(
                    f"record run: {title}",
                    recorded,
                    "s CPU",
                    reference=alone,
                    against="the program",
                    bar=12,
                    better="lower",
                )
            )
            if emulated < float("inf"):
                results.append(
                    row(
                        f"record run: {title}",
                        recorded,
                        "s CPU",
                        reference=emulated,
                        against=f"{EMULATOR} alone",
                        better="lower",
                    )
                )
                results.append(
                    row(
                        f"{EMULATOR} alone: {title}",
                        emulated,
                        "s CPU",
                        reference=alone,
                        against="the program",
                        better="lower",
                    )
                )
        compiler = shutil.which("gcc")
        if compiler is not None:
            (folder / "fill.c").write_text(FILL)
            subprocess.run([compiler, "-O1", "-o", str(folder / "fill"), str(folder / "fill.c")], check=True)
            took = seconds(
                lambda: subprocess.run(
                    [*record, str(folder / "fill")],
                    check=True,
                    stderr=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            )
            results.append(
                row("record run: one rep stosb over 512 MB, wall time", took, "s", bar=30, better="lower")
            )
    write("recording", results)


if __name__ == "__main__":
    main()
