"""Programs under QEMU's user mode: against valgrind's lackey, and their threads, forks and execs."""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from secondsight.errors import SecondSightError, UsageError
from secondsight.trace import Kind, Trace, Verb
from secondsight.trace.cut import cut
from secondsight.trace.record import emulator
from secondsight.trace.record.emulator import record_program
from secondsight.trace.record.run import record_run
from secondsight.whatif import compare
from support.plaintlb import PlainTlb

pytestmark = [
    pytest.mark.skipif(not emulator.available(), reason="no qemu-user"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]

# No library, fixed addresses: nothing but the program's own instructions, which both see alike.
BARE = r"""
static char room[40 * 4096] __attribute__((aligned(4096)));
static volatile long sum;
static void exit_now(long code) { long out; __asm__ volatile("syscall" : "=a"(out) : "a"(231), "D"(code) : "rcx", "r11", "memory"); }
void _start(void) {
    for (int i = 0; i < 40; i++)
        for (int j = 0; j <= i; j++) { room[i * 4096 + j * 64] = (char)j; sum += room[i * 4096 + 8]; }
    *(volatile long *)(room + 8 * 4096 - 4) = 7;                      /* crosses into the next page */
    for (long i = 0; i < 5000; i++) __asm__ volatile("addq $1, %0" : "+m"(room[i % 39 * 4096])); /* a load and a store */
    exit_now(0);
}
"""
THREADS = r"""
#include <pthread.h>
#include <stdlib.h>
static void *work(void *at) { volatile char *p = at; for (long i = 0; i < 200000; i++) p[i % 65536]++; return 0; }
int main(void) {
    pthread_t one[4];
    char *room = aligned_alloc(4096, 4 * 65536);
    for (int i = 0; i < 4; i++) pthread_create(&one[i], 0, work, room + i * 65536);
    for (int i = 0; i < 4; i++) pthread_join(one[i], 0);
    return 3;
}
"""
WIDE = r"""
static char room[64ul << 20] __attribute__((aligned(2097152)));
static void exit_now(long code) { long out; __asm__ volatile("syscall" : "=a"(out) : "a"(231), "D"(code) : "rcx", "r11", "memory"); }
void _start(void) {
    unsigned long s = 88172645463325252ul;
    for (long i = 0; i < 60000; i++) {
        s ^= s << 13; s ^= s >> 7; s ^= s << 17;
        ((volatile char *)room)[s % sizeof(room)] = 1;
    }
    exit_now(0);
}
"""
STOSB = r"""
#include <stdlib.h>
int main(void) {
    unsigned long n = 32ul << 20; char *p = aligned_alloc(4096, n), *at = p;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(1) : "memory");
    return p[5] - 1;
}
"""


AGAIN = r"""
#include <stdio.h>
#include <unistd.h>
int main(int n, char **words) {
    char own[32];
    snprintf(own, sizeof(own), "/proc/%d/exe", getpid());
    if (n == 1) { chdir("/"); execl("/proc/self/exe", "a", "b", (char *)0); }
    if (n == 2) execl(own, "a", "b", "c", (char *)0);
    return n == 3 ? 5 : 1;
}
"""


IDLE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
    volatile char *room = aligned_alloc(2097152, 8ul << 20);
    for (int i = 0; i < 2048; i++) room[i * 4096] = 1;
    printf("%d\n", getpid());
    fflush(stdout);
    for (int i = 0; i < 2048; i++) room[i * 4096] = 2;
    pause();
}
"""
FORKS = r"""
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    volatile char *room = aligned_alloc(2097152, 2097152);
    for (int i = 0; i < 300; i++) room[i * 4096] = 1;
    if (!fork()) { for (int i = 0; i < 100; i++) room[i * 4096] = 2; _exit(0); }
    wait(0);
    for (int i = 200; i < 300; i++) room[i * 4096] = 3;
    return 0;
}
"""


def built(tmp_path, text, *flags):
    (tmp_path / "p.c").write_text(text)
    subprocess.run(["cc", "-O1", "-o", tmp_path / "p", tmp_path / "p.c", *flags], check=True)
    return str(tmp_path / "p")


def recorded(path):
    trace = Trace.open(path)
    return trace, trace.read()


def pages(columns, space=None):
    """How often each page was accessed, by kind."""
    out = Counter()
    for s, a, k, c in zip(*(columns[n].tolist() for n in ("space", "address", "kind", "count")), strict=True):
        if k < 0x80 and space in (None, s):
            out[a >> 12, k] += c
    return out


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")
@pytest.mark.parametrize("quantum", [0, 1000, emulator.QUANTUM])
def test_a_static_program_is_what_lackey_sees_page_by_page(tmp_path, quantum):
    program = built(
        tmp_path, BARE, "-static", "-nostdlib", "-fno-stack-protector", "-no-pie", "-fcf-protection=none"
    )
    _, code = record_program(tmp_path / "qemu.parquet", [program], quantum=quantum)
    _, other = record_run(tmp_path / "lackey.parquet", [program])
    assert code == other == 0
    trace, ours = recorded(tmp_path / "qemu.parquet")
    _, theirs = recorded(tmp_path / "lackey.parquet")
    assert pages(ours) == pages(theirs)
    assert trace.provenance.dropped == {}
    assert (ours["kind"] == Verb.EXIT).sum() == 1
    if quantum == 0:
        # A block's fetches are one row; each load and store is its own, in the program's order.
        data = [[c[n][c["kind"] < 2] for n in ("address", "kind")] for c in (ours, theirs)]
        assert (data[0][0] == data[1][0]).all() and (data[0][1] == data[1][1]).all()


def test_walks_are_those_of_a_plain_tlb(tmp_path):
    """Every access a row, sent through a TLB of plain lists; the recorder's windows: 16,384 accesses to warm up, then as many counted."""
    program = built(tmp_path, WIDE, "-nostdlib", "-static", "-fno-stack-protector")
    provenance, _ = record_program(tmp_path / "t", [program], quantum=0)
    columns = recorded(tmp_path / "t")[1]
    data = columns["kind"] < 2
    assert np.count_nonzero(data) > 2 * 16384
    small, huge, expected = PlainTlb(16), PlainTlb(8), Counter()
    for i, address in enumerate(columns["address"][data][: 2 * 16384].tolist()):
        one, other = small.misses(address >> 12), huge.misses(address >> 21)
        if i >= 16384:
            expected[address >> 21, 0] += one
            expected[address >> 21, 1] += other
    (walks,) = provenance.walks
    # What the recorder counted is not among what it could not see; a part of the trace has none of it.
    assert "page walks" not in provenance.unseen
    cut(Trace.open(tmp_path / "t"), tmp_path / "cut", time=(0, 1000))
    rest = Trace.open(tmp_path / "cut").provenance
    assert (rest.walks, rest.unseen) == ([], ["page walks", *provenance.unseen])
    counted = Counter({(b, 0): n for b, n in zip(walks.block, walks.small, strict=True)})
    counted.update({(b, 1): n for b, n in zip(walks.block, walks.huge, strict=True)})
    assert +counted == +expected
    assert sum(walks.small) > 10_000
    assert (walks.accesses, walks.counted) == (np.count_nonzero(data), 16384)


