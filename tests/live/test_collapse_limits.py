"""``collapse`` on real processes: under a memory cgroup's limit they live on, and what it says it added is what smaps and the group say."""

import json
import os
import re
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.live.act import madvise
from support.cgroups import memory_cgroup
from support.operators import BLOCK, MIB, operated

pytestmark = pytest.mark.skipif(
    madvise.available() != "" or os.geteuid() != 0,
    reason="collapsing in another process takes Linux 6.1 and CAP_SYS_NICE",
)


def collapse(capsys, pid, *options):
    """(exit code, the round) of ``secondsight collapse``."""
    argv = ["collapse", "--pid", pid, "--procfs", "--override", "--compact", "--json", *options]
    code = 0
    try:
        main([str(word) for word in argv])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, json.loads(captured.out)


def smaps(pid, name):
    """Bytes of the field *name* in smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) << 10


def usage(folder):
    """Bytes that the group uses."""
    for name in ("memory.current", "memory.usage_in_bytes"):
        if (folder / name).exists():
            return int((folder / name).read_text())
    raise AssertionError(folder)


def area(process):
    return "--range", f"{process.start:x}-{process.end:x}"


@pytest.mark.parametrize("run", range(10))
def test_a_process_near_its_limit_lives_on(run, capsys):
    """100 blocks of 8 pages under 64 MiB: all of them would be 200 MiB."""
    with memory_cgroup(64 * MIB) as folder, operated("sparse", group=folder) as process:
        before = usage(folder)
        code, done = collapse(capsys, process.pid, *area(process))
        assert code == 1 and done["failed"]
        assert 0 < done["collapsed"] == done["confirmed"] < 30
        assert done["added"] == done["collapsed"] * 504 * 4096
        assert sum(done["left"].values()) == 100 - done["collapsed"]
        assert any("cgroup" in reason for reason in done["left"])
        assert smaps(process.pid, "AnonHugePages") == done["collapsed"] * BLOCK
        assert abs(usage(folder) - before - done["added"]) <= 4 * MIB, "the group grew by what was said"
        assert usage(folder) <= 40 * MIB, "half of what there was is left"
        assert process.child.poll() is None


def test_a_limit_that_leaves_nothing_is_not_touched(capsys):
    with memory_cgroup(64 * MIB) as folder, operated("plain", group=None) as process:
        (folder / "cgroup.procs").write_text(str(process.pid))
        name = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
        (folder / name).write_text(str(5 * MIB))
        code, done = collapse(capsys, process.pid, *area(process))
        assert code == 1 and done["collapsed"] == 0 and process.child.poll() is None
        assert "a collapse needs 2.0 MiB for a moment" in done["stopped"]


def test_a_forked_childs_pages_are_copied_and_counted(capsys):
    """64 MiB shared by two become 128: what a database's snapshot costs."""
    with operated("snapshot") as process:
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        code, done = collapse(capsys, process.pid, "--policy", "madv_collapse", *area(process))
        assert code == 0 and done["collapsed"] == done["confirmed"] == 32
        assert done["added"] == 64 * MIB
        both = smaps(process.pid, "Pss_Anon") + smaps(child, "Pss_Anon")
        assert both >= 128 * MIB
        again_code, again = collapse(capsys, int(child), "--policy", "madv_collapse", *area(process))
        assert again_code == 0 and again["collapsed"] == 32 and again["added"] == 0, (
            "the child has its pages alone now"
        )


def test_zero_pages_and_what_may_be_added(capsys):
    with operated("zeros") as process:
        code, done = collapse(
            capsys, process.pid, "--policy", "madv_collapse", "--max-added", "5MiB", *area(process)
        )
        assert code == 0, "the user's own budget is no failure"
        # Four blocks are whole; the others hold one page and 511 zero pages.
        assert done["collapsed"] == 4 + 2 and done["added"] == 2 * 511 * 4096
        assert sum(done["left"].values()) == 2 and "--max-added" in next(iter(done["left"]))


def test_a_range_is_compared_with_the_range(capsys):
    with operated("plain") as process:
        half = "--range", f"{process.start:x}-{process.start + 32 * MIB:x}"
        code, done = collapse(capsys, process.pid, "--until-coverage", "50%", *half)
        assert code == 0 and done["stopped"] == "coverage reached" and done["collapsed"] == 8
        assert done["after"] == {"resident": 32 * MIB, "eligible": 32 * MIB, "huge": 16 * MIB}
        assert smaps(process.pid, "AnonHugePages") == 16 * MIB


@pytest.mark.parametrize("kind", ["shared", "segment"])
def test_shared_memory_is_taken_and_proved(kind, capsys):
    """A VM's RAM on a memfd; a segment that another process filled and this one never touched."""
    with operated(kind) as process:
        code, done = collapse(capsys, process.pid, *area(process))
        assert code == 0 and done["collapsed"] == done["confirmed"] == 32 and done["added"] == 0
        assert smaps(process.pid, "ShmemPmdMapped") == 64 * MIB
        assert done["after"] == {"resident": 64 * MIB, "eligible": 64 * MIB, "huge": 64 * MIB}
        assert list(done["overridden"].values()) == [32] and "shmem_enabled" in next(iter(done["overridden"]))


def test_nothing_chosen_has_its_reasons(capsys):
    with operated("shared") as process:
        argv = ["collapse", "--pid", str(process.pid), "--procfs", *area(process)]
        with pytest.raises(SystemExit):
            main(argv)
        printed = capsys.readouterr().out
        assert (
            "0 chosen" in printed
            and "32 left alone: the kernel would not by itself (shmem_enabled=" in printed
        )


@pytest.mark.parametrize("already", [0, 1])
def test_without_any_channel_no_hotness_is_claimed(already, capsys):
    with operated("hotcold") as process:
        if already:
            collapse(capsys, process.pid, "--range", f"{process.start:x}-{process.start + BLOCK:x}")
        argv = ["collapse", "--pid", str(process.pid), "--procfs", "--override", "--compact", *area(process)]
        with pytest.raises(SystemExit):
            main([*argv, "--until-coverage", "12%"])
        first, second, *rest = capsys.readouterr().out.splitlines()
        assert first.startswith("no hotness is known here: in address order")
        chosen, collapsed = map(int, re.search(r"(\d+) chosen, (\d+) collapsed", second).groups())
        # khugepaged, where it may, has taken some before, and a page that is off its list for a moment keeps a block from being
        # chosen: each block that was left alone for more than the end of the work is counted with its reason.
        alone = {
            why: int(count) for line in rest for count, why in re.findall(r"(\d+) left alone: (.+)", line)
        }
        assert chosen + sum(n for why, n in alone.items() if not why.startswith("not reached")) == 64
        before = alone.get("huge already", 0)
        assert before >= already and collapsed == max(8 - before, 0)
        assert smaps(process.pid, "AnonHugePages") >= 8 * BLOCK
