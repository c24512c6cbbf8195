"""The programs whose run times bench/run_time.py predicts and measures: what they do, their input, and what drives the one that serves.

Chosen by kind, before anything of them was predicted. Seven keep one to two GiB that they read at random, as programs do for which huge
pages are asked: a graph, a dictionary, rows that are gathered, a table in memory, a hash, a server's keys, a heap of objects. Two do not: a
compiler, and a sort, which merges. Each takes two to nine seconds of user time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
#: Allocators that ask for huge pages by themselves, or map memory in pieces below 2 MiB, leave no layout to choose; and each run is to
#: hash alike.
SETTINGS = {"PYTHONMALLOC": "malloc", "NUMPY_MADVISE_HUGEPAGE": "0", "PYTHONHASHSEED": "0"}

GRAPH = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
static uint64_t s = 88172645463325252ull;
static uint64_t r(void) { s ^= s << 13; s ^= s >> 7; return s ^= s << 17; }
int main(void) {
    uint32_t n = 1u << 25, d = 8, *e = malloc(4ul * n * d), *q = malloc(4ul * n), *dist = malloc(4ul * n);
    for (size_t i = 0; i < (size_t)n * d; i++) e[i] = r() & (n - 1);
    for (uint32_t i = 0; i < n; i++) dist[i] = ~0u;
    uint32_t h = 0, t = 0, first = r() & (n - 1);
    dist[first] = 0; q[t++] = first;
    while (h < t) {
        uint32_t x = q[h++];
        for (uint32_t j = 0; j < d; j++) {
            uint32_t y = e[(size_t)x * d + j];
            if (dist[y] == ~0u) { dist[y] = dist[x] + 1; q[t++] = y; }
        }
    }
    printf("%u\n", dist[q[t - 1]]);
}
"""
PYTHON = """
import random
random.seed(1)
n = 4_000_000
table = {f"user:{i}": ("record", i) for i in range(n)}
total = 0
for i in random.choices(range(n), k=n):
    total += table[f"user:{i}"][1]
print(total)
"""
NUMPY = """
import numpy as np
rng = np.random.default_rng(1)
table = rng.random((12 << 20, 16))
print(sum(table[rng.integers(0, len(table), 1 << 20)].sum() for _ in range(16)))
"""
SQL = """
create table t(k integer primary key, v text);
with recursive c(i) as (select 1 union all select i+1 from c where i<3000000)
insert into t select i, printf('record %d %0250d', i, i) from c;
with recursive c(i) as (select 1 union all select i+1 from c where i<1500000)
select sum(length(v)) from c join t on t.k = (i*2654435761) % 3000000;
"""
PERL = r"""
srand 1;
my ($n, $s, %h) = (2500000, 0);
for my $i (1 .. $n) { $h{"user:$i"} = "record $i " . "x" x 250; }
for (1 .. $n) { my $i = 1 + int rand $n; $s += length $h{"user:$i"}; }
print "$s\n";
"""
JAVA = """
import java.util.*;
public class Maps {
    public static void main(String[] a) {
        HashMap<Integer, int[]> m = new HashMap<>();
        Random r = new Random(1);
        int n = 8000000;
        for (int i = 0; i < n; i++) m.put(i * 0x9E3779B1, new int[] {i, i + 1});
        long s = 0;
        for (int k = 0; k < 2 * n; k++) s += m.get(r.nextInt(n) * 0x9E3779B1)[0];
        System.out.println(s);
    }
}
"""
REDIS_KEYS = 2_000_000
REDIS = (
    f"for i = 1, {REDIS_KEYS} do redis.call('get', 'key:' .. math.random(0, {REDIS_KEYS - 1})) end return 1"
)


def _c_file(functions: int) -> str:
    """A source for the compiler."""
    calls = "".join(f"s+=f{i}(s,{i});" for i in range(functions))
    bodies = "".join(
        f"static int t{i}[64];int f{i}(int a,int b){{int s=a;for(int i=0;i<b;i++){{t{i}[i&63]+=s^i;s+=t{i}[(i*7)&63]*{i};"
        f"if(s&{i % 31 + 1})s-=b;else s^=a<<{i % 7};}}return s;}}\n"
        for i in range(functions)
    )
    return f"{bodies}int main(void){{int s=0;{calls}return s;}}\n"


def _lines(count: int) -> str:
    """Lines to sort."""
    rows = np.random.default_rng(2).integers(0, 1 << 60, (count, 2)).tolist()
    return "".join(f"{a:016x} {b}\n" for a, b in rows)


def prepare(work: Path) -> dict[str, list[str]]:
    """The inputs, written to *work*; each program's command."""
    work.mkdir(parents=True, exist_ok=True)
    texts = {
        "graph.c": GRAPH, "users.py": PYTHON, "gather.py": NUMPY, "rows.sql": SQL, "users.pl": PERL, "Maps.java": JAVA,
        "big.c": _c_file(500),
    }  # fmt: skip
    if not (work / "lines.txt").exists():
        texts["lines.txt"] = _lines(3_000_000)
    for name, text in texts.items():
        (work / name).write_text(text)
    subprocess.run(["gcc", "-O2", "-o", work / "graph", work / "graph.c"], check=True)
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", "-o", work / "layouts.so", HERE / "layouts.c"], check=True
    )
    # The driver starts the compiler itself, which is the program.
    cc1 = subprocess.run(
        ["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True
    ).stdout.strip()
    commands = {
        "graph search": [str(work / "graph")],
        "CPython, a dictionary": [sys.executable, str(work / "users.py")],
        "numpy, rows gathered": [sys.executable, str(work / "gather.py")],
        "sqlite, look-ups": ["sqlite3", ":memory:", f".read {work}/rows.sql"],
        "perl, a hash": ["perl", str(work / "users.pl")],
        "redis, GETs": [
            *[
                "redis-server",
                "--save",
                "--port",
                "0",
                "--daemonize",
                "no",
                "--enable-debug-command",
                "local",
                "--unixsocket",
            ],
            str(work / "redis.sock"),
        ],
        "JVM, a map": [
            *["java", "-Xms2g", "-Xmx2g", "-XX:+UseSerialGC", "-Xshare:off", "-cp"],
            str(work),
            "Maps",
        ],
        "sort": ["sort", "--parallel=1", "-S", "400M", str(work / "lines.txt")],
        "gcc -O2": [cc1, "-quiet", "-O2", str(work / "big.c"), "-o", "/dev/null"],
    }
    commands["redis, GETs"].insert(2, "")
    if shutil.which("javac"):
        subprocess.run(["javac", "-d", work, work / "Maps.java"], check=True)
    for name, command in list(commands.items()):
        if shutil.which(command[0]) is None:
            print(f"{command[0]} is not installed: {name} is left out", file=sys.stderr)
            del commands[name]
    return commands


def drive(name: str, work: Path) -> None:
    """What a server is to do, from outside."""
    if not name.startswith("redis"):
        return
    cli = ["redis-cli", "-s", str(work / "redis.sock")]
    for _ in range(2400):
        if subprocess.run([*cli, "ping"], capture_output=True, check=False).stdout.strip() == b"PONG":
            break
        time.sleep(0.05)
    fill = ["debug", "populate", str(REDIS_KEYS), "key", "500"]
    for words in (fill, ["eval", REDIS, "0"], ["shutdown", "nosave"]):
        subprocess.run([*cli, *words], capture_output=True, check=False)