def test_walks_of_several_windows_are_one_sum(tmp_path):
    program = built(
        tmp_path, WIDE.replace("60000", "1100000"), "-nostdlib", "-static", "-fno-stack-protector"
    )
    provenance, _ = record_program(tmp_path / "t", [program])
    columns = recorded(tmp_path / "t")[1]
    (walks,) = provenance.walks
    # From 0 and from 1,048,576 on: 16,384 accesses to warm up, 16,384 that count.
    assert (walks.accesses, walks.counted) == (columns["count"][columns["kind"] < 2].sum(), 2 * 16384)
    assert len(set(walks.block)) == len(walks.block)
    assert 20_000 < sum(walks.small) < 2 * 16384


def test_walks_counted_before_a_kill_are_kept(tmp_path):
    killed = WIDE.replace(
        "exit_now(0);", 'long out; __asm__ volatile("syscall" : "=a"(out) : "a"(39) : "rcx", "r11", "memory");'
        '__asm__ volatile("syscall" : "=a"(out) : "a"(62), "D"(out), "S"(9) : "rcx", "r11", "memory");'
    )  # fmt: skip
    assert killed != WIDE
    provenance, code = record_program(
        tmp_path / "t", [built(tmp_path, killed, "-nostdlib", "-static", "-fno-stack-protector")]
    )
    assert code == -9
    columns = recorded(tmp_path / "t")[1]
    (walks,) = provenance.walks
    assert (walks.accesses, walks.counted) == (columns["count"][columns["kind"] < 2].sum(), 16384)
    assert sum(walks.small) > 10_000
    assert "page walks" not in provenance.unseen


