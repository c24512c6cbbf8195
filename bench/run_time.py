"""Predicted run times beside measured ones: ``python bench/run_time.py --work DIR [record] [measure] [tell]``.

Real programs, each under six layouts of 4 KiB and 2 MiB pages (0 to 100 % of the blocks huge, drawn at random, from the first touch on:
layouts.c).

    record   each program once under `record run`: its walks, from what no layout had a part in
    measure  each program under each layout, in rounds, the layouts of a round in random order; CPU time of the process, user and system
    tell     errors of the prediction, of "no change", rank correlation; the plot, as SVG

The price of a walk is the suite's (`secondsight calibrate`); no program has a part in it. What is given of each: its CPU time and its
faults with
every page small, the median of the rounds; and the share of its anonymous memory that the layout really made huge, read while it ran.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
#: Allocators that ask for huge pages by themselves, or map memory in pieces below 2 MiB, leave no layout to choose.
SETTINGS = {"PYTHONMALLOC": "malloc", "NUMPY_MADVISE_HUGEPAGE": "0"}

GRAPH = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
static uint64_t s = 88172645463325252ull;
static uint64_t r(void) { s ^= s << 13; s ^= s >> 7; return s ^= s << 17; }
int main(void) {
    uint32_t n = 1u << 21, d = 8, *e = malloc(4ul * n * d), *q = malloc(4ul * n), *dist = malloc(4ul * n);
    for (size_t i = 0; i < (size_t)n * d; i++) e[i] = r() & (n - 1);
    for (int k = 0; k < 2; k++) {
        for (uint32_t i = 0; i < n; i++) dist[i] = ~0u;
        uint32_t h = 0, t = 0, first = r() & (n - 1);
        dist[first] = 0; q[t++] = first;
        while (h < t) {
            uint32_t x = q[h++];
            for (uint32_t j = 0; j < d; j++) { uint32_t y = e[(size_t)x * d + j]; if (dist[y] == ~0u) { dist[y] = dist[x] + 1; q[t++] =
            y; } }
        }
        printf("%u\n", dist[q[t - 1]]);
    }
}
"""
PYTHON = """
import random
random.seed(1)
table = {i * 2654435761 % (1 << 32): [i, str(i)] for i in range(250_000)}
keys = list(table)
random.shuffle(keys)
print(sum(table[k][0] for k in keys))
"""
NUMPY = """
import numpy as np
rng = np.random.default_rng(1)
table = rng.random(1 << 24)
print(sum(table[rng.integers(0, 1 << 24, 1 << 21)].sum() for _ in range(8)))
"""
SQL = """
create table t(k integer primary key, v text);
with recursive c(i) as (select 1 union all select i+1 from c where i<200000)
insert into t select i*7919 % 1000003, 'value ' || i || ' of some length to fill the pages of the tree' from c;
create index v on t(v);
with recursive c(i) as (select 1 union all select i+1 from c where i<200000) select sum(length(v)) from c join t on t.k = (i*104729) %
1000003;
"""
PERL = r'my %h; while(<STDIN>){ for my $w (split){ $h{$w}++ } } my $s=0; for my $k (keys %h){ $s+=$h{$k}*length $k } print "$s\n";'
JAVA = """
import java.util.*;
public class Maps {
    public static void main(String[] a) {
        HashMap<Integer, int[]> m = new HashMap<>();
        Random r = new Random(1);
        for (int i = 0; i < 300000; i++) m.put(r.nextInt(), new int[] {i, i + 1});
        long s = 0;
        for (int k = 0; k < 5; k++) for (int[] v : m.values()) s += v[0];
        System.out.println(s);
    }
}
"""
REDIS_FILL = "for i=0,199999 do redis.call('set', 'key:'..i, string.rep('x', 100)) end return 1"
REDIS = "for i=1,300000 do redis.call('get', 'key:'..((i*7919)%200000)) end return 1"


