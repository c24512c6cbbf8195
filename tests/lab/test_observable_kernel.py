"""Booted kernels answer the shortest scenario of each rule as the model does under that kernel's own rules."""

from __future__ import annotations

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import kernels
from secondsight.lab.compare import compare
from support.observable import SHOWN

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("kernel", "mmu"),
    [("5.10", "npt"), ("6.1", "npt"), ("6.1", "shadow"), ("6.12", "npt"), ("newest", "npt")],
)
def test_the_kernel_agrees(kernel: str, mmu: str) -> None:
    try:
        kernels.resolve(kernel)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    report = compare([shown.scenario() for shown in SHOWN], kernel, mmu, states=True)
    assert not report.failures
    assert [f"{SHOWN[d.scenario].rule}: {d}" for d in report.differences] == []
    assert report.states
