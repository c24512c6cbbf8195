"""What this machine offers beside procfs: what is insisted on, what is done without and said, and what is undone at the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency, UsageError
from secondsight.live import recording_channels
from secondsight.live.recording_channels import LiveChannels


def without(monkeypatch, *, kernel="no kcore here", instance="no tracefs here"):
    """A machine on which neither can be had."""

    def none(**options):
        raise MissingDependency(instance)

    def kernel_memory(insist):
        if insist:
            raise MissingDependency(kernel)
        return None, kernel

    monkeypatch.setattr(recording_channels, "open_kernel", kernel_memory)
    monkeypatch.setattr(recording_channels.Instance, "open", none)


def test_what_is_not_there_is_said_with_its_reason(monkeypatch):
    without(monkeypatch)
    with LiveChannels.open(os.getpid(), 1.0) as channels:
        assert channels.missing == {
            "kernel memory": "no kcore here", "tracepoints": "no tracefs here",
            "DAMON": "is read through its tracepoint, and there are no tracepoints",
        }  # fmt: skip
        assert (
            channels.seen == []
            and channels.regions() == []
            and channels.damon_samples == channels.damon_taken() == 0
        )
        assert channels.looker(False, False) is channels.kernel_reader() is None
        assert channels.process.pid == os.getpid()
        assert channels.finish() == []


def test_what_is_not_wanted_is_not_looked_for(monkeypatch):
    without(monkeypatch)
    with LiveChannels.open(os.getpid(), 1.0, damon=False) as channels:
        assert channels.missing["DAMON"] == "not asked for"


@pytest.mark.parametrize(
    ("wanted", "said"), [({"kernel_memory": True}, "no kcore"), ({"damon": True}, "there are no tracepoints")]
)
def test_what_is_insisted_on_and_is_not_there_ends_it_and_nothing_stays_open(monkeypatch, wanted, said):
    without(monkeypatch)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(MissingDependency, match=said):
        LiveChannels.open(os.getpid(), 1.0, **wanted)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class Instance:
    """A private instance of tracing: its *events* are there, and *pending* are handed out once."""

    def __init__(self, events, pending=(), lost=0):
        self.events, self.pending, self.lost, self.closed = events, list(pending), lost, 0

    def read(self):
        out, self.pending = self.pending, []
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed += 1


def test_khugepageds_decisions_are_counted_and_lost_events_are_said(monkeypatch):
    without(monkeypatch)
    instance = Instance(["huge_memory:mm_khugepaged_scan_pmd"], lost=3)
    monkeypatch.setattr(recording_channels.Instance, "open", lambda **options: instance)
    channels = LiveChannels.open(os.getpid(), 1.0)
    assert channels.seen == ["tracepoints: khugepaged's decisions about the process, counted"]
    assert "no tracepoint damon:damon_aggregated" in channels.missing["DAMON"]
    assert channels.regions() == []
    decisions, lost = channels.finish()
    assert decisions.startswith("khugepaged: 0 decisions about the process, 0 about others or unknown")
    assert lost == "the trace buffer lost 3 events: of DAMON's regions or decisions"
    assert instance.closed == 1
    channels.close()
    assert instance.closed == 1 and channels.regions() == []


def test_a_process_that_is_not_there_is_a_wrong_request():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(UsageError):
        LiveChannels.open(child.pid, 1.0)