def test_the_programs_own_cpu_time_is_kept(tmp_path):
    provenance, code = record_program(
        tmp_path / "t", ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], cpu_time=True
    )
    assert code == 0
    assert 0.001 < provenance.cpu_seconds < 60
    assert provenance.cpu_thp in ("", "always", "madvise", "never")
    with pytest.raises(SecondSightError, match="by itself ended with exit code 3"):
        record_program(tmp_path / "u", ["sh", "-c", "exit 3"], cpu_time=True)
    assert not (tmp_path / "u").exists()


def test_threads_are_one_space_and_none_of_their_accesses_is_lost(tmp_path):
    program = built(tmp_path, THREADS, "-pthread")
    provenance, code = record_program(tmp_path / "t.parquet", [program])
    assert code == 3
    assert len(provenance.spaces) == 1 and provenance.dropped == {} and provenance.notes == []
    _, columns = recorded(tmp_path / "t.parquet")
    loud = Counter({key: n for key, n in pages(columns).items() if key[1] == 1 and n > 10_000})
    # 4 x 200,000 stores over 64 pages of 12,207 or so.
    assert sum(n for (_, k), n in loud.items() if k == 1) >= 4 * 200_000


def test_forks_and_what_they_become_are_spaces(tmp_path):
    provenance, code = record_program(tmp_path / "t.parquet", ["sh", "-c", "/bin/true; (exit 3)"])
    assert code == 3
    assert provenance.dropped == {} and provenance.notes == []
    # sh, its fork, true in its place, and the subshell.
    assert [s.parent for s in provenance.spaces][:2] == [None, 0]
    assert len(provenance.spaces) >= 3
    trace, columns = recorded(tmp_path / "t.parquet")
    assert (columns["kind"] == Verb.FORK).sum() >= 1
    assert (columns["kind"] == Verb.EXIT).sum() == len(provenance.spaces)
    assert (np.diff(columns["time"].astype(np.int64)) >= 0).all()
    assert trace.provenance.clock_held == 0


def test_what_a_parent_wrote_comes_before_its_fork_though_rows_are_aggregated(tmp_path):
    path = tmp_path / "t.parquet"
    record_program(path, [built(tmp_path, FORKS)], quantum=1_000_000_000)
    _, columns = recorded(path)
    stores = columns["kind"] == Kind.CPU_WRITE
    block = Counter((columns["address"][stores & (columns["space"] == 1)] >> 21).tolist()).most_common(1)[0][
        0
    ]
    there = stores & (columns["address"] >> 21 == block)
    fork = int(np.flatnonzero(columns["kind"] == Verb.FORK)[0])
    pages = [
        set((columns["address"][part & there] >> 12 & 511).tolist())
        for part in (
            np.arange(len(stores)) < fork,
            columns["space"] == 1,
            (columns["space"] == 0) & (np.arange(len(stores)) > fork),
        )
    ]
    assert [len(part) for part in pages] == [300, 100, 100]
    # The child copies its hundred, and pages of its stack and the library; when it has ended the parent owns the others alone.
    copied = compare(Trace.open(path), ["never"], ["7.2"], channels=False).rows[0].metrics["copied_pages"]
    assert 100 <= copied < 150


def test_a_script_and_a_program_that_closes_every_descriptor(tmp_path):
    script = tmp_path / "script"
    script.write_text(
        f"#!{sys.executable} -S\nimport os\nos.closerange(3, 1 << 12)\nprint(sum(range(1000)))\n"
    )
    script.chmod(0o755)
    provenance, code = record_program(tmp_path / "t.parquet", [str(script)])
    assert code == 0
    assert provenance.dropped == {} and provenance.notes == []
    assert len(provenance.spaces) == 1


