"""Targets that make it hard: of each nothing is lost, and the round says what happened."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secondsight.errors import TargetGone, UsageError
from secondsight.live.act import collapse, madvise
from secondsight.live.act.candidates import Wanted, select
from secondsight.live.act.collapse import Collapser, Throttle
from secondsight.live.act.guard import Guard, Guarding
from secondsight.live.act.unfit import Beside
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from secondsight.live.read.page_cache import PageCache
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.vma import parse_maps, parse_smaps
from secondsight.policy.registry import make
from support.cgroups import memory_cgroup
from support.operators import BLOCK, MIB, operated

pytestmark = pytest.mark.skipif(
    madvise.available() != "" or os.geteuid() != 0,
    reason="collapsing in another process takes Linux 6.1 and CAP_SYS_NICE",
)


def go(target, event=lambda: None, after=5, within=True, **guarding):
    """One round over *target*'s area; *event* happens before its block number *after*."""
    area = (target.start, target.end) if within else None
    asked = 0

    def wait(seconds):
        nonlocal asked
        asked += 1
        if asked == after:
            event()
        return False

    with Process.open(target.pid) as process, Pagemap(process) as memory:
        guard = Guard(process, Guarding(compact=True, **guarding))
        taken = capture.take(process, None, within=area)
        with PageCache(process, parse_maps(process.read_file("maps"))) as cache:
            selection = select(taken, make("madv_collapse"), Wanted(override=True), Beside(cache=cache))
            return Collapser(process, memory, guard, Throttle(within=area), wait, cache).run(selection)


def whole(done, blocks=32):
    """Every block was taken, and none refused."""
    assert (done.collapsed, done.confirmed, done.refused, done.stopped) == (blocks, blocks, {}, "")


