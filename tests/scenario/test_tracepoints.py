"""A visit in the words of the kernel's tracepoints: which events there are, and what each kernel's print."""

import pytest

from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.profiles import profile
from secondsight.scenario import verbs as v
from secondsight.scenario.results import CollapseFileEvent, IsolateEvent, SwapinEvent
from secondsight.scenario.run import run

FULL = (v.CpuWrite("a", "0"), v.Madvise("a", "0", "hugepage"), v.Scan())


def visits(*steps, rules="7.3", knobs=None, shared=None, **host):
    spaces = (v.SpaceSpec("a", shared=shared),)
    config = HostConfig(knobs=knobs or Knobs(), **host)
    answer = run(v.Scenario(spaces, steps, host=config), rules)
    return answer.files if shared else answer.blocks


def test_a_collapse_is_a_scan_an_isolate_and_a_collapse():
    (visit,) = visits(*FULL)
    assert (visit.pass_, visit.space, visit.block, visit.status) == (1, "a", 0, "succeeded")
    assert visit.isolate == IsolateEvent("succeeded", 512, 0) and visit.collapse == "succeeded"
    assert visit.swapin is None and visit.order == 9 and visit.further == ()


@pytest.mark.parametrize(
    ("rules", "writable"), [("6.1", True), ("6.17", True), ("6.18", False), ("7.3", False)]
)
def test_writable_is_printed_until_6_18(rules, writable):
    (visit,) = visits(*FULL, rules=rules)
    assert (visit.writable, visit.isolate.writable) == ((1, 1) if writable else (None, None))


def test_numbers_of_the_scan_are_those_of_the_pages():
    steps = (
        v.CpuWrite("a", "0:0-99"),
        v.CpuRead("a", "0:100-102"),
        v.ClearRefs("a"),
        v.CpuRead("a", "0:0-6"),
    )
    (visit,) = visits(*steps, v.Madvise("a", "0", "hugepage"), v.Scan())
    # 412 empty entries and zero pages; of what is mapped seven pages are young.
    assert (visit.none_or_zero, visit.unmapped, visit.referenced) == (412, 0, 7)
    assert visit.young == (7, 0, 0)


def test_swapped_pages_bring_a_swap_in_before_isolate():
    steps = (v.CpuWrite("a", "0"), v.SwapOut("a", "0:3-6"), *FULL[1:])
    (visit,) = visits(*steps)
    assert visit.unmapped == 4 and visit.swapin == SwapinEvent(4, visit.referenced, 1)
    assert visit.isolate is not None and visit.collapse == "succeeded"
    (visit,) = visits(*steps, knobs=Knobs(max_ptes_swap=3))
    assert (visit.status, visit.swapin, visit.collapse) == ("exceed_swap_pte", None, None)


@pytest.mark.parametrize(
    ("rules", "status"), [("5.10", "pmd_null"), ("6.1", "page_pmd_mapped"), ("7.3", "page_pmd_mapped")]
)
def test_what_is_mapped_whole_has_no_table_to_scan(rules, status):
    first, second = visits(*FULL, v.Scan(), rules=rules)
    assert first.collapse == "succeeded" and (second.status, second.collapse) == (status, None)
    # Of a huge page no page is asked about.
    assert second.young == (0, 0, 0) and second.test_young_calls == 0


@pytest.mark.parametrize(
    ("says", "status", "collapse"),
    [(False, "succeeded", "failed"), (True, "lack_referenced_page", "lack_referenced_page")],
)
def test_kernels_that_do_not_say_why_print_the_scans_answer_where_isolate_refused(says, status, collapse):
    """A guest's use is seen by the scan; the zap takes it away, and isolate finds none."""
    spaces = (v.SpaceSpec("a", vm=v.Vm()),)
    steps = (v.CpuWrite("a", "0"), v.GuestWrite("a", "0:9"), v.Drain(), v.ClearRefs("a"), *FULL[1:])
    rules = profile("7.2").derive(collapse_says_why=says)
    (visit,) = run(v.Scenario(spaces, steps, host=HostConfig(mmu="npt")), rules).blocks
    assert (visit.status, visit.collapse, visit.isolate.status) == (status, collapse, "lack_referenced_page")


def test_a_file_visit_tells_of_a_collapse_where_the_kernel_does():
    steps = (
        v.CpuWrite("a", "0:0-9"),
        v.Madvise("a", "0", "hugepage"),
        v.Madvise("a", "0", "hugepage"),
        v.Scan(),
    )
    shared = v.Shared("ram")
    for rules, told in (("6.1", False), ("6.12", True), ("7.3", True)):
        (visit,) = visits(*steps, rules=rules, shared=shared, shmem_enabled="advise")
        assert (visit.result, visit.present, visit.swap, visit.file) == (
            "succeeded" if rules != "7.3" else visit.result,
            10,
            0,
            "memfd:ram",
        )
        assert (visit.collapse == CollapseFileEvent("succeeded", 512, 512, 1)) == told
