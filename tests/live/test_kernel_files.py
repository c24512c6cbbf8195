"""Booted: regular files; explain from kernel memory says what khugepaged then does, and what MADV_COLLAPSE may."""

import base64
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs, kernels
from secondsight.lab.machines import machine
from secondsight.lab.run import agent_files
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture

pytestmark = pytest.mark.kernel

GUEST = Path(__file__).parents[1] / "support/guests/files.py"


@pytest.fixture(scope="module", params=["7.3", "7.2"])
def by_case(request, tmp_path_factory):
    try:
        kernel = kernels.resolve(request.param)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    if kernel.module("ext4") is None:
        pytest.skip("the kernel was fetched before ext4 was kept: secondsight lab fetch --refresh")
    path = tmp_path_factory.mktemp("files") / "snapshot.npz"
    by_case = {}
    with machine("npt").boot(
        kernel, {**agent_files(), **initramfs.program(GUEST)}, main=["/app/main.py"], memory_mib=2048
    ) as guest:
        guest.receive(120)
        while "end" not in (answer := guest.receive(120)):
            path.write_bytes(base64.b64decode(answer["snapshot"]))
            explained = explain(capture.load(path))
            assert explained.source == "kernel memory"
            by_case[answer["case"]] = (explained.blocks[0], explained.mappings[0], answer)
    return by_case


def test_no_certain_verdict_is_wrong(by_case):
    wrong = [
        f"{case}: {block.status} ({block.reason}), kernel {answer['statuses']}"
        for case, (block, _, answer) in by_case.items()
        if block.known and answer["statuses"] != ([] if block.status == "ineligible" else [block.status])
    ]
    assert not wrong, "\n".join(wrong)


def test_what_the_kernel_answered_is_among_what_could_come(by_case):
    for case, (block, _, answer) in by_case.items():
        if answer["statuses"]:
            assert answer["statuses"][0] in (block.status, *block.others), (case, block)


def test_the_states_of_a_file(by_case):
    said = {case: (block.status, block.known) for case, (block, _, _) in by_case.items()}
    assert said == {
        "clean": ("succeeded", True),
        "never_written_open": ("succeeded", True),
        "part": ("succeeded", True),
        "dirty": ("page_dirty_or_writeback", True),
        "dirty_and_open": ("page_dirty_or_writeback", True),
        "synced": ("succeeded", True),
        "pinned": ("not_suitable_page_count", True),
        "unadvised": ("ineligible", True),
        "unmapped": ("succeeded", True),
        "half_mapped": ("succeeded", True),
        "unmapped_dirty": ("page_dirty_or_writeback", True),
    }


def test_what_the_page_cache_has_is_told_beside_what_is_mapped_here(by_case):
    for case, mapped, cached in (
        ("clean", 512, 512),
        ("unmapped", 0, 512),
        ("half_mapped", 256, 512),
        ("part", 100, 100),
    ):
        block, mapping, _ = by_case[case]
        assert (block.populated, block.cached) == (mapped, cached), case
        assert (mapping.resident, mapping.cached) == (mapped * 4096, cached * 4096), case


def test_what_is_called_impossible_is_refused_and_the_rest_is_not(by_case):
    for case, (_, mapping, answer) in by_case.items():
        assert answer["errno"] == ("EAGAIN" if case == "pinned" else "0"), case
        assert not mapping.forced, case
    assert "MADV_COLLAPSE would" in by_case["unadvised"][1].refused
