"""Booted: blocks whose fate depends on something beside their pages; explain from kernel memory says what khugepaged then does."""

import base64
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.live.judge import inputs
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from secondsight.live.read.thp_disabled import ThpDisabled

pytestmark = pytest.mark.kernel

SUPPORT = Path(__file__).parents[1] / "support"
#: what only newer kernels lay out
NEWER = {"guard", "guard65", "droppable", "droppable_free", "poison", "refuses_unadvised"}
#: processes whose block nobody advised, and what prctl keeps from huge pages there: judged as if enabled were always, which it then is
REFUSING = {
    "refuses_nothing": ThpDisabled.NONE, "refuses_all": ThpDisabled.ALL, "refuses_unadvised": ThpDisabled.NOT_ADVISED,
}  # fmt: skip


@pytest.fixture(scope="module", params=["newest", "6.1"])
def answers(request):
    try:
        kernel = kernels.resolve(request.param)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    files = {
        **agent_files(),
        **initramfs.program(SUPPORT / "laid_out.py"),
        **initramfs.program(SUPPORT / "guests/inputs.py"),
        "/app/laid_out.py": SUPPORT / "laid_out.py",
    }
    by_case = {}
    with machine("npt").boot(kernel, files, main=["/app/main.py"], memory_mib=2048) as guest:
        guest.receive(120)
        while "end" not in (reply := guest.receive(120)):
            by_case[reply["case"]] = reply
        assert reply["owner"][0] == reply["pid"] and reply["owner"][1], "watch names processes by it"
    return request.param, by_case


@pytest.fixture
def blocks(answers, tmp_path):
    kernel, answers_by_case = answers
    by_case = {}
    for case, answer in answers_by_case.items():
        if answer["problem"]:
            assert case in NEWER and kernel == "6.1", answer
            continue
        path = tmp_path / "snapshot.npz"
        path.write_bytes(base64.b64decode(answer["snapshot"]))
        explained = explain(capture.load(path), ["enabled=always"] if case in REFUSING else None)
        assert explained.source == "kernel memory"
        (block,) = explained.blocks
        by_case[case] = (block, explained, answer)
    return kernel, by_case


def test_no_certain_verdict_is_wrong(blocks):
    kernel, by_case = blocks
    wrong, certain = [], 0
    for case, (block, _, answer) in by_case.items():
        seen, huge = answer["statuses"], answer["huge"] > 0
        # A shared block is huge in the page cache first; the next touch maps it.
        done = huge or "succeeded" in seen
        expected = {
            "succeeded": done,
            "unregistered": not seen and not huge,
            "ineligible": not seen and not huge,
        }.get(block.status, block.status in seen and not done)
        certain += block.known
        if block.known and not expected:
            wrong.append(
                f"{kernel} {case}: {block.status} ({block.reason}), kernel {seen}, {answer['huge']} kB huge"
            )
    assert not wrong, "\n".join(wrong)
    assert len(by_case) >= 10 and certain >= len(by_case) * 2 // 3, "where little is certain little is shown"


def test_most_are_certain_and_what_is_not_names_inputs(blocks):
    kernel, by_case = blocks
    open_ones = {case: block.unread for case, (block, _, _) in by_case.items() if not block.known}
    assert all(inputs.named(name) for unread in open_ones.values() for name in unread), open_ones
    assert len(open_ones) <= len(by_case) // 10 + (kernel == "6.1") * 2, open_ones


def test_the_rows_that_were_promised_wrongly(blocks):
    kernel, by_case = blocks
    wanted = {
        "unregistered": "unregistered",
        "devzero": "succeeded",
        "uffd_protected": "pte_uffd_wp",
        "plain": "succeeded",
    }
    if kernel != "6.1":
        wanted |= {
            "guard": "failed",
            "poison": "failed",
            "droppable_free": "succeeded",
            "lazyfree": "page_lazyfree",
            "memfd_hole": "succeeded",
            "memfd_hole_awaited": "exceed_none_pte",
        }
    said = {case: block.status for case, (block, _, _) in by_case.items()}
    assert {case: said[case] for case in wanted} == wanted
    assert all(by_case[case][0].known for case in ("memfd_hole", "memfd_hole_awaited") if case in wanted)
    assert [by_case[case][1].registered for case in ("plain", "unregistered")] == [True, False]


def test_what_prctl_refuses_stays_refused_under_another_switch(blocks):
    """Read from the flags of the mm; khugepaged then comes under that switch, and does so."""
    kernel, by_case = blocks
    there = [case for case in REFUSING if case in by_case]
    assert len(there) == (2 if kernel == "6.1" else 3)
    for case in there:
        block, _, answer = by_case[case]
        wanted = "succeeded" if REFUSING[case] is ThpDisabled.NONE else "ineligible"
        assert (block.status, block.known) == (wanted, True), (case, block)
        assert (answer["huge"] > 0) == (wanted == "succeeded"), answer["huge"]
