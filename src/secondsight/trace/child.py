"""A recorded program or VM does not outlive its recorder, not even one that is killed."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def ends_with_us() -> Callable[[], None]:
    """What subprocess.Popen shall call before it executes (*preexec_fn*): the kernel ends the child when this thread is gone."""
    prctl, ours = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != ours:  # gone before it could be asked
            os._exit(1)

    return ask
