"""Signals while something must not be left half done: remembered, once, and a later one ends it."""

import os
import signal

import pytest

from secondsight.live.act import stopping
from secondsight.live.act.stopping import Stopping
from secondsight.signals import ENDING, Terminated


def test_a_signal_ends_the_sleep_and_its_repeat_changes_nothing(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGTERM)
    with Stopping() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60.0) and stop.asked
        now[0] += 0.5
        os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` sends it, to its child and to its group
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGINT)
        assert raised.type is KeyboardInterrupt
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_is_remembered_and_its_repeats_end_nothing(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with Stopping() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.wait(60.0)
        now[0] += 5.0
        os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ENDING)
def test_what_was_cut_short_ends_as_the_signal_that_came_first_says(number):
    with Stopping() as stop:
        stop.require_not_asked()
        for each in (number, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), each)
    with pytest.raises(KeyboardInterrupt) as raised:
        stop.require_not_asked()
    assert getattr(raised.value, "number", signal.SIGINT) == number


def test_a_ctrl_c_that_was_ignored_at_the_start_stops_nothing():
    """A shell's background, where the terminal's Ctrl-C is for who runs in front."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGINT, before)