def test_a_program_that_becomes_itself_by_its_name_in_proc_is_not_the_emulator(tmp_path):
    """/proc/self/exe and /proc/PID/exe, from another directory than it was started in."""
    program = built(tmp_path, AGAIN)
    provenance, code = record_program(tmp_path / "t.parquet", [program])
    assert code == 5
    assert provenance.dropped == {} and provenance.notes == []
    _, columns = recorded(tmp_path / "t.parquet")
    # Three short programs: the emulator itself would be ten million.
    assert 0 < columns["count"].sum() < 3_000_000


def test_a_killed_program_says_what_is_missing(tmp_path):
    provenance, code = record_program(tmp_path / "t.parquet", ["sh", "-c", "kill -9 $$"])
    assert code == -9
    assert any("without the plugin's totals" in note for note in provenance.notes)


def test_a_long_rep_stosb_is_counted_whole(tmp_path):
    program = built(tmp_path, STOSB)
    provenance, code = record_program(tmp_path / "t.parquet", [program])
    assert code == 0 and provenance.dropped == {}
    _, columns = recorded(tmp_path / "t.parquet")
    stores = [n for (_, k), n in pages(columns).items() if k == 1 and n >= 4096]
    assert len(stores) in (8192, 8193) and sum(stores) >= 32 << 20  # and perhaps the stack's


def test_what_cannot_be_recorded(tmp_path):
    with pytest.raises(UsageError, match="no such program"):
        record_program(tmp_path / "t.parquet", ["./nothing-here"])
    (tmp_path / "empty").write_text("")
    (tmp_path / "empty").chmod(0o755)
    with pytest.raises(SecondSightError):
        record_program(tmp_path / "t.parquet", [str(tmp_path / "empty")])


def test_what_a_program_did_before_it_waits_is_kept_when_it_is_interrupted(tmp_path):
    program, path = built(tmp_path, IDLE), tmp_path / "i.parquet"
    recorder = subprocess.Popen(
        [sys.executable, "-m", "secondsight", "record", "run", "-o", str(path), "--", str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert recorder.stdout is not None
    emulated = Path("/proc") / recorder.stdout.readline().strip() / "stat"

    def cpu_time() -> list[str]:
        return emulated.read_text().rpartition(")")[2].split()[11:13]

    # It sleeps in pause(): for two seconds it has taken no time.
    before, since, deadline = cpu_time(), time.monotonic(), time.monotonic() + 60
    while time.monotonic() - since < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := cpu_time()) != before:
            before, since = now, time.monotonic()
    recorder.send_signal(signal.SIGINT)
    message = recorder.communicate(timeout=60)[1]
    assert recorder.returncode == 0, message
    trace, columns = recorded(path)
    stored = {page: count for (page, kind), count in pages(columns).items() if kind == Kind.CPU_WRITE}
    # 2,048 pages in a row, each of which was stored to once before the line and once after it.
    twice = np.array(sorted(page for page, count in stored.items() if count >= 2))
    runs = np.split(twice, np.flatnonzero(np.diff(twice) != 1) + 1)
    assert max(map(len, runs)) >= 2048
    assert "interrupted; holds what was recorded until then" in trace.provenance.notes
    accesses = columns["count"][columns["kind"] < 0x80].sum()
    assert f"{accesses:,} accesses in" in message
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("i.parquet")] == ["i.parquet"]


def test_a_program_that_is_interrupted_before_it_did_anything_leaves_nothing(tmp_path):
    """The first run of --cpu-time, whose output is thrown away: nothing is kept, and so nothing is said to be."""
    recorder = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "secondsight",
            "record",
            "run",
            "--cpu-time",
            "-o",
            str(tmp_path / "t"),
            "--",
            "sleep",
            "60",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    message = recorder.communicate(timeout=60)[1]
    assert (recorder.returncode, message) == (130, "secondsight: interrupted\n")
    assert not list(tmp_path.iterdir())
