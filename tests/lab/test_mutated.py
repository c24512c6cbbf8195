"""A mutated module in the place of its own: it answers otherwise for all that use it, and is as before afterwards, whatever happens."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from secondsight.lab import mutants
from secondsight.lab.mutated import mutated
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged import scan, walk
from secondsight.mm.profiles import profile
from secondsight.mm.view import BlockView, empty


def _none_pages(view: BlockView, limits: Knobs) -> tuple[str, int]:
    scanned = scan.scan(view, limits, profile("7.3"))
    return str(scan.ScanResult(int(scanned.code[0]))), int(scanned.stopped[0])


def test_a_mutated_module_answers_otherwise_and_is_as_before_afterwards():
    columns = empty(1)
    columns["pmd"] = np.full(1, 0x67, np.uint64)  # a page table, nothing mapped in it
    view, limits = BlockView(**columns), Knobs(max_ptes_none=3)
    assert _none_pages(view, limits) == ("exceed_none_pte", 3)
    mutant = next(m for m in mutants.mutants("scan") if m.before == "none_or_zero > max_none")
    real = walk.scan
    with mutated("scan", mutants.apply(mutant)):
        assert walk.scan is scan.scan is not real
        assert _none_pages(view, limits) == ("exceed_none_pte", 2)
    assert walk.scan is scan.scan is real
    assert _none_pages(view, limits) == ("exceed_none_pte", 3)


def test_whatever_happens_while_it_lasts_it_is_as_before_afterwards():
    before = dict(vars(scan)), walk.scan
    with pytest.raises(ZeroDivisionError), mutated("scan", ast.parse(mutants.source("scan"))):
        assert scan.scan is not before[1]
        raise ZeroDivisionError
    assert dict(vars(scan)) == before[0] and walk.scan is before[1]


def test_a_module_that_cannot_be_loaded_leaves_what_was_there():
    before = walk.scan
    with pytest.raises(NameError), mutated("scan", ast.parse("no_such_name")):
        pass
    assert walk.scan is scan.scan is before
