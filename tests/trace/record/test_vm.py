"""Recording a VM: what can be checked without QEMU, and (marked kernel) a firmware's boot against the plugin's own totals."""

import os
import shutil
import time

import numpy as np
import pytest

from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.trace import Kind, Provenance, Trace, TraceWriter
from secondsight.trace.intake import Intake
from secondsight.trace.record import vm as module
from secondsight.trace.record.vm import ROW, PluginStream, build_plugin, qemu_version, ram_bytes, record_vm


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ([], 128 << 20),
        (["-m", "512"], 512 << 20),
        (["-m", "2G", "-smp", "2"], 2 << 30),
        (["-m", "size=512M,slots=2,maxmem=4G"], 512 << 20),
        (["-m", "1048576K"], 1 << 30),
    ],
)
def test_the_guests_memory_is_read_from_qemus_own_arguments(arguments, size):
    assert ram_bytes(arguments) == size


def test_requests_that_cannot_be(tmp_path):
    for size in ("1x", "0", "", "G"):
        with pytest.raises(UsageError, match="expected a size"):
            ram_bytes(["-m", size])
    for accelerator in (["-accel", "kvm"], ["-enable-kvm"], ["-machine", "q35,accel=kvm"]):
        with pytest.raises(UsageError, match="only under TCG"):
            record_vm(tmp_path / "t.parquet", accelerator)
    with pytest.raises(UsageError, match="quantum"):
        record_vm(tmp_path / "t.parquet", [], quantum=1 << 31)
    with pytest.raises(UsageError, match="--clock sun: there are instructions and wall"):
        record_vm(tmp_path / "t.parquet", [], clock="sun")
    with pytest.raises(MissingDependency, match="needs no-such-qemu"):
        record_vm(tmp_path / "t.parquet", ["no-such-qemu"])
    with pytest.raises(MissingDependency, match="does not say that it is a QEMU"):
        qemu_version("true")
    assert list(tmp_path.iterdir()) == []


def test_the_plugin_is_built_once_and_missing_parts_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="needs a C compiler"):
        build_plugin(1)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(SecondSightError, match="cannot build the plugin"):
        build_plugin(1)
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    monkeypatch.setenv("CC", "cc")
    built = build_plugin(1)
    assert built.read_bytes()[:4] == b"\x7fELF"
    monkeypatch.setenv("CC", "false")
    assert build_plugin(1) == built
    assert [p.name for p in (tmp_path / "secondsight").iterdir()] == [built.name]


def rows(*entries):
    return np.array([(*entry, (0, 0, 0)) for entry in entries], dtype=ROW).tobytes()


def follow(tmp_path, monkeypatch, *pieces):
    """Feed *pieces* as reads of the pipe; returns the trace, its provenance and the notes."""
    remaining = [*pieces, b""]
    monkeypatch.setattr(module.os, "read", lambda fd, size: remaining.pop(0))
    writer = TraceWriter(tmp_path / "t.parquet", Provenance(source="record-vm"))
    intake = Intake(writer)
    intake.add_space("vm", "vm")
    stream, notes = PluginStream(0, intake, None), []
    stream.follow()
    stream.account(notes)
    provenance = intake.close()
    return Trace.open(tmp_path / "t.parquet"), provenance, notes


DATA = ((1, 0x1000, 7, 4), (2, 0x2000, 1, 5))


def test_rows_may_come_in_any_pieces(tmp_path, monkeypatch):
    data = rows(*DATA, (8, 0, 0, 0xFF), (3, 5, 0, 0xFF))
    trace, provenance, notes = follow(tmp_path, monkeypatch, data[:5], data[5:30], data[30:])
    columns = trace.read()
    assert columns["kind"].tolist() == [Kind.GUEST_READ, Kind.GUEST_WRITE]
    assert columns["count"].tolist() == [7, 1]
    assert provenance.dropped == {
        "accesses to memory that is not RAM (firmware, video)": 3,
        "accesses to device registers": 5,
    }
    assert notes == []


def test_no_access_is_lost_silently(tmp_path, monkeypatch):
    _, provenance, _ = follow(tmp_path, monkeypatch, rows(*DATA, (20, 4, 0, 0xFF), (0, 0, 0, 0xFF)))
    assert provenance.dropped == {"accesses lost to a failed write": 4, "accesses lost in the stream": 8}
    _, _, notes = follow(tmp_path, monkeypatch, rows(*DATA))
    assert "without the plugin's totals" in notes[0]
    with pytest.raises(SecondSightError, match="unknown kind"):
        follow(tmp_path, monkeypatch, rows((1, 0, 0, 0x7F)))


def firmware(wait):
    """QEMU's arguments of a PC without a boot device, which would end up waiting: -no-reboot and a boot menu of none, shown for *wait* ms,
    make it reboot, and so end."""
    boot = f"reboot-timeout={wait}"
    return ["-M", "pc", "-m", "64M", "-display", "none", "-nodefaults", "-no-reboot", "-boot", boot]


@pytest.mark.kernel
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU")
@pytest.mark.parametrize("quantum", [0, 100_000])
def test_a_firmwares_boot_agrees_with_the_plugins_totals(tmp_path, quantum):
    provenance, code = record_vm(
        tmp_path / "t.parquet", firmware(1), quantum=quantum, stdin=os.open(os.devnull, os.O_RDONLY)
    )
    assert code == 0
    assert not any("lost" in reason for reason in provenance.dropped)
    assert not any("fetches" in what for what in provenance.unseen)
    columns = Trace.open(tmp_path / "t.parquet").read()
    assert set(columns["kind"].tolist()) == {Kind.GUEST_READ, Kind.GUEST_WRITE, Kind.GUEST_FETCH}
    assert int(columns["address"].max()) < 64 << 20
    assert columns["count"].sum() > 1_000_000


@pytest.mark.kernel
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU")
def test_by_the_wall_clock_halted_time_passes(tmp_path):
    # The firmware's boot menu waits two seconds, halted most of the time.
    begun = time.monotonic_ns()
    provenance, code = record_vm(
        tmp_path / "t.parquet",
        firmware(2000),
        quantum=100_000_000,
        clock="wall",
        stdin=os.open(os.devnull, os.O_RDONLY),
    )
    took = time.monotonic_ns() - begun
    assert code == 0
    assert not any("lost" in reason for reason in provenance.dropped)
    assert "halted time passes" in provenance.clock.meaning
    columns = Trace.open(tmp_path / "t.parquet").read()
    time_of = columns["time"].astype(np.int64)
    assert (np.diff(time_of) >= 0).all()
    assert 2_000_000_000 <= time_of[-1] <= took
    assert columns["count"].sum() > 1_000_000


def test_a_compiler_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "none") + " -m64")
    with pytest.raises(MissingDependency, match="cannot be run"):
        build_plugin(1)