def test_another_pid_and_user_namespace():
    unshare = shutil.which("unshare")
    under = (unshare or "", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if unshare is None or subprocess.run([*under, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces can be made here (unshare)")
    with operated("plain", under=under) as target:
        before = target.content()
        whole(go(target))
        assert target.content() == before


def test_a_target_under_seccomp():
    with operated("plain") as target:
        before = target.content()
        target.tell("seccomp")
        whole(go(target))
        assert target.content() == before and target.child.poll() is None


def test_a_target_that_is_traced():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    with operated("plain") as target:
        before = target.content()
        # PTRACE_SEIZE, PTRACE_INTERRUPT: it stands still in a tracer's hands, ours.
        if libc.ptrace(0x4206, target.pid, None, None):
            pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
        libc.ptrace(0x4207, target.pid, None, None)
        os.waitpid(target.pid, 0)
        try:
            whole(go(target))
            assert target.content() == before
        finally:
            libc.ptrace(17, target.pid, None, None)  # PTRACE_DETACH


def test_a_target_that_is_stopped():
    with operated("plain") as target:
        before = target.content()
        os.kill(target.pid, 19)
        whole(go(target))
        assert target.content() == before


@pytest.fixture
def freezer():
    """A group whose ``freeze()`` stops what is in it: v1's freezer, or v2's cgroup.freeze."""
    for root, file, words in (
        (Path("/sys/fs/cgroup/freezer"), "freezer.state", ("FROZEN", "THAWED")),
        (Path("/sys/fs/cgroup"), "cgroup.freeze", ("1", "0")),
    ):
        folder = root / f"secondsight-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if (folder / file).exists():
            yield folder, folder / file, words
            (folder / file).write_text(words[1])
            for _ in range(50):
                try:
                    folder.rmdir()
                    return
                except OSError:
                    time.sleep(0.1)
            return
        folder.rmdir()
    pytest.skip("no cgroup can be made that freezes")


def test_a_frozen_target(freezer):
    folder, file, words = freezer
    with operated("plain") as target:
        before = target.content()
        (folder / "cgroup.procs").write_text(str(target.pid))
        file.write_text(words[0])
        try:
            whole(go(target))
            assert target.content() == before
        finally:
            file.write_text(words[1])
        assert target.child.poll() is None


def test_what_could_not_be_mapped_huge_is_not_made_huge_in_the_page_cache_either():
    """A guard region over shared memory (6.15): MADV_COLLAPSE answered EINVAL, had added what was missing, and nobody counted it."""
    with operated("shared") as target:
        target.child.stdin.write("guard\n")
        if (answer := target.child.stdout.readline().strip()) != "guard":
            pytest.skip(f"no guard regions over shared memory here: {answer}")
        done = go(target)
        assert (done.collapsed, done.confirmed, done.refused) == (31, 31, {})
        (why,) = (each for each in done.left if "guard regions" in each)
        assert done.left[why] == 1
        with Process.open(target.pid) as process:
            (first, *others) = explain(capture.take(process, None, within=(target.start, target.end))).blocks
        assert first.mapping == "small" and {block.mapping for block in others} == {"huge"}
        assert target.child.poll() is None


def test_a_private_mapping_of_shared_memory_is_left_alone_and_called_so():
    with operated("shared") as target:
        target.tell("private")
        done = go(target, within=False)
        (why,) = (each for each in done.left if each.startswith("a private mapping of shared memory"))
        assert done.left[why] == 32 and "MADV_COLLAPSE would" not in "".join(done.left)


def test_many_mappings():
    """SECONDSIGHT_MAPPINGS=65000 is as many as vm.max_map_count allows; smaps of so many takes a minute on a busy machine."""
    count = int(os.environ.get("SECONDSIGHT_MAPPINGS", "6000"))
    with operated("mappings", str(count)) as target:
        before = target.content()
        started = time.process_time()
        maps = parse_smaps(Path(f"/proc/{target.pid}/smaps").read_bytes())
        read = time.process_time()
        done = go(target, within=False)
        assert done.collapsed == done.confirmed >= 32 and target.content() == before
        if len(maps) > 60_000:
            assert time.process_time() - read < 6 * (read - started), (
                "not a matter of mappings times mappings"
            )


def test_a_limit_lowered_in_the_middle():
    with memory_cgroup(256 * MIB) as folder, operated("plain", group=folder) as target:
        before = target.content()
        files = [folder / name for name in ("memory.max", "memory.limit_in_bytes")]
        (limit,) = [file for file in files if file.exists()]
        used = next(
            file for file in (folder / "memory.current", folder / "memory.usage_in_bytes") if file.exists()
        )

        def lower():
            limit.write_text(str((int(used.read_text()) + 5 * MIB) & -4096))

        done = go(target, lower)
        assert done.collapsed == done.confirmed == 4 and done.failed
        assert "a collapse needs 2.0 MiB for a moment" in done.stopped and folder.name in done.stopped
        assert target.content() == before and target.child.poll() is None


def test_a_target_that_is_killed_for_want_of_memory():
    """The kernel's OOM killer takes it in the middle: it would have died without us, and that is what is said."""
    with memory_cgroup(160 * MIB) as folder, operated("plain", group=folder) as target:

        def starve():
            target.child.stdin.write("grow\ngrow\ngrow\n")
            target.child.wait()

        done = go(target, starve)
        assert target.child.returncode == -9
        assert (done.collapsed, done.stopped) == (4, collapse.EXITED)
        assert done.confirmed is None and done.after is None and done.gone


def test_a_target_that_execs():
    with operated("plain") as target:
        done = go(target, lambda: target.tell("exec"))
        assert (done.collapsed, done.stopped, done.refused) == (4, collapse.EXEC, {})
        assert done.after is None and target.child.poll() is None, "the new program lives"


def test_a_target_that_forks():
    """From then on its pages are shared: what each more block adds is counted."""
    with operated("plain") as target:
        before = target.content()
        done = go(target, lambda: target.tell("fork"))
        whole(done)
        (child,) = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
        assert done.added == 28 * BLOCK
        assert target.content() == before == target._replace(pid=int(child)).content()


def test_a_target_that_unmaps():
    with operated("plain") as target:
        done = go(target, lambda: target.tell("unmap"), after=20)
        # 16 of the 32 blocks have gone, three of those 19 had been taken.
        assert done.collapsed == 19 and done.confirmed == 16 and not done.failed
        assert sum(done.refused.values()) == 13 and target.child.poll() is None


def test_a_number_that_is_somebody_elses_by_now():
    with operated("plain") as target:
        process = Process.open(target.pid)
        target.child.kill()
        target.child.wait()
        with process, pytest.raises((TargetGone, UsageError)):
            capture.take(process, None)


def test_it_is_our_own_memory_too():
    """A process that collapses itself is a target like any other."""
    program = (
        "import mmap, os, sys; sys.argv = ['secondsight', 'collapse', '--pid', str(os.getpid()), '--procfs', '--override', '--compact'];"
        "m = mmap.mmap(-1, 8 << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.write(b'x' * (8 << 21));"
        "from secondsight.cli import main; main()"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0 and "confirmed by the page table" in finished.stdout, finished.stderr
