"""The view of a host over real software, all of it stopped while it is looked at: two VMs (one with memfd RAM), redis, postgres, a JVM, and
200 small processes in cgroups of their own. Against smaps_rollup, the cgroups' own counters and thpmaps, to the page.

Each program where it is installed; thpmaps (tools/mm of a kernel tree) where THPMAPS names it.
"""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from secondsight.live.read.limits import MemoryCgroup

MIB = 1 << 20
SMALL = 200

pytestmark = [
    pytest.mark.software,
    pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups and reading others takes root"),
]

#: a child in each of the cgroups that are named, each with 1 MiB and a name of its own
HERD = """
import ctypes, mmap, os, signal, sys
for number, folder in enumerate(sys.argv[1:]):
    ready, tell = os.pipe()
    if not (child := os.fork()):
        open(folder + "/cgroup.procs", "w").write(str(os.getpid()))
        ctypes.CDLL(None).prctl(15, b"small\\n%d" % number, 0, 0, 0)
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
        memory = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:] = bytes([1]) * len(memory)
        os.write(tell, b"!")
        signal.pause()
    os.read(ready, 1)
    print(child, flush=True)
print("ready", flush=True)
signal.pause()
"""


class Running(NamedTuple):
    """*pids* of everything by kind; *groups*: each small process's cgroup folder, by its PID; *missing*: what is not installed."""

    pids: dict[str, list[int]]
    groups: dict[int, Path]
    missing: list[str]

    def every(self):
        return [pid for some in self.pids.values() for pid in some]


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < end, "it never began"
        time.sleep(0.1)
    return outcome


def resident(pid):
    return smaps(pid)["Rss"]


