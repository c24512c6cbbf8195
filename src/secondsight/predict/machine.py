"""Whose a calibration is: the machine that was measured, as /proc tells of it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cpu: model name; virtualised: a hypervisor is beneath (each walk is nested); memory: bytes of RAM; cpus that may be used."""

    cpu: str
    kernel: str
    virtualised: bool
    memory: int
    cpus: int

    @property
    def title(self) -> str:
        """For people."""
        under = ", virtualised" if self.virtualised else ""
        return f"{self.cpu}{under}, Linux {self.kernel}"


def this_machine(proc: Path = Path("/proc")) -> Hardware:
    """The machine we run on, by the files under *proc*."""
    info = _fields(proc / "cpuinfo")
    memory = _fields(proc / "meminfo").get("MemTotal", "0 kB").split()[0]
    flags = info.get("flags", "").split()
    return Hardware(
        cpu=info.get("model name", platform.machine()),
        kernel=platform.release(),
        virtualised="hypervisor" in flags,
        memory=int(memory) * 1024,
        cpus=len(os.sched_getaffinity(0)),
    )


def _fields(path: Path) -> dict[str, str]:
    """``name: value`` of the first CPU's paragraph."""
    out: dict[str, str] = {}
    for line in path.read_text(errors="replace").split("\n\n")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon:
            out[name.strip()] = value.strip()
    return out


def differs(measured: Hardware, here: Hardware) -> list[str]:
    """What makes a calibration of *measured* foreign to *here*: another CPU, or a hypervisor beneath one of them alone."""
    out = []
    if measured.cpu != here.cpu:
        out.append(f"its CPU is {measured.cpu}, here it is {here.cpu}")
    if measured.virtualised != here.virtualised:
        out.append(
            "it is virtualised"
            if measured.virtualised
            else "it is not virtualised, here a hypervisor is beneath"
        )
    return out


def changed(measured: Hardware, here: Hardware) -> list[str]:
    """What may have moved the prices since, on the same kind of machine."""
    return (
        [f"it was measured under Linux {measured.kernel}, here runs {here.kernel}"]
        if measured.kernel != here.kernel
        else []
    )


def pmu() -> bool:
    """Whether this kernel offers hardware counters (a CPU's PMU) at all."""
    return any((Path("/sys/bus/event_source/devices") / name).exists() for name in ("cpu", "cpu_core"))
