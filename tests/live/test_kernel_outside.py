"""A guest's kernel read from outside, over QMP and from a dump of its memory: the same as from inside."""

import base64
import json
import socket
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("drgn")

from secondsight.errors import InputError, MissingDependency, TargetGone
from secondsight.lab import initramfs, kernels
from secondsight.lab.agent import libc
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture, outside
from secondsight.scenario import verbs as v
from support import random_blocks

pytestmark = pytest.mark.kernel

PROGRAM = Path(__file__).parents[1] / "support/guests/outside.py"


def dump(monitor, path):
    """Ask QEMU for a dump of the guest's memory, as ``virsh dump --memory-only`` does."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(60)
        line.connect(str(monitor))
        stream = line.makefile("rw")
        for name, arguments in (
            ("qmp_capabilities", {}),
            ("dump-guest-memory", {"paging": False, "protocol": f"file:{path}"}),
        ):
            stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
            stream.flush()
            while "return" not in (reply := json.loads(stream.readline())):
                assert "error" not in reply, reply
        stream.close()


def agree(kernel, answer, blocks, folder):
    """What is read from outside is what was read inside: every column, every fact, every verdict."""
    for space, pid in answer["pids"].items():
        path = folder / "inside.npz"
        path.write_bytes(base64.b64decode(answer["taken"][space]))
        inside = capture.load(path)
        from_outside = outside.take(kernel, pid, (libc.AREA, libc.AREA + blocks * libc.BLOCK_BYTES))
        for name in capture.STORED_COLUMNS:
            assert np.array_equal(getattr(inside.columns, name), getattr(from_outside.columns, name)), name
        for ours, theirs in zip(inside.columns.secondary, from_outside.columns.secondary, strict=True):
            assert (ours.name, ours.young.tolist()) == (theirs.name, theirs.young.tolist())
        a, b = inside.header, from_outside.header
        assert (a.limits, a.enabled, a.name) == (b.limits, b.enabled, b.name)
        assert msgspec.structs.replace(a.facts, trace_statuses=b.facts.trace_statuses) == b.facts
        assert explain(inside).blocks == explain(from_outside).blocks
        area = [vma for vma in b.mappings if libc.AREA <= vma.start < libc.AREA + blocks * libc.BLOCK_BYTES]
        same = [vma for vma in a.mappings if libc.AREA <= vma.start < libc.AREA + blocks * libc.BLOCK_BYTES]
        assert [(x.start, x.end, x.perms) for x in area] == [(x.start, x.end, x.perms) for x in same]


@pytest.mark.parametrize(("kernel", "mmu", "mglru"), [("6.1", "shadow", False), ("newest", "npt", True)])
def test_from_outside_as_from_inside(kernel, mmu, mglru, tmp_path):
    try:
        booted = kernels.resolve(kernel)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    scenario = random_blocks.scenario(7, mmu, 48, 2, mglru=mglru, age=False)
    scenario = msgspec.structs.replace(
        scenario, steps=tuple(step for step in scenario.steps if not isinstance(step, v.Scan))
    )
    files = {**agent_files(), **initramfs.program(PROGRAM)}
    with machine(mmu).boot(booted, files, main=["/app/main.py"], qmp=True) as guest:
        assert guest.receive(120)["ready"] == booted.release
        guest.send({"scenario": msgspec.to_builtins(scenario)})
        answer = guest.receive(120)
        # QEMU talks to one at a time, and drgn holds its line as long as anything refers to it: the dump comes first.
        dump(guest.qmp_socket, guest.folder / "vmcore")
        agree(outside.open_kernel(guest.folder / "vmcore", None), answer, 24, tmp_path)
        live = outside.open_kernel(None, guest.qmp_socket)
        assert live.release == booted.release
        agree(live, answer, 24, tmp_path)
        with pytest.raises(TargetGone):
            outside.take(live, 4_000_000)


def test_what_is_no_dump_is_one_line(tmp_path):
    path = tmp_path / "vmcore"
    path.write_bytes(b"not a dump")
    with pytest.raises(InputError, match="vmcore: not a crash dump"):
        outside.open_kernel(path, None)