def smaps(pid):
    """Bytes by name, of smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) << 10 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in descendants(int(child)))]


@contextlib.contextmanager
def started(command, **options):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    child = subprocess.Popen([str(word) for word in command], start_new_session=True, **(quiet | options))
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def vms(stack):
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        return None
    kinds = {"first": "memory-backend-ram", "second,one": "memory-backend-memfd,share=on"}
    pids = []
    for name, kind in kinds.items():
        named = name.replace(",", ",,")
        command = [qemu, "-name", f"guest={named},debug-threads=on", "-machine", "q35,memory-backend=ram", "-accel", "tcg", "-m", "64",
                   "-object", f"{kind},id=ram,size=64M,prealloc=on", "-nodefaults", "-display", "none", "-S"]  # fmt: skip
        pids.append(stack.enter_context(started(command)).pid)
    until(lambda: all(resident(pid) > 64 * MIB for pid in pids))
    return pids


def redis(stack, folder):
    if shutil.which("redis-server") is None:
        return None
    socket = folder / "redis"
    server = stack.enter_context(
        started(["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""])
    )
    until(socket.exists)
    fill = "for i=1,2000 do redis.call('set','k'..i,string.rep('x',16000)) end return 1"
    subprocess.run(["redis-cli", "-s", socket, "eval", fill, "0"], check=True, capture_output=True)
    return [server.pid]


def postgres(stack, folder):
    bins = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        return None
    if not bins:
        return None
    home = folder / "postgres"
    home.mkdir()
    for path in (folder, home):
        os.chown(path, user.pw_uid, user.pw_gid)
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": home}
    subprocess.run(
        [bins[-1] / "initdb", "-D", home / "data", "-A", "trust", "-N"],
        check=True,
        capture_output=True,
        **who,
    )
    server = stack.enter_context(
        started([bins[-1] / "postgres", "-D", home / "data", "-k", home, "-h", ""], **who)
    )
    until(lambda: list(home.glob(".s.PGSQL.*")))
    time.sleep(2)  # its helpers
    return descendants(server.pid)


def jvm(stack):
    if shutil.which("java") is None:
        return None
    command = [
        "java",
        "-Xms64m",
        "-Xmx64m",
        "-XX:+AlwaysPreTouch",
        "-m",
        "java.rmi/sun.rmi.registry.RegistryImpl",
        "0",
    ]
    server = stack.enter_context(started(command))
    until(lambda: resident(server.pid) > 80 * MIB)
    return [server.pid]


def small(stack):
    own = MemoryCgroup.of(Path("/proc/self/cgroup").read_text())
    if own is None:
        return None
    parent = (own.folder if own.version == 1 else own.root) / f"secondsight-{os.getpid()}"
    folders = [parent / f"s{number:03}" for number in range(SMALL)]

    def remove():
        for folder in [*folders, parent]:
            with contextlib.suppress(OSError):
                until(lambda folder=folder: removed(folder), 10)

    stack.callback(remove)
    parent.mkdir()
    if own.version == 2:
        (parent / "cgroup.subtree_control").write_text("+memory")
    for folder in folders:
        folder.mkdir()
    herd = stack.enter_context(
        started([sys.executable, "-c", HERD, *folders], stdout=subprocess.PIPE, text=True)
    )
    lines = iter(herd.stdout.readline, "ready\n")
    return dict(zip((int(line) for line in lines), folders, strict=True))


def removed(folder):
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = Path("/tmp") / f"secondsight-software-{os.getpid()}"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        groups = small(stack)
        kinds = {
            "vm": vms(stack),
            "redis": redis(stack, folder),
            "postgres": postgres(stack, folder),
            "jvm": jvm(stack),
        }
        kinds["small"] = list(groups) if groups else None
        programs = Running(
            {kind: pids for kind, pids in kinds.items() if pids},
            groups or {},
            [kind for kind, pids in kinds.items() if not pids],
        )
        for pid in programs.every():
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        try:
            yield programs
        finally:
            # A stopped process outlives the one that made it, and postgres' helpers lead sessions of their own.
            for pid in programs.every():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def top(running, *words):
    chosen = [word for pid in running.every() for word in ("--pid", str(pid))]
    command = [sys.executable, "-m", "secondsight", "top", *chosen, "--json", "--full", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_each_process_is_its_smaps_rollup(running):
    view = top(running)
    assert {row["pid"] for row in view["rows"]} == set(running.every())
    for row in view["rows"]:
        kernel = smaps(row["pid"])
        assert row["resident"] == kernel["Rss"], row
        assert row["huge"] == sum(
            kernel[name] for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
        ), row
        assert row["swapped"] == kernel["Swap"], row
        if row["sizes"] is not None:
            # Memory by size is all of it, in mappings that hold whole 2 MiB: never more than there is.
            assert sum(each["value"] for each in row["sizes"].values()) <= row["resident"], row
            assert all(each["low"] == each["high"] for each in row["sizes"].values()), row
    assert {row["name"] for row in view["rows"] if row["pid"] in running.groups} == {
        f"small\n{n}" for n in range(SMALL)
    }


def test_vms_by_their_names_with_guest_ram_apart(running):
    if "vm" not in running.pids:
        pytest.skip("QEMU is not installed")
    # Pss of what others map too (QEMU's own program, if somebody runs it here as well) moves as they come and go: it is compared where two
    # readings around the pass agree; else only the bounds hold, of which the lower is what the VM has for itself.
    for _ in range(5):
        before = {pid: smaps(pid) for pid in running.pids["vm"]}
        rows = {row["name"]: row for row in top(running, "--by", "vm")["rows"]}
        if still := before == {pid: smaps(pid) for pid in running.pids["vm"]}:
            break
    assert {"first", "second,one", "(no VM)"} == set(rows)
    for name, pid in zip(("first", "second,one"), running.pids["vm"], strict=True):
        kernel = before[pid]
        assert kernel["Pss_Anon"] + kernel["Pss_Shmem"] <= rows[name]["resident"] <= kernel["Rss"]
        # The pass itself maps the C library, and so takes its part of it while it looks.
        assert not still or abs(rows[name]["resident"] - kernel["Pss"]) < MIB
        assert rows[name]["huge"] == sum(
            kernel[field] for field in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
        )
        # Without QEMU's block for the ACPI tables, of 2 MiB, which it marks as it marks RAM (hw/core/loader.c, rom_set_mr).
        assert rows[name]["guest"] == 64 * MIB
    assert rows["second,one"]["guest_huge"] == smaps(running.pids["vm"][1])["ShmemPmdMapped"]


def test_cgroups_by_their_own_counters(running):
    if not running.groups:
        pytest.skip("no memory cgroup can be made here")
    rows = {row["name"]: row for row in top(running, "--by", "cgroup")["rows"]}
    for pid, folder in running.groups.items():
        (path,) = (name for name in rows if name.endswith(f"/{folder.parent.name}/{folder.name}"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        mapped = ("rss", "mapped_file") if "rss" in stat else ("anon", "file_mapped")
        assert rows[path]["resident"] == sum(int(stat[name]) for name in mapped), pid
        assert rows[path]["processes"] == 1


def test_the_total_is_thpmaps(running):
    program = os.environ.get("THPMAPS")
    if program is None:
        pytest.skip("THPMAPS does not name a kernel tree's tools/mm/thpmaps")
    chosen = [word for pid in running.every() for word in ("--pid", str(pid))]
    done = subprocess.run(
        [sys.executable, program, "--rollup", "--inc-empty", *chosen],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = {name: int(kb) << 10 for name, kb in re.findall(r"^(\S+):\s+(\d+) kB", done.stdout, re.M)}
    view = top(running)
    huge = theirs["anon-thp-pmd-aligned-2048kB"] + theirs["file-thp-pmd-aligned-2048kB"]
    assert sum(row["huge"] for row in view["rows"]) == huge
    # Folios of each size that a process maps as wholes, wherever it maps them; ours leaves out mappings that hold no whole 2 MiB.
    for kb in (16, 32, 64, 128, 256, 512, 1024):
        size = f"{kb}K" if kb < 1024 else "1M"
        ours = sum((row["sizes"] or {}).get(size, {"value": 0})["value"] for row in view["rows"])
        whole = sum(
            theirs[f"{kind}-thp-pte-{how}-{kb}kB"]
            for kind in ("anon", "file")
            for how in ("aligned", "unaligned")
        )
        assert ours <= whole, size


def test_everything_was_there(running):
    """Last, so that what is missing is told and nothing else left out."""
    if running.missing:
        pytest.skip(f"not installed here: {', '.join(running.missing)}")