def prepare(work: Path) -> dict[str, list[str]]:
    """The inputs; each program's command."""
    work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    texts = {
        "graph.c": GRAPH,
        "maps.py": PYTHON,
        "gather.py": NUMPY,
        "rows.sql": SQL,
        "count.pl": PERL,
        "Maps.java": JAVA,
    }
    if not (work / "lines.txt").exists():
        texts["lines.txt"] = "".join(
            f"{a:016x} {b}\n" for a, b in rng.integers(0, 1 << 60, (500_000, 2)).tolist()
        )
        texts["words.txt"] = "".join(
            f"w{a} k{b}\n" for a, b in rng.integers(0, 1 << 18, (300_000, 2)).tolist()
        )
        calls = "".join(f"s+=f{i}(s,{i});" for i in range(400))
        texts["big.c"] = (
            "".join(
                f"static int t{i}[64];int f{i}(int a,int b){{int s=a;for(int i=0;i<b;i++){{t{i}[i&63]+=s^i;s+=t{i}[(i*7)&63]*{i};"
                f"if(s&{i % 31 + 1})s-=b;else s^=a<<{i % 7};}}return s;}}\n"
                for i in range(400)
            )
            + f"int main(void){{int s=0;{calls}return s;}}\n"
        )
    for name, text in texts.items():
        (work / name).write_text(text)
    subprocess.run(["gcc", "-O2", "-o", work / "graph", work / "graph.c"], check=True)
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", "-o", work / "layouts.so", HERE / "layouts.c"], check=True
    )
    cc1 = subprocess.run(
        ["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True
    ).stdout.strip()
    out = {
        "graph search": [str(work / "graph")],
        "CPython, a dictionary": [sys.executable, str(work / "maps.py")],
        "numpy, gather": [sys.executable, str(work / "gather.py")],
        "sqlite, joins": ["sqlite3", ":memory:", f".read {work}/rows.sql"],
        "sort": ["sort", "--parallel=1", "-S", "400M", str(work / "lines.txt")],
        "gcc -O2": [cc1, "-quiet", "-O2", str(work / "big.c"), "-o", "/dev/null"],
        "perl, a hash": ["perl", str(work / "count.pl")],
        "redis": [
            "redis-server",
            "--save",
            "",
            "--port",
            "0",
            "--unixsocket",
            str(work / "redis.sock"),
            "--daemonize",
            "no",
        ],
    }
    if shutil.which("javac"):
        subprocess.run(["javac", "-d", work, work / "Maps.java"], check=True)
        out["JVM, a map"] = [
            "java",
            "-Xms200m",
            "-Xmx200m",
            "-XX:+UseSerialGC",
            "-Xshare:off",
            "-cp",
            str(work),
            "Maps",
        ]
    return out


def drive(name: str, work: Path) -> None:
    """What a server is to do, from outside."""
    if name != "redis":
        return
    cli = ["redis-cli", "-s", str(work / "redis.sock")]
    for _ in range(1200):
        if subprocess.run([*cli, "ping"], capture_output=True, check=False).stdout.strip() == b"PONG":
            break
        time.sleep(0.1)
    for words in (["eval", REDIS_FILL, "0"], ["eval", REDIS, "0"], ["shutdown", "nosave"]):
        subprocess.run([*cli, *words], capture_output=True, check=False)


def record(work: Path, commands: dict[str, list[str]]) -> None:
    """Each program's walks, once."""
    from secondsight.trace.record.emulator import record_program

    for name, command in commands.items():
        path = work / f"{name}.parquet"
        if path.exists():
            continue
        start = time.monotonic()
        driver = threading.Thread(target=drive, args=(name, work))
        driver.start()
        words = (work / "words.txt").open("rb")
        kept, null = os.dup(0), os.open(os.devnull, os.O_WRONLY)
        os.dup2(words.fileno(), 0)
        shown = os.dup(1)
        os.dup2(null, 1)
        try:
            record_program(path, command)
        except Exception as error:  # one that cannot be emulated is told, and left out
            print(f"{name}: {error}", file=sys.stderr)
        finally:
            os.dup2(kept, 0)
            os.dup2(shown, 1)
        driver.join()
        print(f"recorded {name} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def once(name: str, command: list[str], share: float, work: Path) -> dict[str, float]:
    """One run: CPU seconds, faults, anonymous bytes and the share of them that was huge, when there was most."""
    environment = os.environ | {
        "LD_PRELOAD": str(work / "layouts.so"),
        "LAYOUT_SHARE": str(share),
        "LAYOUT_SEED": "1",
    }
    with (work / "words.txt").open("rb") as words:
        process = subprocess.Popen(
            command, stdin=words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
    driver = threading.Thread(target=drive, args=(name, work))
    driver.start()
    most, done = (0, 0), False

    def look() -> None:
        nonlocal most
        while not done:
            try:
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except OSError:
                return
            sizes = {
                line.split(":")[0]: int(line.split()[1])
                for line in text.splitlines()[1:]
                if line.endswith("kB")
            }
            most = max(most, (sizes.get("Anonymous", 0), sizes.get("AnonHugePages", 0)))
            time.sleep(0.02)

    looker = threading.Thread(target=look)
    looker.start()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    done = True
    looker.join()
    driver.join()
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return {
        "cpu": used.ru_utime + used.ru_stime, "system": used.ru_stime, "faults": used.ru_minflt, "anon": most[0] * 1024,
        "huge": most[1] / most[0] if most[0] else 0.0,
    }  # fmt: skip


def measure(work: Path, commands: dict[str, list[str]], rounds: int) -> None:
    """Rounds of every layout of every program, kept in measured.json."""
    path = work / "measured.json"
    kept: dict[str, list[list[dict[str, float]]]] = json.loads(path.read_text()) if path.exists() else {}
    rng = np.random.default_rng()
    for _ in range(rounds):
        for name, command in commands.items():
            line: list[Any] = [None] * len(SHARES)
            try:
                for i in rng.permutation(len(SHARES)).tolist():
                    line[i] = once(name, command, SHARES[i], work)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                continue
            kept.setdefault(name, []).append(line)
            path.write_text(json.dumps(kept))
            print(
                name, " ".join(f"{x['cpu']:.2f}/{x['huge']:.0%}" for x in line), file=sys.stderr, flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", default=["record", "measure", "tell"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="one program alone")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    os.environ.update(SETTINGS)
    commands = prepare(given.work) if {"record", "measure"} & set(given.steps) else {}
    if given.only:
        commands = {given.only: commands[given.only]} if commands else {}
    if "record" in given.steps:
        record(given.work, commands)
    if "measure" in given.steps:
        measure(given.work, commands, given.rounds)
    if "tell" in given.steps:
        from run_time_told import tell

        tell(given.work, given.calibration, given.svg)


if __name__ == "__main__":
    main()
