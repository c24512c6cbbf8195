"""``collapse`` on real servers, its numbers held against smaps, pagemap and the kernel's counters, read here by other code than ours.

Each runs where the program is installed (Debian's redis-server, postgresql, qemu-system-x86, a JDK), in a directory of the test's own,
without a network port. What the server itself reads of its memory after a collapse is what it read before.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secondsight.live.act import madvise
from support import servers

MIB, BLOCK = 1 << 20, 2 << 20

pytestmark = pytest.mark.skipif(
    madvise.available() != "" or os.geteuid() != 0,
    reason="collapsing in another process takes Linux 6.1 and CAP_SYS_NICE",
)


def smaps(pid, name):
    """Bytes of *name* over all of smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) << 10


def mapped_huge(pid):
    """Bytes that PMDs map, of any kind."""
    return sum(smaps(pid, name) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"))


def resident(pid):
    """Present pages times 4096 by every word of pagemap, without the zero page: the plainest reader there is."""
    total = 0
    zero = _zero_frame()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/pagemap").open("rb", 0) as pagemap:
        for line in maps:
            if "[vsyscall]" in line:
                continue
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            pagemap.seek(start // 4096 * 8)
            words = pagemap.read((end - start) // 4096 * 8)
            for (word,) in struct.iter_unpack("=Q", words):
                total += word >> 63 and word & ((1 << 55) - 1) != zero
    return total * 4096


def _zero_frame():
    """The frame of the zero page: that of memory of our own which was only read."""
    import ctypes
    import mmap

    with mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0]
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        with Path("/proc/self/pagemap").open("rb", 0) as pagemap:
            pagemap.seek(address // 4096 * 8)
            return struct.unpack("=Q", pagemap.read(8))[0] & ((1 << 55) - 1)


def collapses():
    """Huge pages allocated for collapses so far, in the whole system."""
    return int(re.search(r"^thp_collapse_alloc (\d+)$", Path("/proc/vmstat").read_text(), re.M)[1])


def collapse(pid, *options):
    argv = [sys.executable, "-m", "secondsight", "collapse", "--pid", str(pid), "--procfs", "--override"]
    finished = subprocess.run(
        [*argv, "--compact", "--json", *options], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in finished.stderr and finished.stdout, finished.stderr
    return finished.returncode, json.loads(finished.stdout)


def until(condition, seconds=60):
    """What *condition* answers once that is true."""
    for _ in range(seconds * 20):
        with contextlib.suppress(OSError):
            if outcome := condition():
                return outcome
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def held_against(done, pid, before):
    """What a round says is what the kernel says."""
    assert done["confirmed"] == done["collapsed"]
    assert done["after"]["huge"] - done["before"]["huge"] == done["collapsed"] * BLOCK
    assert mapped_huge(pid) - before == done["collapsed"] * BLOCK


@pytest.fixture
def redis(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    socket = Path("/tmp") / f"secondsight-redis-{os.getpid()}"
    options = (
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--dir",
        str(tmp_path),
        "--save",
        "",
        "--loglevel",
        "warning",
    )
    with subprocess.Popen(
        ["redis-server", *options, "--rdb-key-save-delay", "50000"], start_new_session=True
    ) as server:

        def ask(*words):
            argv = ["redis-cli", "-s", str(socket), *words]
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

        until(lambda: socket.exists() and ask("ping") == "PONG")
        # 48 MiB of values; redis fills them with zeros that were written, not with zero pages.
        ask("eval", "for i=1,3000 do redis.call('set','k'..i,string.rep('x',16000)) end return 1", "0")
        try:
            yield server, ask
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the child that saves too
    socket.unlink(missing_ok=True)


def test_redis_while_it_saves(redis):
    """The child that saves shares every page: making the parent's huge copies them, in the two together."""
    server, ask = redis
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    ask("bgsave")
    (child,) = until(lambda: children.read_text().split())
    both, huge, allocated = (
        smaps(server.pid, "Pss_Anon") + smaps(child, "Pss_Anon"),
        mapped_huge(server.pid),
        collapses(),
    )
    code, done = collapse(server.pid, "--policy", "madv_collapse", "--min-populated", "256")
    grown = smaps(server.pid, "Pss_Anon") + smaps(child, "Pss_Anon") - both
    assert children.read_text().split() == [child], "it still saves"
    assert code == 0 and done["collapsed"] >= 20
    held_against(done, server.pid, huge)
    assert collapses() - allocated >= done["collapsed"]
    assert done["added"] >= 0.9 * done["collapsed"] * BLOCK, "all of it is copied"
    # The child's progress counts and what the server did meanwhile are in it.
    assert abs(grown - done["added"]) <= 4 * MIB
    assert abs(done["after"]["resident"] - resident(server.pid)) <= MIB
    assert ask("dbsize") == "3000" and ask("strlen", "k1234") == "16000"


def test_redis_alone(redis):
    server, ask = redis
    before, huge = smaps(server.pid, "Pss_Anon"), mapped_huge(server.pid)
    code, done = collapse(server.pid, "--policy", "madv_collapse", "--min-populated", "256")
    assert code == 0 and done["collapsed"] >= 20
    held_against(done, server.pid, huge)
    assert done["added"] <= done["collapsed"] * MIB
    assert abs(smaps(server.pid, "Pss_Anon") - before - done["added"]) <= MIB
    assert ask("strlen", "k7") == "16000"


@pytest.fixture(params=["mmap", "sysv"])
def postgres(request, tmp_path):
    """A postmaster whose 64 MiB of shared buffers a backend filled."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [
        Path(shutil.which("postgres") or "/nowhere")
    ]
    bins = binaries[-1].resolve().parent
    if not (bins / "initdb").exists():
        pytest.skip("postgresql is not installed")
    try:
        import pwd

        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("postgres refuses root, and there is no user postgres")
    home = Path("/tmp") / f"secondsight-postgres-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": home}
    try:
        made = subprocess.run(
            [bins / "initdb", "-D", home / "data", "-A", "trust", "-N"],
            capture_output=True,
            check=False,
            **as_user,
        )
        if made.returncode:
            pytest.skip(f"initdb: {made.stderr.decode(errors='replace')[:200]}")
        options = {
            "listen_addresses": "", "unix_socket_directories": str(home), "shared_buffers": "64MB", "shared_memory_type": request.param,
            "huge_pages": "off", "autovacuum": "off",
        }  # fmt: skip
        argv = [
            bins / "postgres",
            "-D",
            home / "data",
            *(word for key, value in options.items() for word in ("-c", f"{key}={value}")),
        ]
        with subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user
        ) as server:

            def ask(text):
                words = [bins / "psql", "-h", home, "-U", "postgres", "-Atc", text, "postgres"]
                return subprocess.run(
                    words, capture_output=True, text=True, check=False, **as_user
                ).stdout.strip()

            until(lambda: ask("select 1") == "1")
            ask("create table t as select g, repeat('x', 1000) as x from generate_series(1, 40000) g")
            yield server, ask
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_a_postmaster_whose_buffers_others_filled(postgres):
    """Its shared buffers lie where mmap put them, which agrees with the file's offset or does not: taken, or left alone for that reason."""
    server, ask = postgres
    lines = [line.split() for line in Path(f"/proc/{server.pid}/maps").read_text().splitlines()]
    start = max((int(words[0].split("-")[1], 16) - int(words[0].split("-")[0], 16), int(words[0].split("-")[0], 16))
                for words in lines if words[1].endswith("s") and words[4] != "0")[1]  # fmt: skip
    huge = smaps(server.pid, "ShmemPmdMapped")
    code, done = collapse(server.pid, "--policy", "madv_collapse", "--min-populated", "256")
    misaligned = [
        count for reason, count in done["left"].items() if reason.startswith("misaligned against its file")
    ]
    assert code == 0
    if start % BLOCK:
        assert misaligned and misaligned[0] >= 5, "what the backends filled"
        inside = -(-start // BLOCK) * BLOCK
        pidfd = os.pidfd_open(server.pid)
        assert errno.errorcode[madvise.collapse(pidfd, inside)] == "EINVAL", "and so says the kernel"
        os.close(pidfd)
    else:
        assert not misaligned and smaps(server.pid, "ShmemPmdMapped") - huge >= 5 * BLOCK
    held_against(done, server.pid, huge)
    assert ask("select count(*), sum(length(x)) from t") == "40000|40000000"


def daemon_collapses():
    """Huge pages that khugepaged made so far, in the whole system: it may take an advised block in the middle of a test."""
    counter = Path("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed")
    return int(counter.read_text())


def ram(pid):
    """(start, end) of the mapping that is the guest's RAM: the one of its size."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        if end - start == servers.RAM:
            return start, end
    raise AssertionError("no mapping is as large as the guest's RAM")


@pytest.mark.software
@pytest.mark.parametrize(
    ("backend", "field"),
    [
        ("memory-backend-ram", "AnonHugePages"),
        ("memory-backend-memfd,share=on", "ShmemPmdMapped"),
        ("memory-backend-file,mem-path=SHM,share=on,align=2M", "ShmemPmdMapped"),
    ],
    ids=["anonymous", "memfd", "tmpfs"],
)
def test_the_ram_of_a_vm(backend, field):
    """While its firmware runs: the guest finds in its RAM what was there, whichever kind it is of."""
    with servers.vm(backend) as guest:
        assert guest.content() == guest.digest
        start, end = ram(guest.pid)
        huge, daemon, before = smaps(guest.pid, field), daemon_collapses(), smaps(guest.pid, "Rss")
        if huge >= servers.FILLED:
            pytest.skip("memory is huge from its first fault here (enabled=always)")
        # 32 blocks are filled, and one or two hold the firmware's pages.
        code, done = collapse(
            guest.pid, "--policy", "madv_collapse", "--min-populated", "256", "--range", f"{start:x}-{end:x}"
        )
        others = (daemon_collapses() - daemon) * BLOCK
        assert code == 0 and guest.content() == guest.digest and guest.ask("query-status")["running"]
        if field == "ShmemPmdMapped" and start % BLOCK:
            # Where QEMU puts a memfd it can be that no PMD can map it: it is left alone for that reason.
            (misaligned,) = (why for why in done["left"] if why.startswith("misaligned against its file"))
            assert done["collapsed"] == 0 and done["left"][misaligned] >= 32
            return
        assert 32 <= done["collapsed"] == done["confirmed"] <= servers.RAM // BLOCK
        assert 0 <= smaps(guest.pid, field) - huge - done["collapsed"] * BLOCK <= others
        assert abs(smaps(guest.pid, "Rss") - before - done["added"]) <= 4 * MIB


@pytest.mark.software
def test_the_heap_of_a_jvm():
    with servers.jvm() as java:
        checksum = java.ask("sum")
        before, huge, allocated = smaps(java.pid, "Pss_Anon"), mapped_huge(java.pid), collapses()
        code, done = collapse(java.pid, "--policy", "madv_collapse", "--min-populated", "256")
        assert code == 0 and done["collapsed"] >= 40, "a heap of 96 MiB"
        held_against(done, java.pid, huge)
        assert collapses() - allocated >= done["collapsed"]
        # The compiler's threads and the collector's tables may grow meanwhile.
        assert abs(smaps(java.pid, "Pss_Anon") - before - done["added"]) <= 8 * MIB
        assert java.ask("sum") == checksum
        # The collector moves what is alive, through memory that was collapsed.
        assert java.ask("gc") == checksum and java.child.poll() is None


@pytest.mark.software
def test_a_jvm_that_works_meanwhile():
    """Its program sums its heap and its collector moves it while the memory below is replaced, block by block."""
    with servers.jvm() as java:
        checksum = java.ask("sum")
        argv = [sys.executable, "-m", "secondsight", "collapse", "--pid", str(java.pid), "--procfs"]
        options = ["--override", "--compact", "--json", "--policy", "madv_collapse", "--budget", "32MiB/s"]
        with subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, text=True) as running:
            asked = 0
            while running.poll() is None:
                assert java.ask("gc") == checksum
                asked += 1
            done = json.loads(running.stdout.read())
        assert asked > 3 and done["collapsed"] >= 20 and not done["failed"]
        assert java.ask("gc") == checksum
