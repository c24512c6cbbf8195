"""What this kernel and these permissions allow: every channel and verb, each with how to get what is missing."""

import os

import pytest

from secondsight.errors import MissingDependency
from secondsight.live import doctor
from secondsight.live.doctor import Check, examine


@pytest.fixture(scope="module")
def here():
    return examine()


def by_name(checkup):
    return {check.name: check for check in checkup.checks}


def test_every_group_is_looked_at_and_every_name_once(here):
    groups = {}
    for check in here.checks:
        groups.setdefault(check.group, []).append(check.name)
        assert check.state in ("yes", "partly", "no") and check.found and "\n" not in check.found
    assert set(groups) == {"kernel", "switch", "channel", "verb"}
    assert groups["channel"] == ["PRIMARY", "REFERENCED", "SECONDARY"]
    assert all(len(set(names)) == len(names) for names in groups.values())
    assert {"/proc/PID/pagemap", "kernel memory", "tracepoints", "MADV_COLLAPSE"} <= set(groups["kernel"])


def test_what_is_missing_says_how_to_mend_it(here):
    for check in here.checks:
        if check.state == "no" and check.group == "kernel":
            assert check.mend or check.name == "kernel memory", check


def test_who_asks_and_what_the_rules_were_chosen_by(here):
    assert here.root == (os.geteuid() == 0) and here.kernel == here.facts.release == os.uname().release
    assert here.rules and here.evidence and set(here.wanted) > set()


@pytest.mark.parametrize(
    ("problem", "mend"),
    [
        ("drgn is not installed", "pip install"),
        ("/proc/kcore: permission denied", "run as root"),
        ("this kernel does not have it", "CONFIG_PROC_KCORE"),
    ],
)
def test_without_kernel_memory_channels_are_unknown_and_verbs_partly(monkeypatch, problem, mend):
    monkeypatch.setattr(doctor, "open_kernel", lambda insist: (None, problem))
    checks = by_name(examine())
    assert (checks["kernel memory"].state, checks["kernel memory"].found) == ("no", problem)
    assert mend in checks["kernel memory"].mend
    assert checks["PRIMARY"].state == "partly" and checks["SECONDARY"].state == "no"
    assert checks["REFERENCED"].state in ("partly", "no"), "kpageflags shows no PG_young"
    assert checks["explain, snapshot"].state in ("partly", "no") and checks["explain FILE"].state == "yes"


def test_with_kernel_memory_every_channel_is_known(monkeypatch):
    kernel = type("Kernel", (), {"page_table_levels": 5})()
    monkeypatch.setattr(doctor, "open_kernel", lambda insist: (kernel, ""))
    checks = by_name(examine())
    assert "5-level page tables" in checks["kernel memory"].found
    assert {checks[name].state for name in ("PRIMARY", "REFERENCED", "SECONDARY")} == {"yes"}
    assert checks["explain, snapshot"].state == ("no" if checks["/proc/PID/pagemap"].state == "no" else "yes")


def test_a_kernel_without_madv_collapse_and_one_that_forbids_it(monkeypatch):
    monkeypatch.setattr(doctor.madvise, "available", lambda: "this kernel has no MADV_COLLAPSE (needs 6.1)")
    checks = by_name(examine())
    assert (
        checks["MADV_COLLAPSE"].state == checks["collapse"].state == "no"
        and "6.1" in checks["MADV_COLLAPSE"].mend
    )
    monkeypatch.setattr(doctor.madvise, "available", lambda: "")
    for capabilities, state in ((frozenset(), "no"), (frozenset({"CAP_SYS_NICE"}), "yes")):
        monkeypatch.setattr(doctor, "own_capabilities", lambda held=capabilities: held)
        assert by_name(examine())["MADV_COLLAPSE"].state == state


def test_a_kernel_without_huge_pages_is_one_finding_and_not_the_end(monkeypatch):
    def none():
        raise MissingDependency("/sys/kernel/mm/transparent_hugepage: not there")

    monkeypatch.setattr(doctor.sysfs, "thp_enabled", none)
    monkeypatch.setattr(doctor.sysfs, "knobs", none)
    checks = by_name(examine())
    assert checks["transparent huge pages"].state == "no"
    assert "CONFIG_TRANSPARENT_HUGEPAGE" in checks["transparent huge pages"].mend
    assert "max_ptes_none, _swap, _shared" not in checks


def test_thp_switched_off_says_how_to_switch_it_on(monkeypatch):
    monkeypatch.setattr(doctor.sysfs, "thp_enabled", lambda: "never")
    monkeypatch.setattr(doctor.sysfs, "knobs", doctor.sysfs.Knobs)
    check = by_name(examine())["transparent huge pages"]
    assert check.state == "no" and check.mend.startswith("echo madvise >")
    assert isinstance(check, Check)
