"""Whose a calibration is: what /proc says, and what makes one foreign."""

import os
import platform

import msgspec
import pytest

from secondsight.predict.machine import Hardware, changed, differs, this_machine


def test_the_machine_is_what_proc_says(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nmodel name\t: Other\n"
    )
    (tmp_path / "meminfo").write_text("MemTotal:       1024 kB\nMemFree: 1 kB\n")
    machine = this_machine(tmp_path)
    assert (machine.cpu, machine.virtualised, machine.memory) == ("Some CPU", True, 1 << 20)
    assert differs(machine, machine) == changed(machine, machine) == []


def test_a_machine_that_says_little_is_one_all_the_same(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    (tmp_path / "meminfo").write_text("")
    machine = this_machine(tmp_path)
    assert machine.cpu == platform.machine() and not machine.virtualised and machine.memory == 0
    assert machine.cpus == len(os.sched_getaffinity(0)) and machine.kernel == platform.release()


@pytest.mark.parametrize(
    ("change", "foreign", "moved"),
    [
        ({}, [], []),
        ({"cpu": "B"}, ["its CPU is B, here it is A"], []),
        ({"virtualised": True}, ["it is virtualised"], []),
        ({"kernel": "2"}, [], ["it was measured under Linux 2, here runs 1"]),
        ({"memory": 5, "cpus": 9}, [], []),
    ],
)
def test_another_cpu_or_a_hypervisor_makes_it_foreign_and_another_kernel_moves_it(change, foreign, moved):
    here = Hardware(cpu="A", kernel="1", virtualised=False, memory=1, cpus=1)
    measured = msgspec.structs.replace(here, **change)
    assert differs(measured, here) == foreign and changed(measured, here) == moved
    if "virtualised" in change:
        assert differs(here, measured) == ["it is not virtualised, here a hypervisor is beneath"]


def test_its_title_is_for_people():
    here = Hardware(cpu="A", kernel="1", virtualised=True, memory=1, cpus=1)
    assert here.title == "A, virtualised, Linux 1"
    assert msgspec.structs.replace(here, virtualised=False).title == "A, Linux 1"
